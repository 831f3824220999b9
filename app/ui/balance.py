"""The bank on the desk: expected rewards that follow the faders, and Balance, which moves them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from app.charts import radar as radar_chart
from app.charts.marks import MarkLegend, find_marks, rewards_mark
from app.format import signed
from app.html import expected_line, message
from app.schemas.desk_state import MixtureState
from app.services.app_state import Desk
from app.services.balance_choices import BY_POLICIES, FLOORS
from app.services.bank_service import Reading, faders_of, in_words
from app.services.visitor import session
from app.ui.balance_menu import BalanceMenu, read_floors
from app.ui.controls import Controls, Outputs
from app.ui.mixture_controls import Changes, Values
from engine import InputError
from engine.rules.registry import RULES
from engine.solvers import SOLVERS, Solution
from engine.solvers.outcome import Outcome

log = logging.getLogger("mixdesk")

DRAG = "Drag a dot to ask for more."
BOOTSTRAPS = 10  # for the errors of the weights above floors, each of them a search


@dataclass(frozen=True)
class Balanced:
    """Result of Balance.

    Attributes:
        solution: The weights found.
        fixed: {policy: the weight that it kept}.
        outcome: Expected rewards at these weights; None where no reward has a scale.
    """

    solution: Solution
    fixed: dict[str, float]
    outcome: Outcome | None


class Balance:
    """Handlers of the expected rewards and of Balance.

    `expected` is the line under the radar, whose script draws the expected polygon on the radar.
    """

    def __init__(
        self, desk: Desk, controls: Controls, outputs: Outputs, menu: BalanceMenu, expected: gr.HTML,
        better: gr.Button, legend: MarkLegend,
    ) -> None:  # fmt: skip
        self.desk, self.controls, self.outputs, self.menu, self.expected = desk, controls, outputs, menu, expected
        self.better, self.legend = better, legend

    def connect(self, tab: gr.Tab) -> None:
        """Register the event handlers within the current Blocks context."""
        outputs, mixture = self.outputs, self.controls.mixture
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        # A bank may have been sampled in another tab, and a soup compared there.
        tab.select(None, None, None, js="() => mixdesk.steer.again()")
        tab.select(self.marks, [self.legend.last], [self.legend.html], queue=False, **quiet)
        blocks = gr.context.Context.root_block
        assert blocks is not None
        blocks.load(self.marks, [self.legend.last], [self.legend.html], queue=False, **quiet)
        faders = list(mixture.faders.values())
        reads = {*mixture.components(), *self.menu.inputs(), self.legend.last}
        gr.on(
            [outputs.balance.click, *(floor.submit for floor in self.menu.floors.values())],
            self.balance,
            inputs=reads,
            outputs=[*faders, *outputs.all(), self.expected, self.legend.html, self.legend.last],
            concurrency_limit=None,
            **quiet,
        )
        self.better.click(
            None,
            [*faders, mixture.channels],
            [*faders, outputs.status],
            js=f"(...values) => mixdesk.offer.take({json.dumps(list(mixture.faders))}, values)",
        )

    async def marks(self, last: dict[str, Any] | None) -> dict[str, Any]:
        """Return the value of the marks' legend; `last` is the session's latest Balance. Errors are logged."""
        try:
            await asyncio.to_thread(self.desk.expected.load)
            return self.legend.value(await asyncio.to_thread(find_marks, self.desk, last))
        except Exception:
            log.exception("the marks could not be found")
            return self.legend.value([])

    async def follow(self, mixture: MixtureState) -> dict[str, Any]:
        """Return the value of the line under the radar for the faders' current mixture."""
        if self.desk.expected.bank is None:
            await asyncio.to_thread(self.desk.expected.load)  # the page may be opened before the bank was read
        reading = self.desk.expected.read(mixture.weights(), mixture.rule, mixture.gain)
        return status_line(self.desk.expected.objectives, reading)

    async def balance(self, values: Values, request: gr.Request) -> AsyncIterator[Changes]:
        """Handle the Balance button: sample a bank if there is none, find the weights, and move the unlocked faders."""
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
            mixture, floors = self.controls.mixture.state(values), read_floors(values, self.menu.floors)
            found = await asyncio.to_thread(self.find, values[self.menu.choice], floors, mixture.fixed(), mixture.gain)
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
        fixed, faders = mixture.fixed(), self.controls.mixture.faders
        free = {name: weight for name, weight in found.solution.weights.items() if name not in fixed}
        moved = mixture.channels.unlocked(faders_of(free), mixture.faders)
        mark = rewards_mark(found.solution.weights, found.outcome) if found.outcome else None
        yield {
            **idle,
            **{faders[name]: position for name, position in moved.items()},
            outputs.status: balanced_message(found, mixture.rule),
            self.expected: await self.follow(mixture.model_copy(update={"faders": {**mixture.faders, **moved}})),
            self.legend.last: mark,
            self.legend.html: await self.marks(mark),
        }

    def find(self, choice: str, floors: Mapping[str, float], fixed: dict[str, float], gain: float) -> Balanced:
        """Find the weights that the menu's choice describes, and their expected rewards.

        Args:
            choice: A method of app.services.balance_choices.
            floors: {objective: standard deviations}, for `FLOORS`.
            fixed: {policy: the weight that it keeps}.
            gain: The gain γ.

        Raises:
            InputError: if there is no solution, for example because every weight is fixed.
        """
        expected = self.desk.expected
        if choice == FLOORS:
            solution = expected.reaching(floors, fixed, gain=gain, repeats=BOOTSTRAPS)
        else:
            solution = expected.balanced(fixed, choice, gain)
        try:
            outcome = expected.outcome(solution.weights, fixed, gain)
        except InputError:
            if choice != BY_POLICIES:
                raise
            outcome = None  # the policies' own rewards need no scale
        return Balanced(solution, fixed, outcome)


