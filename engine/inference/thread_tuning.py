"""How many threads a step computes with: no more than pay.

Threads wait for each other at the end of each product, and where a model is small or rows are few that takes longer
than what they save. Whoever else needs the cores, such as the page's server, misses them meanwhile.
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
    """What torch was given, from outside or by itself. Asked once: later it may be what a step is computed with."""
    return torch.get_num_threads()


def search(limit: int) -> Generator[int, float, None]:
    """Yields how many threads the next step is to use, and is sent the seconds that it took. Begins with all of them:
    a step of a large model on one would hold up everybody."""
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
    """One search for each size of batch: 1 row, 2 to 3, 4 to 7, ..."""

    def __init__(self) -> None:
        self._searches: dict[int, Generator[int, float, None]] = {}
        self._next: dict[int, int] = {}

    @contextmanager
    def for_rows(self, rows: int) -> Iterator[int]:
        """For a step of so many rows: sets how many threads torch uses, and learns from how long it took."""
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
