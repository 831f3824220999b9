"""The keys and values of prompts that were read, for prompts that begin alike.

A conversation's next turn, a branch of a response, and another response to the same prompt read only what is new.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from engine.inference.prompt_reading import PromptReading

LEAST, MOST = 32 * 2**20, 512 * 2**20  # bytes


class PrefixCache:
    """The readings that were used last, up to a number of bytes.

    Attributes:
        limit: the most bytes that are kept.
        bytes: the bytes that are kept.
    """

    def __init__(self, weights: int) -> None:
        """Begin without readings. The limit is `weights`, the bytes of the model's weights, within LEAST and MOST."""
        self.limit = min(max(weights, LEAST), MOST)
        self.bytes = 0
        self._readings: OrderedDict[PromptReading, int] = OrderedDict()  # {reading: bytes}, the last used at the end

    def fill(self, reading: PromptReading) -> None:
        """Copy what is known of a reading's texts."""
        for row, (policy, tokens) in enumerate(reading.texts):
            best, found = 0, None
            for other in self._readings:
                for other_row, (own, known) in enumerate(other.texts):
                    if own.gate != policy.gate:
                        continue
                    count = shared(tokens, known)
                    if count < len(tokens) or count < len(known):
                        # A whole piece at a time, and the last position is read for its log-probs.
                        count = min(count, len(tokens) - 1) // reading.piece * reading.piece
                    if count > best:
                        best, found = count, (other, other_row)
            if found:
                reading.take(row, *found, best)
                self._readings.move_to_end(found[0])

    def keep(self, reading: PromptReading) -> None:
        """Keep a reading that is complete, unless its texts are short; earlier readings that it begins with go."""
        size = reading.bytes
        if reading.length <= reading.piece or size > self.limit:
            return
        for other in list(self._readings):
            if all(any(begins(text, own) for own in reading.texts) for text in other.texts):
                self._drop(other)
        self._readings[reading] = size
        self.bytes += size
        while self.bytes > self.limit:
            self._drop(next(iter(self._readings)))

    def _drop(self, reading: PromptReading) -> None:
        self.bytes -= self._readings.pop(reading)


def begins(text: tuple, own: tuple) -> bool:
    """Return whether a text (policy, tokens) is another one's beginning, read by a policy with the same gate."""
    (policy, tokens), (other, more) = text, own
    return policy.gate == other.gate and tokens == more[: len(tokens)]


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the number of tokens that two texts begin with alike."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # slices are compared faster than tokens one by one
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
