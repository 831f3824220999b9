"""A request to an application in this process, whose client may leave at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp


@dataclass
class Leave:
    """When the client goes away: after so many messages of the answer, or as soon as something is the case."""

    after_messages: int | None = None
    when: Callable[[], bool] | None = None


@dataclass
class Answer:
    """What the client has of the answer. status is 0 if it left before there was one."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    left: bool = False


async def call_app(app: ASGIApp, method: str, path: str, body: bytes, leave: Leave | None = None) -> Answer:
    """Send a request from a loopback address, and return its answer."""
    leave = leave or Leave()
    answer, gone, messages, parts = Answer(), asyncio.Event(), 0, [body[:1000], body[1000:]]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": method,
        "path": path,
        "raw_path": quote(path, errors="replace").encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "client": ("127.0.0.1", 5000),
        "server": ("127.0.0.1", 8000),
        "headers": [(b"host", b"127.0.0.1:8000")],
    }

    def go() -> None:
        answer.left = True
        gone.set()

    async def receive() -> dict[str, Any]:
        if parts and not gone.is_set():
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal messages
        messages += 1
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
        if messages == leave.after_messages:
            go()

    async def watch() -> None:
        while leave.when is not None and not leave.when():
            await asyncio.sleep(0.001)
        if leave.when is not None:
            go()

    if leave.after_messages == 0:
        go()
    watching = asyncio.ensure_future(watch())
    try:
        await app(scope, receive, send)
    finally:
        watching.cancel()
    return answer
