"""The end of the process on SIGTERM and Ctrl+C: soon, whatever it is doing.

A rating is on disk when the page has its confirmation, and banks and comparisons are resumed from what is on disk, so
that nothing is lost when the process ends in the middle of its work. It uses only the standard library, as the start-up
page does, which is there before the slow imports.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType


def end_now(status: int) -> None:
    """End the process at once; threads and pending work are abandoned."""
    for stream in (sys.stdout, sys.stderr):
        # A signal may come while the stream is being written to.
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


def end_on_signal(number: int, _: FrameType | None = None) -> None:
    """Handle a signal by ending the process at once, with the status that a shell reports for this signal."""
    end_now(128 + number)


class Deadline:
    """A thread that ends the process with status 0 some seconds after `begin`, unless it has ended before.

    The thread waits from the beginning: to start one in a signal handler can deadlock, if the signal interrupts the
    start of another.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._begun = threading.Event()
        threading.Thread(target=self._wait, name="mixdesk-deadline", daemon=True).start()

    def begin(self) -> None:
        """Start the countdown."""
        self._begun.set()

    def _wait(self) -> None:
        self._begun.wait()
        time.sleep(self.seconds)
        end_now(0)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process at once on SIGTERM within the block.

    That is the default, but not for the first process of a container.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end_on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return whether a log record is of something else than a response that the server's end has cut off.

    Every open event stream is cut off, and uvicorn would log a traceback for each.
    """
    import asyncio  # here: the start-up page does not wait for it

    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
