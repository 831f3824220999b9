"""Checks of the requests to one desk's routes: Gradio's that the page does not use, uploads, exports, heartbeats."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.server.own_sessions import BODY
from app.server.request_limits import refuse_body
from app.server.uploads import UploadRoom
from app.services.app_state import Desk
from app.services.visitor import session_of, visitor_of_scope
from engine import InputError

API = "/gradio_api/"
# What the page itself uses, and programs that call its endpoints. The others describe, monitor or edit the app, or
# fetch from elsewhere.
USED = frozenset(
    (
        *(
            "app_id",
            "call",
            "cancel",
            "component_server",
            "heartbeat",
            "info",
            "login_check",
            "queue",
            "reset",
            "run",
            "startup-events",
        ),
        *("theme.css", "upload", "upload_progress", "user"),
    )
)
CLOSED = re.compile(r"/(?:docs|redoc|openapi\.json|monitoring|login|logout)(?:/.*)?")
EXPORTS = "/comparisons/"
NUMBER = re.compile(r"\d{1,18}", re.ASCII)
HANDLED = re.compile(rf"{API}(?:queue/join|run/[^/]+)/?")
# How programs without a client library call an endpoint by its name, and then fetch its result.
CALLED = re.compile(rf"{API}call/(?:v2/)?([^/]+)(?:/[^/]*)?")
NO_HANDLER = "The page has no such handler: load it again.\n"
NO_ENDPOINT = "There is no such endpoint: the page's view Use via API lists them.\n"
NOT_HERE = "There is no such page here.\n"


class DeskRoutes:
    """ASGI middleware around one desk's application."""

    def __init__(
        self, app: ASGIApp, desk: Desk, handlers: Container[int] | None = None, endpoints: Container[str] = ()
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            desk: Its desk.
            handlers: The numbers of the page's handlers; any number passes if None.
            endpoints: The names of those that programs may call by name.
        """
        self.app, self.desk, self.handlers, self.endpoints = app, desk, handlers, endpoints
        self.uploads = UploadRoom()

    def has_handler(self, number: Any) -> bool:
        """Return whether a request's handler is one of the page's."""
        return self.handlers is None or (type(number) is int and number in self.handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"]
        if is_closed(path):
            return await PlainTextResponse(NOT_HERE, 404)(scope, receive, send)
        visitor = visitor_of_scope(scope)
        if path.rstrip("/") == f"{API}upload" and (refusal := self.uploads.refusal(visitor.address)):
            return await refuse_body(scope, receive, send, *refusal)
        body = scope.get(BODY)
        if HANDLED.fullmatch(path) and isinstance(body, dict) and not self.has_handler(body.get("fn_index")):
            return await PlainTextResponse(NO_HANDLER, 404)(scope, receive, send)
        if path.startswith(f"{API}call") and not ((named := CALLED.fullmatch(path)) and named[1] in self.endpoints):
            return await PlainTextResponse(NO_ENDPOINT, 404)(scope, receive, send)
        if path.startswith(EXPORTS):
            number = path.removeprefix(EXPORTS).partition(".")[0]
            if not NUMBER.fullmatch(number):
                return await PlainTextResponse(NOT_HERE, 404)(scope, receive, send)
            try:
                self.desk.comparisons.check_owner(int(number), visitor)
            except InputError as error:
                return await PlainTextResponse(f"{error}\n", 403)(scope, receive, send)
        if path.startswith(f"{API}heartbeat/"):
            session = session_of(visitor, path.rstrip("/").rpartition("/")[2])
            self.desk.runs.began(session)
            try:
                return await self.app(scope, receive, send)
            finally:
                self.desk.runs.ended(session)
        return await self.app(scope, receive, send)


def is_closed(path: str) -> bool:
    """Return whether a path is one of Gradio's or FastAPI's that the page does not use."""
    if not path.startswith(API):
        return CLOSED.fullmatch(path) is not None
    name = path.removeprefix(API).partition("/")[0]
    return name not in USED and not name.startswith("file=")
