"""Streaming of the responses' text by server-sent events, which static/js/text.js reads.

A Gradio event would take ten times as long per update, on the server and in the page.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from app.services.app_state import Desk
from app.services.generation_run import LEFT_FOR, Run
from app.services.visitor import visitor_of_scope

GONE = "These responses are no longer here.\n"
# To be sent at once, whatever is in between.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
RETRY = 500  # ms until a browser whose connection broke asks again


def serve_text(app: FastAPI, desk: Desk) -> None:
    """Add the route GET /text/{run}.

    A run's id is random and sent only to its own page; another browser cannot read it even if it knows the id.
    """

    @app.get("/text/{run}")
    async def text(run: str, request: Request, at: int = 0) -> Response:
        """Stream the lines from number `at` on; the last-event-id header of a reconnecting browser takes precedence."""
        found = desk.find(run, visitor_of_scope(request.scope))
        if found is None:
            return PlainTextResponse(GONE, 404)
        last = request.headers.get("last-event-id", "")
        known = int(last) if last.isdecimal() else max(0, at)
        return StreamingResponse(events(found, known), media_type="text/event-stream", headers=HEADERS)


async def events(run: Run, at: int) -> AsyncIterator[str]:
    """Yield server-sent events with the run's lines from number `at` on.

    Each message is a JSON array of lines, with the number of lines so far as its id. The final event holds the number
    of responses.
    """
    run.readers += 1
    try:
        yield f"retry: {RETRY}\n\n"
        async for lines in run.stream(at):
            at += len(lines)
            # Without lines: for whatever in between takes a silent connection for a dead one.
            yield f"id: {at}\ndata: [{','.join(lines)}]\n\n" if lines else ":\n\n"
        yield f"event: end\ndata: {run.begun}\n\n"
    finally:
        run.readers -= 1
        run.used = time.monotonic()
        if not run.done:
            run.stop_if_unread(LEFT_FOR)
