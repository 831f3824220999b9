"""Rows of the table: what is measured, and what came out."""

from __future__ import annotations

import math
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError, one_line

BOUND = 1e-3  # nats, or the reward's own unit; in float32
SECONDS = 120  # after which a row counts as failed

FOLDED, GENERAL, REFUSED = "folded", "general", "refused"
FAILED = "failed"  # neither right nor refused: an exception
SKIPPED = "skipped"  # what it needs cannot be downloaded
READ = "read"  # a reward model or tokenizer: there is one way


@dataclass(frozen=True)
class Result:
    """What came out of one row.

    Attributes:
        path: FOLDED, GENERAL, READ, REFUSED, FAILED or SKIPPED.
        error: The largest difference from the library's own numbers; None where nothing was computed.
        note: Why, in one line.
    """

    path: str
    error: float | None = None
    note: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the numbers are within the bound, or there are none for a reason that was said."""
        if self.path in (REFUSED, SKIPPED):
            return True
        return self.path != FAILED and self.error is not None and self.error <= BOUND  # false for NaN


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        section: The table that it belongs to.
        name: Its name, once in the table.
        measure: Gets an empty folder.
        settings: All that distinguishes it from the other rows of the table; where it changes, it is measured again.
    """

    section: str
    name: str
    measure: Callable[[Path], Result]
    settings: str = ""

    @property
    def key(self) -> str:
        return f"{self.section}/{self.name}"

    def run(self) -> Result:
        """Measure. Returns REFUSED for an InputError, FAILED for any other exception."""
        with tempfile.TemporaryDirectory(prefix="mixdesk-") as folder, time_limit(SECONDS):
            try:
                return self.measure(Path(folder))
            except InputError as error:
                note = one_line(error, 300).replace(folder, "...")
                return Result(REFUSED, None, note.removeprefix(".../config.yaml: "))
            except Exception as error:
                note = one_line(error, 300)
                kind = type(error).__name__
                note = note if note.startswith(kind) else f"{kind}: {note}"
                return Result(FAILED, None, note.replace(folder, "..."))


def largest(differences: list[float]) -> float:
    """Return the largest of absolute differences; infinite if one is NaN, or if there are none."""
    return max((abs(d) if math.isfinite(d) else math.inf for d in differences), default=math.inf)


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the main thread when the block takes longer."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def end(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
