"""Find the stop string that ends a response, in text that grows by a token at a time."""

from __future__ import annotations

from collections.abc import Sequence

from engine.inference.detokenizer import Detokenizer
from engine.models.policy_set import PolicySet


class StopFinder:
    """The search for stop strings in one response.

    A stop string may begin within one token and end within another. Text that was given is not searched.
    """

    def __init__(self, stop: Sequence[str], policy_set: PolicySet, given: list[int]) -> None:
        """Begin the search.

        Args:
            stop: the stop strings.
            policy_set: the policies.
            given: the tokens that the response begins with.
        """
        self.stop = stop
        self._policy_set = policy_set
        self._detokenizer = Detokenizer(policy_set.text)
        self._start = start_of_new(policy_set, given)
        self._longest = max(map(len, stop))
        self._settled = ""  # text that further tokens cannot change, and that was searched

    def find(self, tokens: list[int]) -> int | None:
        """Return where in the text of all tokens the first stop string begins; None if there is none."""
        text = self._detokenizer.text(tokens)
        begin = max(self._start, len(self._settled) - self._longest + 1)
        places = [place for one in self.stop if (place := text.find(one, begin)) >= 0]
        self._settled = self._policy_set.chat.settled(text, tokens, self._settled)
        if self._settled == text:
            self._detokenizer.settle(tokens)
        return min(places, default=None)


def start_of_new(policy_set: PolicySet, given: list[int]) -> int:
    """Return where in a response's text the text after the given tokens begins."""
    return len(policy_set.text(given).rstrip("\ufffd")) if given else 0


def without_beginnings(text: str, stop: Sequence[str], start: int) -> str:
    """Return a text without an end that may be the beginning of a stop string; the text before `start` is kept."""
    longest = max(map(len, stop), default=1) - 1
    for place in range(max(start, len(text) - longest), len(text)):
        if any(one.startswith(text[place:]) for one in stop):
            return text[:place]
    return text
