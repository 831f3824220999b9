"""Steering: what the faders do while a response is written, and to the drawer.

static/steer.js asks what follows the faders, of a route of its own: Gradio's for components takes four times as long,
in which nobody's models go on.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from app.services.app_state import Desk


class SteerQuestion(BaseModel):
    """A question of static/steer.js, as Steer.follow has it."""

    run: str = ""
    turn: int
    now: list[Any]


def serve_steering(app: FastAPI, desk: Desk) -> None:
    """Serve the questions of static/steer.js at /steer."""

    @app.post("/steer")
    async def steer(asked: SteerQuestion) -> dict[str, Any]:
        try:
            return await desk.follow(asked.run, asked.turn, asked.now)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
