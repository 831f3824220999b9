"""Steering: what the faders do while a response is written, and to the drawer.

static/js/steer.js asks what follows the faders, of a route of its own: Gradio's for components takes four times as
long, in which nobody's models go on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import gradio as gr
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from app.balance import Balance
from app.controls import Changes, Controls, Outputs, Values
from app.drawer import table
from app.panels import FADERS
from app.parts import message
from app.runs import SIDES, Desk, Run, session
from engine import InputError, Mixture

# The mixture that a panel's choice names.
Chosen = Callable[[str, Controls, Values], Mixture]


class Asked(BaseModel):
    """A question of static/js/steer.js, as Steer.follow has it."""

    run: str = ""
    turn: int
    now: list[Any]


def serve_steering(app: FastAPI, desk: Desk) -> None:
    @app.post("/steer")
    async def steer(asked: Asked) -> dict[str, Any]:
        try:
            return await desk.follow(asked.run, asked.turn, asked.now)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None


class Steer:
    """Handlers of the faders (rule, gain and exponent too), and of a token that was clicked."""

    def __init__(self, desk: Desk, controls: Controls, outputs: Outputs, mixture: Chosen, balance: Balance) -> None:
        self.desk, self.controls, self.outputs, self.mixture, self.balance = desk, controls, outputs, mixture, balance

    def connect(self, responses: dict[str, gr.HTML], close: gr.Button) -> None:
        controls, outputs = self.controls, self.outputs
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        follower = gr.HTML(
            None,
            html_template="<i></i>",
            js_on_load="mixdesk.steer.begin(trigger);",
            elem_id="follower",
        )
        follower.submit(None, None, [outputs.status], js="() => mixdesk.steer.said()")
        self.desk.follow = self.follow
        for side, text in responses.items():
            text.select(self.choosing(side), set(controls.mixing()), [outputs.drawer, outputs.status], **quiet)
        close.click(self.close, None, [outputs.drawer], **quiet)

    async def follow(self, run: str, turn: int, now: list[Any]) -> dict[str, Any]:
        """What follows the faders: expected, the line under the radar; drawer, if somebody looks at a token; said, if
        something is wrong. Raises ValueError for what no page says.

        run: whose id the page knows, or none. turn: counts the page's questions, of which a few may be under way and
        arrive in any order; now: what its components have, as Controls.mixing has them.
        """
        # Here rather than on a thread: it takes less time than going there.
        try:
            values = {
                component: component.preprocess(value)
                for component, value in zip(self.controls.mixing(), now, strict=True)
            }
            expected = await self.balance.follow(values)
        except (InputError, gr.Error, TypeError) as error:
            raise ValueError(str(error)) from None
        return {"expected": expected, **self.steered(self.desk.find(run), turn, values)}

    def steered(self, run: Run | None, turn: int, values: Values) -> dict[str, Any]:
        if run is None or turn < run.turn or (run.done and run.chosen is None):
            return {}
        run.turn = turn
        said: dict[str, Any] = {}
        try:
            run.steer(self.mixture(FADERS, self.controls, values))
        except InputError as error:
            if not run.done:
                said = {"said": message(str(error), "bad")}
        return said | self.drawn(run, values)

    def choosing(self, side: str) -> Callable[..., Coroutine[Any, Any, Changes]]:
        async def choose(values: Values, event: gr.EventData, request: gr.Request) -> Changes:
            run = self.desk.runs.get(session(request))
            place = event._data.get("place") if isinstance(event._data, dict) else None
            if run is None or side not in run.responses or not isinstance(place, int):
                return {self.outputs.drawer: None}
            run.chosen = run.responses[side], place
            drawn = self.drawn(run, values)
            outputs = {"drawer": self.outputs.drawer, "said": self.outputs.status}
            return {outputs[name]: value for name, value in drawn.items()}

        return choose

    def drawn(self, run: Run, values: Values) -> dict[str, Any]:
        """The drawer as the faders stand, if somebody looks at a token; else maybe why it is gone."""
        if run.chosen is None:
            return {}
        response, place = run.chosen
        side = next((side for side in SIDES if run.responses.get(side) is response), "gone")
        try:
            now = self.mixture(FADERS, self.controls, values)
        except InputError:
            now = None
        title = f"{side.title()}, token {place + 1}"
        try:
            shown = table(title, response, place, now, self.desk.accents, self.desk.engine.policy_set)
        except InputError as error:
            run.chosen = None
            return {"drawer": None, "said": message(str(error), "bad")}
        return {"drawer": {**shown, "side": side}}

    async def close(self, request: gr.Request) -> None:
        if run := self.desk.runs.get(session(request)):
            run.chosen = None
