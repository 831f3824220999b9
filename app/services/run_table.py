"""The newest run of every session, with a limit on their number and age."""

from __future__ import annotations

import threading
import time
from collections import Counter

from app.services.generation_run import Run
from engine import InputError

MAX_RUNS = 200  # of all sessions
MAX_IDLE = 30 * 60.0  # seconds without a reader
FULL = f"All {MAX_RUNS} places of this desk are taken by responses under way: press Generate again in a minute."


class RunTable(dict[str, Run]):
    """{session: its newest run}. Sessions often end without notice, so their runs are removed here.

    A run of a session whose page is open stays, whatever its age, as long as there is room.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: Counter[str] = Counter()  # number of heartbeats, which last as long as a page is open
        self._lock = threading.Lock()

    def began(self, session: str) -> None:
        """Count a heartbeat of a session."""
        with self._lock:
            self.open[session] += 1

    def ended(self, session: str) -> None:
        """Count a heartbeat's end."""
        with self._lock:
            self.open[session] -= 1
            if self.open[session] <= 0:
                del self.open[session]
            if run := self.get(session):
                run.used = time.monotonic()

    def make_room(self, session: str) -> None:
        """Remove old runs, and the longest unused ones until another session's run fits.

        Raises:
            InputError: if all runs are under way.
        """
        self.sweep()
        with self._lock:
            while len(self) >= MAX_RUNS and session not in self:
                idle = [(other in self.open, run.used, other) for other, run in list(self.items()) if run.idle]
                if not idle:
                    raise InputError(FULL)
                self.pop(min(idle)[-1], None)

    def sweep(self) -> None:
        """Remove the runs without a reader or an open page for longer than `MAX_IDLE`."""
        oldest = time.monotonic() - MAX_IDLE
        with self._lock:
            for session, run in list(self.items()):
                if run.idle and run.used < oldest and session not in self.open:
                    self.pop(session, None)
