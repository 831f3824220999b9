"""Counts and durations of an engine's work, which its worker keeps and any thread may read.

Only the worker writes, so nothing is locked: a step costs a clock reading and a few additions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

# Seconds, the upper bounds of buckets: a step of a small model takes a millisecond, one of a large batch a second.
STEP_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# The first token also waits in the queue, and for its prompt to be read.
FIRST_TOKEN_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Histogram:
    """How many values fell below each of some bounds, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.sum = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def counts(self) -> list[int]:
        """How many values are in each bucket; the last one is that beyond all bounds."""
        return list(self._counts)

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add another histogram with the same bounds: its `counts`, and the sum of its values."""
        self._counts = [mine + its for mine, its in zip(self._counts, counts, strict=True)]
        self.sum += total

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self._counts)

    def cumulative(self) -> list[int]:
        """Return for each bound, and for infinity, how many values are at most that."""
        total, counts = 0, []
        for count in list(self._counts):
            total += count
            counts.append(total)
        return counts


class Telemetry:
    """What an engine has done since it started.

    Attributes:
        alive: whether the engine takes requests: its worker runs, and it is not closed.
        tokens: the number of tokens drawn, those of all particles included.
        responses: {reason why they ended: number of responses}; with rewards, before those are computed.
        failed_steps: the number of steps that failed, other than by running out of memory.
        out_of_memory: the number of steps that ran out of memory.
        restarts: the number of times that the worker has recovered from an unexpected error.
        step_seconds: the duration of a step: one token for each sequence of the batch.
        first_token_seconds: from the submission of a response to its first token that can be read. A response with
            particles has none before its end.
    """

    def __init__(self) -> None:
        self.alive = True
        self.tokens = 0
        self.responses: Counter[str] = Counter()
        self.failed_steps = 0
        self.out_of_memory = 0
        self.restarts = 0
        self.step_seconds = Histogram(STEP_BOUNDS)
        self.first_token_seconds = Histogram(FIRST_TOKEN_BOUNDS)
