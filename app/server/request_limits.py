"""Limits on the size of a request, on the time it takes to arrive, and on how many are under way at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server.refusals import refusal_response
from app.services.visitor import visitor_of_scope

MAX_BODY = 1_048_576  # bytes, except for uploads; a link has up to a million characters
MAX_UPLOAD = 26_000_000  # bytes: one file as app/ui/page.py limits it, and what is around it
UPLOAD = "/gradio_api/upload"
STALLED = 30.0  # seconds without a part of the body
LINGER = 2.0  # seconds that a refused body is still read, so that the client sees the answer
MAX_DISCARDED = 8_000_000  # bytes of it
PER_ADDRESS = 256  # requests under way; a page has up to three, which last
PER_BROWSER = 64

TOO_LARGE = "The request is larger than {limit:,} bytes, which is the most that this desk takes.\n"
TOO_SLOW = f"The rest of the request did not come within {STALLED:.0f} seconds: send it again.\n"
TOO_MANY = "Too many requests of yours are under way: close some of this desk's pages, or try again in a few seconds.\n"


class BodyLimit:
    """ASGI middleware that refuses a request whose body is too large (413) or stalls (408).

    The bytes are counted as they come, whatever Content-Length says.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        limit = MAX_UPLOAD if scope["path"].rstrip("/").endswith(UPLOAD) else MAX_BODY
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            return await refuse_body(scope, receive, send, TOO_LARGE.format(limit=limit), 413)
        size, complete, refused, started = 0, False, ("", 0), False
        has_body = bool(length) or "transfer-encoding" in Headers(scope=scope)

        async def receive_counted() -> Message:
            nonlocal size, complete, refused
            if refused[1]:
                return {"type": "http.disconnect"}
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), STALLED)
            except asyncio.TimeoutError:
                refused = TOO_SLOW, 408
                return {"type": "http.disconnect"}
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > limit:
                refused = TOO_LARGE.format(limit=limit), 413
                return {"type": "http.disconnect"}
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal started
            if refused[1] and not started:
                return
            if message["type"] == "http.response.start":
                started = True
                if not complete and has_body:
                    # Else the server would read, and count for nothing, however much the client goes on sending.
                    message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            await send(message)

        try:
            await self.app(scope, receive_counted, send_unless_refused)
        except Exception:
            # The application takes a refusal for a client that has gone, and each framework has an exception for that.
            if not refused[1]:
                raise
        if refused[1] and not started:
            await refuse_body(scope, receive, send, *refused)
        return None


async def refuse_body(scope: Scope, receive: Receive, send: Send, words: str, status: int) -> None:
    """Send one line as the answer, and close the connection without reading all of the request's body.

    What is on its way is read for a moment: a connection that is closed over unread data is reset, and the client would
    not see the answer.
    """
    answer = refusal_response(scope, words, status)
    await send({"type": "http.response.start", "status": status, "headers": answer.raw_headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(discard(receive, MAX_DISCARDED), LINGER)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def discard(receive: Receive, most: int) -> None:
    """Read and forget a request's body, or `most` bytes of it."""
    size = 0
    while size < most:
        message = await receive()
        if not message.get("more_body", False):
            return
        size += len(message.get("body", b""))


class ConcurrencyLimit:
    """ASGI middleware that refuses a request (429) while too many of the same address or browser are under way."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.running: Counter[tuple[str, str]] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        visitor = visitor_of_scope(scope)
        address, browser = ("address", visitor.address), ("browser", visitor.browser)
        if self.running[address] >= PER_ADDRESS or (visitor.browser and self.running[browser] >= PER_BROWSER):
            return await refusal_response(scope, TOO_MANY, 429, retry_after=5)(scope, receive, send)
        with self.counted(address), self.counted(browser):
            return await self.app(scope, receive, send)

    @contextlib.contextmanager
    def counted(self, key: tuple[str, str]) -> Iterator[None]:
        """Count a request of this address or browser until the block is left."""
        self.running[key] += 1
        try:
            yield
        finally:
            self.running[key] -= 1
            if not self.running[key]:
                del self.running[key]
