"""The text of the responses as it is written: server-sent events, which static/js/text.js asks for.

Not as an event of Gradio's, which takes ten times as long for each update, on the server and in the page.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from app.services.app_state import Desk
from app.services.generation_run import Run

GONE = "These responses are no longer here.\n"
# To be sent at once, whatever is in between.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
RETRY = 500  # ms until a browser whose connection broke asks again
PATIENCE = 10  # seconds: a text that nobody has read for as long ends


def serve_text(app: FastAPI, desk: Desk) -> None:
    """Whoever knows a run's id may read it; it is made at random, and only its page is told."""

    @app.get("/text/{run}")
    async def text(run: str, request: Request, at: int = 0) -> Response:
        """at: how many lines are known. A browser whose connection broke says so in a header."""
        found = desk.find(run)
        if found is None:
            return PlainTextResponse(GONE, 404)
        last = request.headers.get("last-event-id", "")
        known = int(last) if last.isdecimal() else max(0, at)
        return StreamingResponse(events(found, known), media_type="text/event-stream", headers=HEADERS)


async def events(run: Run, at: int) -> AsyncIterator[str]:
    """Messages with the lines from `at` on, a JSON array, and as their id how many lines there are then. Their end:
    how many responses they told of."""
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
        if not run.done:
            asyncio.get_running_loop().call_later(PATIENCE, stop_unread, run)


def stop_unread(run: Run) -> None:
    """Cancel a run that is no longer read by any page."""
    if not run.readers and not run.done:
        run.cancel()
