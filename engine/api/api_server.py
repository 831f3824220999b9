"""The HTTP server of `python -m engine serve`: uvicorn, which ends within two seconds of a signal."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from engine.shutdown import Deadline, end_on_signal, is_worth_a_line

LATEST = 1.7  # seconds from the signal until the process ends in any case
LATEST_OF_REPLICAS = 30.0  # the same if the processes of a cluster are to be ended too
GRACE = 1  # seconds that responses have to end by themselves
KEEP_ALIVE = 75  # seconds that an idle connection is kept


class ApiServer(uvicorn.Server):
    """uvicorn's server, which closes the engine on a signal, so that open streams end with an error of the protocol."""

    def __init__(self, routes: Sequence[BaseRoute], close: Callable[[], None], latest: float = LATEST) -> None:
        """Make the server.

        Args:
            routes: the routes.
            close: closes the engine; called once, on the first signal.
            latest: seconds from the signal until the process ends in any case.
        """
        settings = uvicorn.Config(
            Starlette(routes=list(routes)),
            log_level="warning",
            proxy_headers=False,  # who sends a request is its peer: a header could be anybody's invention
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
        )
        super().__init__(settings)
        self._end = threading.Event()
        self._close, self._deadline = close, Deadline(latest)
        logging.getLogger("uvicorn.error").addFilter(is_no_cut_off)
        # It waits from the beginning: to start a thread in a signal handler can deadlock.
        threading.Thread(target=self._close_and_end, name="mixdesk-end", daemon=True).start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop the server on a signal; a second one ends the process at once."""
        if self.should_exit:
            end_on_signal(sig)
        self.should_exit = True
        self._deadline.begin()
        self._end.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs. uvicorn would raise them again afterwards: to be ended is no error."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _close_and_end(self) -> None:
        self._end.wait()
        self._close()


def is_no_cut_off(record: logging.LogRecord) -> bool:
    """Return whether a log record is of something else than a response that the server's end has cut off."""
    if record.msg.startswith("Cancel %s running task(s)"):
        return False
    return is_worth_a_line(record)
