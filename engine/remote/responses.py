"""The responses that an engine writes for desks elsewhere: their events, kept until they are read."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from engine.errors import InputError, one_line
from engine.inference.request import Request
from engine.inference.sequence import Record
from engine.remote.wire import PING, completion_to_json, record_to_json, token_to_json
from engine.rules.mixture import Mixture

log = logging.getLogger("mixdesk")

UNREAD = 30.0  # seconds without a reader after which a response that is being written is cancelled
KEPT = 60.0  # seconds that a finished response is kept after its last reader
PROGRESS = 0.25  # seconds between two looks at a request's place in the queue
MOST = 10_000  # responses that are kept; a bank or a comparison has some hundreds under way


class RemoteResponse:
    """A request and its events so far. Its own thread writes them; they are read on the event loop.

    Events are tokens {"token": ...}, the place in the queue and the number of drawn tokens {"ahead": ..., "drawn":
    ...}, and at the end {"completion": ..., "record": ...} or {"error": ..., "input": whether the caller can mend it}.

    Attributes:
        request: the engine's request.
        record: what is recorded beside the response, if anything.
        events: the events as JSON, in their order.
        over: whether the last event is there.
        readers: the number of connections that read it.
        used: when it was last read, on time.monotonic's clock.
    """

    def __init__(self, request: Request, record: Record | None, loop: asyncio.AbstractEventLoop) -> None:
        self.id = secrets.token_urlsafe(16)
        self.request, self.record = request, record
        self.events: list[str] = []
        self.over = False
        self.readers = 0
        self.used = time.monotonic()
        self._loop = loop
        self._changed = asyncio.Event()
        threading.Thread(target=self._read, name="mixdesk-remote-response", daemon=True).start()

    def _read(self) -> None:
        mixture: Mixture | None = None
        try:
            for token in self.request:
                self._add({"token": token_to_json(token, mixture)})
                mixture = token.mixture
            completion = self.request.completion()
            record = None if self.record is None else record_to_json(self.record)
            self._add({"completion": completion_to_json(completion), "record": record}, last=True)
        except Exception as error:
            is_input = isinstance(error, InputError)
            if not is_input:
                log.warning("a response for a remote desk failed", exc_info=True)
            said = str(error) if is_input else f"{type(error).__name__}: {one_line(error)}"
            self._add({"error": said, "input": is_input}, last=True)

    def _add(self, event: dict[str, Any], last: bool = False) -> None:
        self.events.append(json.dumps(event))
        self.over = last
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def read(self, first: int) -> AsyncIterator[str]:
        """Yield the events from number `first` on in the format of server-sent events, until the last one."""
        self.readers += 1
        sent, place, last_sent = first, (0, 0), time.monotonic()
        try:
            while True:
                self._changed.clear()
                lines = [f"id: {number}\ndata: {self.events[number]}\n\n" for number in range(sent, len(self.events))]
                sent += len(lines)
                if not lines and not self.over and (now := (self.request.ahead, self.request.drawn)) != place:
                    # Without a number of its own: after a reconnect the newest place is sent, not an old one.
                    place = now
                    lines.append(f"data: {json.dumps({'ahead': now[0], 'drawn': now[1]})}\n\n")
                if not lines and time.monotonic() - last_sent > PING:
                    lines.append(": ping\n\n")
                if lines:
                    last_sent = time.monotonic()
                    yield "".join(lines)
                if self.over and sent >= len(self.events):
                    return
                try:
                    await asyncio.wait_for(self._changed.wait(), PROGRESS)
                except asyncio.TimeoutError:
                    continue
        finally:
            self.readers -= 1
            self.used = time.monotonic()


class RemoteResponses:
    """All responses by id. Used on the event loop."""

    def __init__(self) -> None:
        self._by_id: dict[str, RemoteResponse] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, request: Request, record: Record | None) -> RemoteResponse:
        """Start to read a request's tokens, and return its response."""
        response = RemoteResponse(request, record, asyncio.get_running_loop())
        self._by_id[response.id] = response
        return response

    def find(self, id: str) -> RemoteResponse | None:
        """Return a response, or None if there is none with this id."""
        return self._by_id.get(id)

    def has_room(self, count: int) -> bool:
        """Return whether so many more responses can be taken."""
        return len(self._by_id) + count <= MOST

    def sweep(self) -> None:
        """Cancel the responses that no one reads, and remove the finished ones that no one has read for a while."""
        now = time.monotonic()
        for id, response in list(self._by_id.items()):
            idle = 0.0 if response.readers else now - response.used
            if not response.over and idle > UNREAD:
                response.request.cancel()
            elif response.over and idle > KEPT:
                del self._by_id[id]
