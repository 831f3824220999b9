"""The number of rows that are decoded together: it shrinks when memory runs out, and grows again while it does not."""

from __future__ import annotations

PATIENCE = 64  # steps without a failure after which the number grows by a quarter
MOST_PATIENCE = 64 * 1024  # about an hour of steps


class RowLimit:
    """When the number of rows grows again after running out of memory, and how far.

    It grows by a quarter after `patience` successful steps, up to the number before the first failure. If memory runs
    out again after it has grown, the patience doubles, so that a machine whose memory stays small fails ever more
    rarely. The patience is back at PATIENCE once as many rows as failed last have succeeded.

    Attributes:
        first: the number before the first failure; None if it is not reduced.
        patience: the number of successful steps before it grows.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.patience = PATIENCE
        self._failed = 0  # rows with which memory ran out last; 0 once as many have succeeded
        self._steps = 0  # successful ones since the last change
        self._grown = False  # since the last failure

    def shrink(self, limit: int, rows: int) -> int:
        """Return the new number after memory ran out with `rows` rows. limit: the number until now."""
        if self.first is None:
            self.first = limit
        if self._grown and self._failed:
            self.patience = min(2 * self.patience, MOST_PATIENCE)
        self._failed, self._steps, self._grown = rows, 0, False
        return max(1, min(rows, limit) // 2)

    def succeed(self, limit: int, rows: int) -> int:
        """Return the new number after a step with `rows` rows succeeded. limit: the number until now."""
        if self._failed and rows >= self._failed:
            self._failed, self.patience = 0, PATIENCE
        if self.first is None:
            return limit
        self._steps += 1
        if self._steps >= self.patience:
            limit = min(self.first, limit + max(1, limit // 4))
            self._steps, self._grown = 0, True
        if limit >= self.first:
            self.first = None
        return limit
