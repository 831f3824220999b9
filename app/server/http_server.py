"""The HTTP server: uvicorn, with a bounded end."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import uvicorn

from engine.shutdown import Deadline, end_on_signal, is_worth_a_line

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LATEST = 1.7  # seconds from the signal until the process ends in any case
LATEST_WITH_COPIES = 25.0  # the same if ratings are copied to the Hub, where the newest may be the only ones that stay


class HttpServer(uvicorn.Server):
    """uvicorn's server, which stops on a signal, and ends the process at once on a second one."""

    def __init__(self, config: uvicorn.Config, latest: float = LATEST) -> None:
        """latest: seconds from the signal until the process ends, if nothing else has ended it."""
        super().__init__(config)
        self.deadline = Deadline(latest)
        logging.getLogger("uvicorn.error").addFilter(is_worth_a_line)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop the server. uvicorn's own handler would hand the signal on afterwards, but to be ended is no error."""
        if self.should_exit:
            end_on_signal(sig)
        self.should_exit = True
        self.deadline.begin()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs; those after that end the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for number in SIGNALS:
            signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number in SIGNALS:
                signal.signal(number, end_on_signal)
