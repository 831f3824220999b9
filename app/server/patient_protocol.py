"""uvicorn's HTTP protocol with a limit on the time until a request's headers are complete.

uvicorn itself only limits how long a connection is idle between two requests.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_WITHIN = 10.0  # seconds
MAX_HEADERS = 65_536  # bytes of a request's line and headers, for uvicorn's h11_max_incomplete_event_size
KEEP_ALIVE = 5  # seconds that a connection may be idle between two requests


class PatientProtocol(H11Protocol):
    """H11Protocol that closes a connection on which a request does not begin in time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time of the first request."""
        super().connection_made(transport)
        self.watch()

    def data_received(self, data: bytes) -> None:
        """Pass data on, and watch the time of a request that it begins."""
        super().data_received(data)
        self.watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        self.stop_watching()
        super().connection_lost(exc)

    def watch(self) -> None:
        """Start the time while a request's headers are awaited, and stop it once they are complete."""
        # While no request has begun, h11 takes the client to be idle.
        if self.conn.their_state is not h11.IDLE:
            self.stop_watching()
        elif self.deadline is None and not self.transport.is_closing():
            self.deadline = self.loop.call_later(HEADERS_WITHIN, self.close_late)

    def stop_watching(self) -> None:
        """Stop the time."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def close_late(self) -> None:
        """Close the connection if the headers are still not there."""
        self.deadline = None
        if self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            self.transport.close()
