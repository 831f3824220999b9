"""The newest run of every session, with a limit on their number and age."""

from __future__ import annotations

import threading
import time
from collections import Counter

from app.services.generation_run import Run
from app.services.visitor import browser_of
from engine import InputError

MAX_RUNS = 200  # of all sessions
MAX_TOKENS = 5_000  # of runs whose page is closed; about 4 KB each
MAX_OPEN_TOKENS = 60_000  # of all runs
PER_BROWSER, PER_ADDRESS = 8, 40  # runs under way
MAX_IDLE = 30 * 60.0  # seconds without a reader
BUSY = (
    "{} runs of yours are under way, which is the most for one {}: wait until one is finished, or press Stop on "
    "another page."
)
FULL = f"All {MAX_RUNS} places of this desk are taken by responses under way: press Generate again in a minute."


class RunTable(dict[str, Run]):
    """{session: its newest run}. Sessions often end without notice, so their runs are removed here.

    A run of a session whose page is open stays, whatever its age, as long as there is room.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: Counter[str] = Counter()  # number of heartbeats, which last as long as a page is open
        self._lock = threading.Lock()

    @property
    def open_hashes(self) -> set[str]:
        """Gradio's hashes of the sessions whose page is open."""
        return {session.rpartition(":")[2] for session in list(self.open)}

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

    def make_room(self, session: str, address: str = "") -> None:
        """Remove old runs, and the longest unused ones until another run fits.

        Args:
            session: The session of the new run.
            address: Its network address.

        Raises:
            InputError: if all runs are under way, or too many of its browser or address.
        """
        self.sweep()
        browser = browser_of(session)
        others = [run for other, run in list(self.items()) if other != session and not run.done]
        for name, limit, count in (
            ("browser", PER_BROWSER, sum(run.browser == browser for run in others) if browser else 0),
            ("network address", PER_ADDRESS, sum(run.address == address for run in others) if address else 0),
        ):
            if count >= limit:
                raise InputError(BUSY.format(limit, name))
        with self._lock:
            while len(self) >= MAX_RUNS and session not in self:
                idle = [(other in self.open, run.used, other) for other, run in list(self.items()) if run.idle]
                if not idle:
                    raise InputError(FULL)
                self.pop(min(idle)[-1], None)

    def sweep(self) -> None:
        """Remove the runs without a reader or an open page for longer than `MAX_IDLE`, or beyond `MAX_TOKENS`."""
        oldest = time.monotonic() - MAX_IDLE
        tokens = open_tokens = 0
        with self._lock:
            for session, run in sorted(self.items(), key=lambda item: (item[0] not in self.open, -item[1].used)):
                is_open = session in self.open
                size = sum(run.counts.values())
                tokens += 0 if is_open else size
                open_tokens += size
                too_many = open_tokens > MAX_OPEN_TOKENS or (tokens > MAX_TOKENS and not is_open)
                if run.idle and (too_many or (run.used < oldest and not is_open)):
                    self.pop(session, None)
