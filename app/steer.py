"""Steering: what the faders do while a response is written, and to the drawer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import gradio as gr

from app.balance import Balance
from app.controls import Changes, Controls, Outputs, Values
from app.drawer import table
from app.panels import FADERS
from app.runs import SIDES, Desk, session
from engine import InputError, Mixture

# The mixture that a panel's choice names.
Chosen = Callable[[str, Controls, Values], Mixture]


class Steer:
    """Handlers of the faders (rule, gain and exponent too), and of a token that was clicked."""

    def __init__(self, desk: Desk, controls: Controls, outputs: Outputs, mixture: Chosen, balance: Balance) -> None:
        self.desk, self.controls, self.outputs, self.mixture, self.balance = desk, controls, outputs, mixture, balance

    def connect(self, close: gr.Button) -> None:
        controls, outputs = self.controls, self.outputs
        read = controls.mixing()
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        # While a fader is dragged, what comes meanwhile waits, and of that only the last is asked. One event for all
        # that follows: each costs the page more than the server.
        gr.on(
            [component.change for component in read],
            self.follow,
            inputs=set(read),
            outputs=[outputs.drawer, outputs.status, self.balance.expected],
            trigger_mode="always_last",
            **quiet,
        )
        for side, text in outputs.texts.items():
            text.select(self.choosing(side), set(read), [outputs.drawer, outputs.status], **quiet)
        close.click(self.close, None, [outputs.drawer], **quiet)

    async def follow(self, values: Values, request: gr.Request) -> Changes:
        # Here rather than on a thread: it takes less time than going there.
        return {**self.steered(values, request), self.balance.expected: await self.balance.follow(values)}

    def steered(self, values: Values, request: gr.Request) -> Changes:
        run = self.desk.runs.get(session(request))
        if run is None or (run.done and run.chosen is None):
            return {self.outputs.drawer: gr.skip()}
        changes: Changes = {}
        try:
            run.steer(self.mixture(FADERS, self.controls, values))
        except InputError as error:
            if not run.done:
                changes |= self.outputs.say(str(error), "bad")
        return changes | self.drawn(session(request), values)

    def choosing(self, side: str) -> Callable[..., Coroutine[Any, Any, Changes]]:
        async def choose(values: Values, event: gr.EventData, request: gr.Request) -> Changes:
            run = self.desk.runs.get(session(request))
            place = event._data.get("place") if isinstance(event._data, dict) else None
            if run is None or side not in run.responses or not isinstance(place, int):
                return {self.outputs.drawer: None}
            run.chosen = run.responses[side], place
            return self.drawn(session(request), values)

        return choose

    def drawn(self, who: str, values: Values) -> Changes:
        """The drawer as the faders stand, if somebody looks at a token."""
        run = self.desk.runs[who]
        if run.chosen is None:
            return {self.outputs.drawer: gr.skip()}
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
            return {self.outputs.drawer: None, **self.outputs.say(str(error), "bad")}
        return {self.outputs.drawer: {**shown, "side": side}}

    async def close(self, request: gr.Request) -> None:
        if run := self.desk.runs.get(session(request)):
            run.chosen = None
