"""Answers that are sent while they are drawn, as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.api.api_error import ApiError, failed
from engine.api.calls import Call, until_gone
from engine.inference.completion import Completion, Token
from engine.inference.request import Request

log = logging.getLogger("mixdesk")
PING = 15.0  # seconds of silence after which a comment is sent: proxies cut silent connections
# To be sent at once, whatever is in between.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
GONE = object()  # in the queue: the client has gone away
Item = tuple[int, Token | Completion | BaseException]
Chunk = dict[str, Any]


class StreamForm(Protocol):
    """The chunks of a stream."""

    def begin(self) -> Iterable[Chunk]:
        """Return the chunks before the first token."""
        ...

    def token(self, index: int, token: Token) -> Iterable[Chunk]:
        """Return the chunks of a token of a choice."""
        ...

    def finish(self, index: int, completion: Completion) -> Iterable[Chunk]:
        """Return the chunks of a choice's end."""
        ...

    def end(self) -> Iterable[Chunk]:
        """Return the chunks after all choices have ended."""
        ...


class EventStream(Response):
    """The response to a request for a stream. A client that goes away cancels what is drawn for it."""

    media_type = "text/event-stream"

    def __init__(self, call: Call, form: StreamForm, held: ExitStack) -> None:
        """Make the response.

        Args:
            call: the responses, already queued.
            form: how their tokens are written.
            held: what to leave when the stream ends.
        """
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self.call, self.form, self.held = call, form, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the responses are complete or the client has gone away."""
        queue: asyncio.Queue[Any] = asyncio.Queue()
        watcher = asyncio.ensure_future(until_gone(receive))
        watcher.add_done_callback(lambda _: queue.put_nowait(GONE))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                await self._send_all(queue, send)
            except ApiError as error:
                await send_chunks(send, [error.envelope()])
            except Exception:
                log.exception("a stream failed")
                await send_chunks(send, [failed().envelope()])
            if not watcher.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watcher.cancel()
            self.call.cancel()
            self.held.close()

    async def _send_all(self, queue: asyncio.Queue[Any], send: Send) -> None:
        await send_chunks(send, self.form.begin())
        self._read_all(queue)
        left = len(self.call.requests)
        while left:
            try:
                item = await asyncio.wait_for(queue.get(), PING)
            except asyncio.TimeoutError:
                await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
                continue
            if item is GONE:
                return
            index, what = item
            if isinstance(what, Token):
                await send_chunks(send, self.form.token(index, what))
            elif isinstance(what, BaseException):
                raise what
            else:
                left -= 1
                await send_chunks(send, self.form.finish(index, what))
        await send_chunks(send, self.form.end())
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})

    def _read_all(self, queue: asyncio.Queue[Any]) -> None:
        """Put the tokens of every choice, and then its completion or error, into the queue as they come."""
        loop = asyncio.get_running_loop()

        def put(item: Item) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(queue.put_nowait, item)

        def read(index: int, request: Request) -> None:
            try:
                for token in request:
                    put((index, token))
                put((index, self.call.finish(request)))
            except BaseException as error:
                put((index, error))

        for index, request in enumerate(self.call.requests):
            threading.Thread(target=read, args=(index, request), name="mixdesk-api", daemon=True).start()


async def send_chunks(send: Send, chunks: Iterable[Chunk]) -> None:
    """Send chunks, one event each."""
    body = b"".join(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n" for chunk in chunks)
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})