def build_expected() -> gr.HTML:
    """Build the line under the radar.

    Its value is {line: HTML, traces: traces drawn under the radar's own, standard: expected rewards}.
    """
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


def status_line(objectives: list[str], reading: Reading) -> dict[str, Any]:
    """Return the value of the line under the radar."""
    if not reading.standard:
        return {"line": expected_line(reading.text, None), "traces": [], "standard": {}}
    rewards = radar_chart.SideRewards(reading.raw, reading.standard)
    trace = radar_chart.expected(objectives, rewards, reading.errors, reading.reliable)
    text = f"{reading.text} {DRAG}" if reading.reliable else reading.text
    return {"line": expected_line(text, reading.reliable), "traces": [trace], "standard": reading.standard}


def balanced_message(found: Balanced, rule: str) -> str:
    """Return the status line after Balance as HTML; a better point, if any, is attached for its button."""
    text = balance_sentence(found.solution, found.outcome)
    if found.fixed:
        text += " Around what is locked and silent."
    if not RULES[rule].is_product:
        text += f" All this is of the geometric rule, not of {rule}."
    kind = "bad" if found.solution.note else "info"
    if found.outcome is None or found.outcome.better is None:
        return f'<span class="message {kind} balanced">{escape(text)}</span>'
    weights = found.outcome.better.weights
    positions = faders_of({name: weight for name, weight in weights.items() if name not in found.fixed})
    there = {name: found.outcome.rewards[name] + gain for name, gain in found.outcome.better.gains.items()}
    taken = message(f"The faders have the better point: {in_words(weights)}. Expected: {rewards_in_words(there)}.")
    offer = f'data-faders="{escape(json.dumps(positions))}" data-said="{escape(taken)}"'
    return f'<span class="message {kind} balanced offer" {offer}>{escape(text)}</span>'


def balance_sentence(solution: Solution, outcome: Outcome | None = None) -> str:
    """Return a sentence with the weights, their method, their expected rewards, and a better point if any."""
    error = max(solution.weight_errors.values())
    said = f"Balanced: {SOLVERS[solution.method].summary} — {in_words(solution.weights)} (± {error:.0%})."
    if outcome is not None:
        said += f" Expected: {rewards_in_words(outcome.rewards, outcome.errors)}."
        if (better := outcome.better) is not None:
            least, most = min(better.gains.values()), max(better.gains.values())
            sure = "by more than twice the error" if better.significant else "but within twice the error"
            said += f" Better in all, by {least:.2f} to {most:.2f}σ, {sure}: {in_words(better.weights)}."
    if solution.note:
        said += f" But {solution.note}: in Explore."
    return said


def rewards_in_words(rewards: Mapping[str, float], errors: Mapping[str, float] | None = None) -> str:
    """Return rewards as text, such as 'helpful +0.40 ± 0.05σ, concise −0.10 ± 0.04σ'."""
    spread = {name: f" ± {error:.2f}" for name, error in (errors or {}).items()}
    return ", ".join(f"{name} {signed(value)}{spread.get(name, '')}σ" for name, value in rewards.items())
