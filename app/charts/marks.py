"""Marks of reference points on the radar and in Explore: the even mixture, the even soup, and Balance.

The bank predicts the even mixture and Balance. It holds no log-probabilities of a soup (the policy with averaged
adapters) and cannot predict one, so the soup's mark shows the means measured by a comparison, if one has it.
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
    """One marked point.

    Attributes:
        name: A key of `SHAPES`.
        rewards: {objective: reward in standard deviations from the reference's mean}.
        source: How the rewards were obtained, for the legend.
    """

    name: str  # of SHAPES
    rewards: Mapping[str, float]
    source: str


@dataclass
class MarkLegend:
    """The legend under the radar; the script draws the marks from its value.

    Attributes:
        html: The legend's component.
        last: State with the session's latest Balance, as `rewards_mark` returns it, or None.
        objectives: The radar's objectives, in order.
    """

    html: gr.HTML
    last: gr.State
    objectives: list[str]

    def value(self, marks: list[Mark]) -> dict[str, Any]:
        """Return the component's value: the legend's HTML, and each mark's SVG path and rewards by objective."""
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
    """Build the legend's component within the current Blocks context."""
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
    """Return a Balance result as plain values for the session's state."""
    return {"rewards": dict(outcome.rewards), "weights": dict(weights)}


def find_marks(desk: Desk, last: Mapping[str, Any] | None = None) -> list[Mark]:
    """Return the marks that are known now.

    Args:
        desk: The desk's state.
        last: The session's latest Balance. If None, the max-min weights computed earlier for the bank, if any.
    """
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
    """Return the mark of the even mixture, or None without a bank or a scale."""
    names = expected.engine.policy_set.names
    rewards = expected_rewards(expected, dict.fromkeys(names, 1 / len(names)))
    return Mark("Even", rewards, "expected of all policies alike") if rewards else None


def balance_mark(expected: Expected) -> Mark | None:
    """Return the mark of the max-min weights if they have been computed for the current bank, else None."""
    solution = expected.known(BY_REWARDS)
    if solution is None:
        return None
    rewards = expected_rewards(expected, solution.weights)
    return Mark("Balance", rewards, f"expected at {in_words(solution.weights)}") if rewards else None


def expected_rewards(expected: Expected, weights: Mapping[str, float]) -> dict[str, float] | None:
    """Return the expected rewards at these weights in σ from the reference; None without a bank or a scale."""
    if expected.bank is None:
        return None
    try:
        return expected.outcome(weights, search=False).rewards
    except InputError:  # not calibrated yet
        return None


def soup_mark(desk: Desk) -> Mark | None:
    """Return the even soup's mean rewards from this configuration's newest comparison that has one, else None."""
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
    """Return whether a mixture is a soup of exactly these policies with equal weights and gain 1."""
    weights = {name: weight for name, weight in mixture.weights.items() if weight}
    even = 1 / len(policies)
    return (
        mixture.averages_adapters
        and mixture.gain == 1
        and set(weights) == policies
        and all(abs(weight - even) < 1e-6 for weight in weights.values())
    )


def marks_legend(marks: list[Mark]) -> str:
    """Return the legend as HTML, with each mark's rewards as its tooltip and as text for screen readers."""
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
