"""Tune the number of threads of a step: no more than make it faster.

Threads synchronise at the end of each matrix product, and with a small model or few rows that takes longer than they
save. Idle cores are also left to other threads, such as the page's server.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch

TRIALS = 5  # steps with each number, in turn
PERIOD = 256  # steps from one comparison to the next
WORTH = 1.15  # how much faster twice as many must be; 64 responses of the bundled policies gain 1.18, 16 of them 1.1


@functools.cache
def most_threads() -> int:
    """Return torch's initial number of threads; it is read once, before steps change it."""
    return torch.get_num_threads()


def search(limit: int) -> Generator[int, float, None]:
    """Search for the best number of threads, as a coroutine.

    The search starts with all threads, since a large model's step on a single one would take long.

    Args:
        limit: the largest number of threads.

    Yields:
        The number of threads of the next step. The duration of that step in seconds must be sent back.
    """
    chosen = limit
    while True:
        counts = sorted({max(1, chosen // 2), chosen, min(limit, 2 * chosen)})
        taken: dict[int, list[float]] = {count: [] for count in counts}
        for _ in range(TRIALS):
            for count in counts:
                taken[count].append((yield count))
        before, chosen = chosen, counts[0]
        for count in counts[1:]:
            if WORTH * statistics.median(taken[count]) < statistics.median(taken[chosen]):
                chosen = count
        if chosen == before:
            for _ in range(PERIOD):
                yield chosen


class Threads:
    """Tuned numbers of threads, with a separate search for batches of 1 row, 2 to 3, 4 to 7, and so on."""

    def __init__(self) -> None:
        self._searches: dict[int, Generator[int, float, None]] = {}
        self._next: dict[int, int] = {}

    @contextmanager
    def for_rows(self, rows: int) -> Iterator[int]:
        """Set torch's number of threads for a step of this many rows within the context, and time the step."""
        size = rows.bit_length()
        if size not in self._searches:
            self._searches[size] = search(most_threads())
            self._next[size] = next(self._searches[size])
        torch.set_num_threads(self._next[size])
        began = time.perf_counter()
        try:
            yield self._next[size]
        finally:
            torch.set_num_threads(most_threads())
        self._next[size] = self._searches[size].send(time.perf_counter() - began)
