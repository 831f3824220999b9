"""Handlers of fader changes during generation, and of a selected token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import gradio as gr

from app.html import message
from app.schemas.desk_state import MixtureState
from app.services.app_state import Desk
from app.services.generation_run import SIDES, Run
from app.services.panel_choice import FADERS, chosen_mixture
from app.services.visitor import session
from app.ui.balance import Balance
from app.ui.controls import Controls, Outputs
from app.ui.mixture_controls import Changes, Values
from app.ui.token_inspector import token_table
from engine import InputError


class Steer:
    """Handlers of the faders (with rule, gain and exponent), and of a selected token."""

    def __init__(self, desk: Desk, controls: Controls, outputs: Outputs, balance: Balance) -> None:
        self.desk, self.controls, self.outputs, self.balance = desk, controls, outputs, balance

    def connect(self, responses: dict[str, gr.HTML], close: gr.Button) -> None:
        """Register the event handlers, and make `follow` available to the server's route."""
        controls, outputs = self.controls, self.outputs
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        follower = gr.HTML(
            None,
            html_template="<i></i>",
            js_on_load="mixdesk.status.begin(trigger); mixdesk.steer.begin();",
            elem_id="follower",
        )
        follower.submit(None, None, [outputs.status], js="() => mixdesk.status.said()")
        self.desk.follow = self.follow
        for side, text in responses.items():
            text.select(
                self.choosing(side), set(controls.mixture.components()), [outputs.drawer, outputs.status], **quiet
            )
        close.click(self.close, None, [outputs.drawer], **quiet)

    async def follow(self, run: str, turn: int, mixture: MixtureState) -> dict[str, Any]:
        """Return the updates that follow the faders.

        Args:
            run: Id of the run that the page shows, or "".
            turn: Sequence number of the page's request; several may be under way and arrive in any order.
            mixture: The faders' mixture on the page.

        Returns:
            {expected: the line under the radar; drawer: if a token is inspected; said: an error message, if any}.

        Raises:
            ValueError: if the mixture does not fit this desk.
        """
        # Here rather than on a thread: it takes less time than going there.
        try:
            mixture = self.controls.mixture.checked(mixture)
        except InputError as error:
            raise ValueError(str(error)) from None
        return {"expected": await self.balance.follow(mixture), **self.steered(self.desk.find(run), turn, mixture)}

    def steered(self, run: Run | None, turn: int, mixture: MixtureState) -> dict[str, Any]:
        """Steer the run with this request's mixture, and return the inspector's update; {} for an outdated request."""
        if run is None or turn < run.turn or (run.done and run.chosen is None):
            return {}
        run.turn = turn
        said: dict[str, Any] = {}
        try:
            run.steer(chosen_mixture(FADERS, mixture, self.desk.engine))
        except InputError as error:
            if not run.done:
                said = {"said": message(str(error), "bad")}
        return said | self.drawn(run, mixture)

    def choosing(self, side: str) -> Callable[..., Coroutine[Any, Any, Changes]]:
        """Return the handler of a selected token in a panel."""

        async def choose(values: Values, event: gr.EventData, request: gr.Request) -> Changes:
            run = self.desk.runs.get(session(request))
            place = event._data.get("place") if isinstance(event._data, dict) else None
            if run is None or side not in run.responses or not isinstance(place, int):
                return {self.outputs.drawer: None}
            run.chosen = run.responses[side], place
            # On a thread: the tokens' text may come from an engine on another machine.
            drawn = await asyncio.to_thread(self.drawn, run, self.controls.mixture.state(values))
            outputs = {"drawer": self.outputs.drawer, "said": self.outputs.status}
            return {outputs[name]: value for name, value in drawn.items()}

        return choose

    def drawn(self, run: Run, mixture: MixtureState) -> dict[str, Any]:
        """Return the inspector's update for the faders' current mixture; {} if no token is inspected.

        If the token is no longer available, the update closes the inspector and gives the reason.
        """
        if run.chosen is None:
            return {}
        response, place = run.chosen
        side = next((side for side in SIDES if run.responses.get(side) is response), "gone")
        try:
            now = chosen_mixture(FADERS, mixture, self.desk.engine)
        except InputError:
            now = None
        title = f"{side.title()}, token {place + 1}"
        try:
            shown = token_table(title, response, place, now, self.desk.accents, self.desk.engine.policy_set)
        except InputError as error:
            run.chosen = None
            return {"drawer": None, "said": message(str(error), "bad")}
        return {"drawer": {**shown, "side": side}}

    async def close(self, request: gr.Request) -> None:
        """Close the token inspector."""
        if run := self.desk.runs.get(session(request)):
            run.chosen = None
