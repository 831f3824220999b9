"""Gradio's sessions, each out of reach for all browsers except its own.

Gradio's page chooses a session's hash and names it in its requests, and Gradio serves any request that names it. Here
the hash that reaches Gradio also depends on the browser's cookie, so that a hash found in a log opens nothing.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.services.visitor import visitor_of_scope

# Where a request names its session: in its path, its query, or its JSON body.
IN_PATH = re.compile(r"(.*/gradio_api/heartbeat/)([^/]+)/?")
IN_QUERY = re.compile(r".*/gradio_api/queue/data/?")
IN_BODY = re.compile(r".*/gradio_api/(?:queue/join|run/[^/]+|call/(?:v2/)?[^/]+|component_server|cancel|reset)/?")
CHECKED = re.compile(r".*/steer/?")  # JSON that names no session
BODY = "mixdesk.body"  # of a request's ASGI scope: its JSON
MALFORMED = "The request's JSON has {}.\n"


class MalformedError(Exception):
    """A body's JSON cannot be processed; the message says what it has."""


class OwnSessions:
    """ASGI middleware that makes session hashes the browser's own. It expects bodies that are limited in size."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.secret = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            browser = visitor_of_scope(scope).browser

            def own(session_hash: str) -> str:
                mark = hmac.digest(self.secret, f"{browser} {session_hash}".encode(errors="replace"), "sha256")
                return f"{session_hash}.{mark.hex()[:32]}"

            path = scope["path"]
            if named := IN_PATH.fullmatch(path):
                path = named[1] + own(named[2])
                scope = {**scope, "path": path, "raw_path": path.encode()}
            elif IN_QUERY.fullmatch(path):
                query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
                changed = [(name, own(value) if name == "session_hash" else value) for name, value in query]
                scope = {**scope, "query_string": urlencode(changed).encode()}
            elif scope["method"] == "POST" and (IN_BODY.fullmatch(path) or CHECKED.fullmatch(path)):
                try:
                    scope, receive = await with_body(scope, receive, own if IN_BODY.fullmatch(path) else str)
                except MalformedError as error:
                    return await PlainTextResponse(MALFORMED.format(error), 400)(scope, receive, send)
        return await self.app(scope, receive, send)


async def with_body(scope: Scope, receive: Receive, own: Callable[[str], str]) -> tuple[Scope, Receive]:
    """Return a request whose JSON body names the session by its own hash; other bodies are left as they are.

    Raises:
        MalformedError: if the JSON has values that no answer can hold.
    """
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return scope, replay(message, receive)
        body += message.get("body", b"")
        more = message.get("more_body", False)
    value = parse_json(body)
    scope = {**scope, BODY: value}
    if isinstance(value, dict) and isinstance(value.get("session_hash"), str):
        value["session_hash"] = own(value["session_hash"])
        body = json.dumps(value).encode()
        headers = [
            (name, val) for name, val in scope["headers"] if name not in (b"content-length", b"transfer-encoding")
        ]
        scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
    return scope, replay({"type": "http.request", "body": body, "more_body": False}, receive)


def parse_json(body: bytes) -> Any:
    """Return a body's JSON, or None if it is something else, which the application refuses by itself.

    Raises:
        MalformedError: if it has a NaN, an infinity, or half of a surrogate pair, on which the application would fail.
    """

    def refuse(name: str) -> None:
        raise MalformedError(f"the number {name}")

    try:
        value = json.loads(body, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise MalformedError("half of a surrogate pair") from None
    except (ValueError, RecursionError):
        return None
    return value


def replay(first: Message, receive: Receive) -> Receive:
    """Return a `receive` that returns this message first."""
    waiting = [first]

    async def receive_first() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_first
