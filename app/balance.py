"""The bank on the desk: expected rewards that follow the faders, and Balance, which moves them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from app import plots
from app.channels import Channels
from app.controls import Changes, Controls, Outputs, Values
from app.expected import Reading, faders_of, in_words
from app.parts import expected_line
from app.runs import Desk, session
from engine import InputError
from engine.weights import Solution

log = logging.getLogger("mixdesk")

DRAG = "Drag a dot to ask for more."


class Balance:
    """Handlers; `expected` is the line under the radar, which hands its polygon on to it."""

    def __init__(self, desk: Desk, controls: Controls, outputs: Outputs, expected: gr.HTML) -> None:
        self.desk, self.controls, self.outputs, self.expected = desk, controls, outputs, expected

    def connect(self, tab: gr.Tab) -> None:
        controls, outputs = self.controls, self.outputs
        # A bank may have been sampled in another tab.
        tab.select(None, None, None, js="() => mixdesk.steer.again()")
        outputs.balance.click(
            self.balance,
            inputs={*controls.faders.values(), controls.channels, controls.rule, controls.gain},
            outputs=[*controls.faders.values(), *outputs.all(), self.expected],
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )

    async def follow(self, values: Values) -> dict[str, Any]:
        """The value of the line under the radar."""
        if self.desk.expected.bank is None:
            await asyncio.to_thread(self.desk.expected.load)  # the page may be opened before the bank was read
        weights = self.controls.weights(values)
        reading = self.desk.expected.read(weights, values[self.controls.rule], float(values[self.controls.gain]))
        return shown(self.desk.expected.objectives, reading)

    async def balance(self, values: Values, request: gr.Request) -> AsyncIterator[Changes]:
        expected, outputs, who = self.desk.expected, self.outputs, session(request)
        run = self.desk.runs.get(who)
        rateable = run is not None and run.rateable and run.choice is None
        idle = outputs.buttons(running=False, rateable=rateable, answered=run.answered if run else ())
        try:
            await asyncio.to_thread(expected.load)
            if expected.bank is None:
                async for done, wanted in expected.sample(who):
                    yield {
                        **outputs.buttons(running=True, rateable=False),
                        **outputs.say(f"Sampling a bank to balance with: {done} of {wanted or '…'} responses."),
                    }
            yield outputs.say("Balancing…")
            channels = Channels.parse(values[self.controls.channels])
            fixed = channels.fixed(self.controls.faders)
            solution = await asyncio.to_thread(expected.balanced, fixed)
        except InputError as error:
            yield {**idle, **outputs.say(str(error), "bad")}
            return
        except Exception:
            log.exception("the weights could not be balanced")
            yield {
                **idle,
                **outputs.say("Balancing failed; the engine's log says why. Press Balance to try again.", "bad"),
            }
            return
        free = {name: weight for name, weight in solution.weights.items() if name not in fixed}
        moved = channels.unlocked(faders_of(free), self.controls.faders)
        said = sentence(solution) + (" Around what is locked and silent." if fixed else "")
        yield {
            **idle,
            **moved,
            **outputs.say(said, "info" if not solution.note else "bad"),
            self.expected: await self.follow({**values, **moved}),
        }


def build_expected() -> gr.HTML:
    """The line under the radar. Its value: {line: HTML, traces: what lies under the radar's own, standard: rewards}."""
    return gr.HTML(
        {"line": "", "traces": [], "standard": {}},
        html_template='<p class="hint" role="status">${value.line}</p>',
        js_on_load=(
            "const show = () => { mixdesk.underlay('radar', props.value.traces);"
            " mixdesk.target.expect(props.value.standard); }; watch('value', show); show();"
            " mixdesk.steer.expected = (value) => { props.value = value; show(); };"
        ),
        elem_id="expected",
    )


def shown(objectives: list[str], reading: Reading) -> dict[str, Any]:
    """The value of the line under the radar."""
    if not reading.standard:
        return {"line": expected_line(reading.text, None), "traces": [], "standard": {}}
    rewards = plots.Rewards(reading.raw, reading.standard)
    trace = plots.expected(objectives, rewards, reading.errors, reading.sound)
    text = f"{reading.text} {DRAG}" if reading.sound else reading.text
    return {"line": expected_line(text, reading.sound), "traces": [trace], "standard": reading.standard}


def sentence(solution: Solution) -> str:
    """The weights that were found, and what they are for."""
    error = max(solution.weight_errors.values())
    said = "Balanced: by the policies’ own rewards, the one that gains least gains all it can — "
    said += f"{in_words(solution.weights)} (± {error:.0%})."
    if solution.note:
        said += f" But {solution.note}: in Explore."
    return said
