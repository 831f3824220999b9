"""The Explore tab: expected rewards over all weights, the efficient weights, and weights that satisfy floors."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import gradio as gr

from app.charts import pareto
from app.charts.marks import Mark, find_marks
from app.charts.plotly_component import figure, plotted
from app.html import message
from app.schemas.solo_mute_lock import Channels
from app.services.app_state import Desk
from app.services.balance_choices import BY_REWARDS
from app.services.bank_service import faders_of, in_words
from app.services.visitor import session
from app.ui.balance_menu import read_floors
from app.ui.controls import Steering
from app.ui.mixture_controls import Changes, Values
from app.ui.shortcuts import labelled
from engine import InputError
from engine.bank.collection import SAMPLING
from engine.bank.estimate import Bank
from engine.parsing import parse_numbers

log = logging.getLogger("mixdesk")

EMPTY = """<h2>What can be had?</h2>
<p>Mixdesk can show the expected rewards of every mixture at once, before any of them writes a word. For that it needs a
<b>bank</b>: responses of each policy to some prompts, sampled once, with their probabilities under all policies. Any
weights' rewards follow from it by counting each response as often as those weights would have written it.</p>
<p>Then this page marks the weights that nothing else beats, and a click on a point sends it to the faders.</p>"""
CHOSEN = message("The faders have the weights of the point that you clicked. Press Generate to try them.")


class ExploreTab:
    """The tab's components and their event handlers."""

    def __init__(self, desk: Desk, steering: Steering) -> None:
        self.desk, self.expected, self.steering = desk, desk.expected, steering
        self.policies = desk.policies
        self.drawn: tuple[Bank, list[Mark], str, str] | None = None

    def build(self, tab: gr.Tab) -> None:
        """Build the tab's components and register their handlers."""
        with gr.Column(elem_id="explore"):
            with gr.Row(elem_id="explore-head"):
                self.about = gr.HTML("", elem_id="about")
                self.sample = gr.Button(labelled("Sample a bank", "sample"), elem_id="sample", min_width=230, scale=0)
                self.stop = gr.Button(
                    labelled("Stop", "explore-stop"), interactive=False, elem_id="explore-stop", min_width=110, scale=0
                )
            self.status = gr.HTML(
                "", elem_id="explore-status", html_template='<p role="status" aria-live="polite">${value}</p>'
            )
            self.empty = gr.HTML(EMPTY, elem_id="empty", visible=False)
            with gr.Column(visible=False) as self.content:
                with gr.Row(elem_id="fronts"):
                    self.weights = figure(None, "weights-figure", "Expected rewards of all weights", points=True)
                    self.pairs = figure(
                        None, "pairs-figure", "Expected rewards, every two against each other", points=True
                    )
                with gr.Row(elem_id="target", equal_height=True):
                    gr.HTML(
                        "<h2>Target</h2><p class='hint'>The most reward in all, with no expected reward under its "
                        "floor, in standard deviations from the reference.</p>"
                    )
                    self.floors = {
                        name: gr.Textbox(
                            label=f"{name} at least",
                            placeholder="no floor",
                            min_width=90,
                            max_lines=1,
                            elem_id=f"floor-{i}",
                        )
                        for i, name in enumerate(self.expected.objectives)
                    }
                    self.worth = gr.Textbox(
                        label="counts (default 1)",
                        placeholder=f"{(self.expected.objectives or ['helpful'])[0]}=2",
                        min_width=150,
                        max_lines=1,
                        elem_id="worth",
                    )
                    self.find = gr.Button(
                        "Find weights (Enter)", elem_id="find", variant="primary", min_width=190, scale=0
                    )
        self.connect(tab)

    def connect(self, tab: gr.Tab) -> None:
        """Register the event handlers."""
        view = [self.about, self.sample, self.empty, self.content, self.weights, self.pairs]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        tab.select(self.show, None, view, queue=False, **quiet)
        self.sample.click(self.sampling, None, [*view, self.stop, self.status], concurrency_limit=None, **quiet)
        self.stop.click(self.leave, queue=False, **quiet)
        faders = list(self.steering.mixture.faders.values())
        for shown in (self.weights, self.pairs):
            shown.select(
                None,
                [*faders, self.steering.mixture.channels],
                [*faders, self.steering.status],
                js=f"(...now) => [...mixdesk.mixer.placed(now, mixdesk.chosen), {json.dumps(CHOSEN)}]",
            )
        gr.on(
            [self.find.click, self.worth.submit, *(floor.submit for floor in self.floors.values())],
            self.target,
            {*self.floors.values(), self.worth, self.steering.mixture.channels},
            [*faders, self.steering.status, self.steering.tabs, self.status],
            concurrency_limit=None,
            **quiet,
        )

    # --------------------------------------------------------------------------------------------------- the handlers

    async def show(self) -> Changes:
        """Return updates that show the figures, or the empty state if there is no bank."""
        await asyncio.to_thread(self.expected.load)
        if self.expected.bank is None or self.expected.missing:
            missing = self.expected.missing
            return {
                self.about: "" if missing is None else message(missing, "bad"),
                self.sample: gr.Button(
                    labelled("Sample a bank", "sample"), interactive=missing is None, variant="primary"
                ),
                self.empty: gr.HTML(visible=True),
                self.content: gr.Column(visible=False),
            }
        try:
            bank, weights, pairs = await asyncio.to_thread(self.draw)
        except InputError as error:
            return {
                self.about: message(str(error), "bad"),
                self.sample: gr.Button(labelled("Sample more", "sample"), interactive=True, variant="secondary"),
                self.empty: gr.HTML(visible=False),
                self.content: gr.Column(visible=False),
            }
        return {
            self.about: point_caption(bank, sorted(self.desk.engine.reward_set.scale.constant)),
            self.sample: gr.Button(labelled("Sample more", "sample"), interactive=True, variant="secondary"),
            self.empty: gr.HTML(visible=False),
            self.content: gr.Column(visible=True),
            self.weights: gr.HTML(weights, visible=bool(weights)),
            self.pairs: gr.HTML(pairs, visible=bool(pairs)),
        }

    def draw(self) -> tuple[Bank, str, str]:
        """Return the bank and its two figures as JSON, "" where a figure does not apply.

        The figures are cached until the bank or the marks change.

        Raises:
            InputError: if no reward has a scale.
        """
        bank = self.expected.bank
        assert bank is not None
        front = self.expected.front()
        self.expected.balanced(method=BY_REWARDS)  # for its mark
        marks = find_marks(self.desk)
        if self.drawn is None or self.drawn[0] is not bank or self.drawn[1] != marks:
            objectives = self.expected.scaled()[0].objectives
            accents = list(self.desk.accents.values())
            of_all = None
            if len(self.policies) == 3:
                of_all = pareto.ternary(front, self.policies, accents, objectives)
            elif len(self.policies) > 3:
                of_all = pareto.parallel(front, self.policies, accents, objectives, marks)
            of_pairs = None
            if len(objectives) > 1:
                paths = self.expected.paths()
                of_pairs = pareto.scatter(front, self.policies, accents, objectives, paths, marks)
            self.drawn = bank, marks, plotted(of_all), plotted(of_pairs)
        return self.drawn[0], *self.drawn[2:]

    async def sampling(self, request: gr.Request) -> AsyncIterator[Changes]:
        """Sample a bank for the session and yield updates until the figures are drawn."""
        idle = {self.sample: gr.Button(interactive=True), self.stop: gr.Button(interactive=False)}
        try:
            async for done, wanted in self.expected.sample(session(request)):
                yield {
                    self.sample: gr.Button(interactive=False),
                    self.stop: gr.Button(interactive=True),
                    self.status: message(f"Sampling: {done} of {wanted or '…'} responses."),
                }
        except InputError as error:
            yield {**idle, self.status: message(str(error), "bad")}
            return
        except Exception:
            log.exception("a bank could not be sampled")
            yield {**idle, self.status: message("Sampling failed; the engine's log says why.", "bad")}
            return
        yield {**idle, **await self.show(), self.status: message("The bank is there.", "good")}

    def leave(self, request: gr.Request) -> None:
        """Stop waiting for the bank that is being sampled."""
        self.expected.leave(session(request))

    def target(self, values: Values) -> Changes:
        """Move the unlocked faders to the weights with the most reward above the floors, and show the desk."""
        try:
            floors = read_floors(values, self.floors)
            channels = Channels.parse(values[self.steering.mixture.channels])
            fixed = channels.fixed(self.policies)
            typed = (values[self.worth] or "").strip()
            worth = parse_numbers(typed, "counts") if typed else {}
            solution = self.expected.reaching(floors, fixed, worth)
        except InputError as error:
            return {self.status: message(str(error), "bad")}
        free = {name: weight for name, weight in solution.weights.items() if name not in fixed}
        faders = self.steering.mixture.faders
        moved = channels.unlocked(faders_of(free), faders)
        kept = ", ".join(f"{name} at least {floor:g}" for name, floor in floors.items())
        counted = ", ".join(f"{name} counting {value:g}" for name, value in worth.items())
        said = " and ".join(filter(None, [kept, counted]))
        said = f"Target: the most reward with {said} — {in_words(solution.weights)}."
        return {
            **{faders[name]: position for name, position in moved.items()},
            self.steering.status: message(said),
            self.steering.tabs: gr.Tabs(selected="desk"),
            self.status: "",
        }


def point_caption(bank: Bank, constant: Sequence[str] = ()) -> str:
    """Return the line above the figures.

    `constant` lists rewards that are left out because all of the reference's responses have the same value.
    """
    size = f"{bank.rewards.shape[1]} responses to each of {len(bank.prompts)} prompts"
    left_out = f"Left out: {', '.join(constant)}, always the same for the reference. " if constant else ""
    return message(
        f"Expected rewards of all weights, from {size} at temperature {SAMPLING.temperature:g}. {left_out}"
        "What is coloured, by its heaviest policy, is efficient: no other is as good in all and better in one. "
        "★ Balance by the reward models, □ all policies alike, ✕ the even soup (from Compare), ◆ mpo, ⬢ the paper's "
        "bsmd. Click a point to send its weights to the faders."
    )


def build_explore_tab(desk: Desk, tab: gr.Tab, steering: Steering) -> None:
    """Build the Explore tab."""
    ExploreTab(desk, steering).build(tab)
