"""Route for steering: fader changes while a response is generated, and for the token inspector.

static/js/steer.js posts to this route because Gradio's component events take four times as long, during which the
models do not generate.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

from app.schemas.desk_state import MixtureState
from app.services.app_state import Desk
from app.services.visitor import visitor_of_scope


class SteerQuestion(BaseModel):
    """A request from static/js/steer.js, with the arguments of `Steer.follow`."""

    run: str = ""
    turn: int
    mixture: MixtureState


def serve_steering(app: FastAPI, desk: Desk) -> None:
    """Add the route POST /steer, which answers 422 to a malformed request."""

    @app.post("/steer")
    async def steer(asked: SteerQuestion, request: Request) -> dict[str, Any]:
        run = desk.find(asked.run, visitor_of_scope(request.scope))
        try:
            return await desk.follow(run.id if run else "", asked.turn, asked.mixture)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
