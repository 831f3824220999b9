"""Marks of well-known points, on the radar and in Explore: the even mixture, the even soup, and Balance.

The even mixture and Balance are expected by the bank. It holds no log-probabilities of a soup, the policy of averaged
adapters, and cannot predict one: the soup's mark is what a comparison has measured, where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from app.charts.comparison import ENOUGH, standard_rewards
from app.format import signed
from app.services.app_state import Desk
from app.services.balance_choices import BY_REWARDS
from app.services.bank_service import Expected, in_words
from engine import InputError, Mixture
from engine.solvers.outcome import Outcome

NEWEST = 20  # comparisons that are searched for a soup
# name: (plotly's symbol, the same as a path around 0, 0)
SHAPES = {
    "Even": ("square-open", "M-9,-9H9V9H-9Z"),
    "Soup": ("x-thin-open", "M-9,-9L9,9M-9,9L9,-9"),
    "Balance": ("star", "M0,-13.5L3.4,-4.7 12.9,-4.2 5.6,1.8 7.9,10.9 0,5.7 -7.9,10.9 -5.6,1.8 -12.9,-4.2 -3.4,-4.7Z"),
}


@dataclass(frozen=True)
class Mark:
    """One point. rewards: by objective, in standard deviations from the reference's mean; source: where from."""

    name: str  # of SHAPES
    rewards: Mapping[str, float]
    source: str


@dataclass
class MarkLegend:
    """The legend under the radar, whose value the marks are drawn from. last: this session's Balance."""

    html: gr.HTML
    last: gr.State
    objectives: list[str]

    def value(self, marks: list[Mark]) -> dict[str, Any]:
        return {
            "legend": marks_legend(marks),
            "marks": [
                {
                    "name": mark.name.lower(),
                    "path": SHAPES[mark.name][1],
                    "rewards": [mark.rewards.get(name) for name in self.objectives],
                }
                for mark in marks
            ],
        }


def build_legend(objectives: list[str]) -> MarkLegend:
    """Build the legend of the marks, which also draws them on the radar."""
    html = gr.HTML(
        {"legend": "", "marks": []},
        html_template="${value.legend}",
        js_on_load=(
            "const show = () => mixdesk.marks.show(props.value.marks); watch('value', show); show();"
        ),
        elem_id="marks",
    )  # fmt: skip
    return MarkLegend(html, gr.State(None), objectives)


def rewards_mark(weights: Mapping[str, float], outcome: Outcome) -> dict[str, Any]:
    """Return a Balance as a session keeps it."""
    return {"rewards": dict(outcome.rewards), "weights": dict(weights)}


def find_marks(desk: Desk, last: Mapping[str, Any] | None = None) -> list[Mark]:
    """Return the marks that can be known. last: the session's Balance; else the one that was found before."""
    marks = []
    if even := even_mark(desk.expected):
        marks.append(even)
    if soup := soup_mark(desk):
        marks.append(soup)
    if last:
        marks.append(Mark("Balance", last["rewards"], f"expected at {in_words(last['weights'])}"))
    elif balance := balance_mark(desk.expected):
        marks.append(balance)
    return marks


def even_mark(expected: Expected) -> Mark | None:
    """Return the mark of the uniform mixture; None while its rewards are unknown."""
    names = expected.engine.policy_set.names
    rewards = expected_rewards(expected, dict.fromkeys(names, 1 / len(names)))
    return Mark("Even", rewards, "expected of all policies alike") if rewards else None


def balance_mark(expected: Expected) -> Mark | None:
    """Return the mark of the max-min weights, if they were found before."""
    solution = expected.known(BY_REWARDS)
    if solution is None:
        return None
    rewards = expected_rewards(expected, solution.weights)
    return Mark("Balance", rewards, f"expected at {in_words(solution.weights)}") if rewards else None


def expected_rewards(expected: Expected, weights: Mapping[str, float]) -> dict[str, float] | None:
    """Return the expected rewards at these weights, in standard deviations; None while there is no bank or scale."""
    if expected.bank is None:
        return None
    try:
        return expected.outcome(weights, search=False).rewards
    except InputError:  # not calibrated yet
        return None


def soup_mark(desk: Desk) -> Mark | None:
    """The even soup's mean rewards in the newest comparison of this configuration that has one."""
    names, tables = set(desk.engine.policy_set.names), desk.comparisons.tables
    for entry in tables.listing()[:NEWEST]:
        if entry.model != desk.engine.config.name or entry.answered < ENOUGH:
            continue
        try:
            mixtures = tables.plan(entry.id).mixtures
            place = next((i for i, mixture in enumerate(mixtures.values()) if is_even_soup(mixture, names)), None)
            if place is None:
                continue
            answers = tables.answers(entry.id)
        except InputError:  # deleted meanwhile
            continue
        rewards = standard_rewards(answers)[sorted(answers.answered), place]
        means = dict(zip(answers.plan.scale, np.nanmean(rewards, 0).tolist(), strict=True))
        known = {name: mean for name, mean in means.items() if np.isfinite(mean)}
        if known:
            return Mark("Soup", known, f"measured in comparison {entry.id}, {len(rewards)} prompts")
    return None


def is_even_soup(mixture: Mixture, policies: set[str]) -> bool:
    """Return whether a mixture is the soup of all policies with equal weights."""
    weights = {name: weight for name, weight in mixture.weights.items() if weight}
    even = 1 / len(policies)
    return (
        mixture.averages_adapters
        and mixture.gain == 1
        and set(weights) == policies
        and all(abs(weight - even) < 1e-6 for weight in weights.values())
    )


def marks_legend(marks: list[Mark]) -> str:
    """Return the legend; what each mark's rewards are is its title, and read out."""
    if not marks:
        return ""
    items = ""
    for mark in marks:
        rewards = ", ".join(f"{name} {signed(value)}σ" for name, value in mark.rewards.items())
        detail = escape(f"{mark.source}: {rewards}")
        items += (
            f'<li title="{detail}"><svg viewBox="-14 -14 28 28" aria-hidden="true" class="mark-{mark.name.lower()}">'
            f'<path d="{SHAPES[mark.name][1]}"/></svg>{mark.name}<span class="unseen">, {detail}</span></li>'
        )
    return f'<ul class="marks" aria-label="Marks on the radar">{items}</ul>'
