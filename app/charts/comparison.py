"""Rendering of a comparison: win rates as HTML, mean rewards as a radar, and plain values for the table's script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from types import MappingProxyType
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.charts import radar as radar_chart
from app.charts.radar import plot_text, styled, with_label_room
from app.format import how_made, signed
from app.html import message
from app.palette import GRID, TEXT
from app.services.comparison_jobs import ComparisonJob
from app.storage.comparisons import ComparisonAnswers, Plan
from engine import Completion, Mixture, Sampling
from engine.config import REFERENCE
from engine.evaluation.comparison import Summary
from engine.rewards.missing import missing_counts, missing_line

# Mixtures that are not one policy: told from objectives' accents by their dashes as well.
MIXED = ("#7c5cf5", "#8a5a2b", "#4d7c0f", "#be185d", "#0f766e", "#475569")
DASHES = ("solid", "dot", "dashdot", "longdash", "longdashdot", "dash")
REFERENCE_COLOUR = "#8b8b96"
NAMED = 8  # prompts that a message names by number
ENOUGH = 10  # prompts: a bootstrap over fewer makes intervals that are too narrow


@dataclass(frozen=True)
class Look:
    """A mixture's line style, shared by the table, the radar and the legend."""

    name: str
    colour: str
    dash: str


def looks(mixtures: Mapping[str, Mixture], accents: Mapping[str, str]) -> list[Look]:
    """Return one line style per mixture, in the mixtures' order.

    Args:
        mixtures: {name: mixture}.
        accents: {policy: its objective's colour}. A mixture of that policy alone, at gain 1, gets the same colour.
    """
    found: list[Look] = []
    spare = zip(MIXED, DASHES, strict=True)
    for name, mixture in mixtures.items():
        alone = next((policy for policy, weight in mixture.weights.items() if weight == mixture.gain == 1), None)
        if alone == REFERENCE:
            found.append(Look(name, REFERENCE_COLOUR, "dash"))
        elif alone is not None and alone in accents:
            found.append(Look(name, accents[alone], "solid"))
        else:
            found.append(Look(name, *next(spare)))
    return found


def line(look: Look) -> str:
    """Return the style as a CSS `border` value, which has fewer kinds of dashes than plotly."""
    style = {"solid": "solid", "dash": "dashed", "longdash": "dashed", "longdashdot": "dashed"}.get(look.dash, "dotted")
    return f"3px {style} {look.colour}"


def heading(comparison: int, plan: Plan) -> str:
    """Return the heading of a comparison, with its settings and its export links, as HTML."""
    sampling = plan.sampling
    said = (
        f"{plan.source} · {len(plan.prompts)} prompts · temperature {sampling.temperature:g} · up to "
        f"{sampling.max_new_tokens} tokens · seed {plan.seed} · {plan.model}"
    )
    links = "".join(
        f'<a href="comparisons/{comparison}.{form}" download>{label}</a>'
        for form, label in (("csv", "CSV"), ("jsonl", "JSONL"), ("parquet", "Parquet"))
    )
    return f'<h2>Comparison {comparison}</h2><p class="hint">{escape(said)}</p><p class="exports">Export {links}</p>'


def progress_of(job: ComparisonJob) -> str:
    """Return the progress of a running comparison as HTML."""
    return progress(job.done, job.wanted, job.seconds_left, job.mended, len(job.unscored))


def progress(done: int, wanted: int, seconds_left: float | None, mended: int = 0, unscored: int = 0) -> str:
    """Return the progress line and bar as HTML.

    Args:
        done: Prompts answered.
        wanted: Prompts in total.
        seconds_left: Estimate of the remaining time, or None if it is unknown.
        mended: Responses out of `unscored` that have been scored again.
        unscored: Responses that lacked a reward when the run began.
    """
    left = "" if seconds_left is None else f", about {duration(seconds_left)} left"
    again = f" {mended} of {unscored} responses with missing rewards scored again." if unscored else ""
    return (
        f'<p class="hint" role="status">{done} of {wanted} prompts answered{left}.{again}</p>'
        f'<progress max="{wanted}" value="{done}" aria-label="Prompts answered"></progress>'
    )


def interrupted(
    answered: int,
    plan: Plan,
    failure: str | None,
    missing: Mapping[tuple[int, int], Mapping[str, str]] = MappingProxyType({}),
) -> str:
    """Return a message that states which answers and rewards a comparison lacks, and why; "" if it is complete.

    Args:
        answered: Number of prompts with answers from all mixtures.
        plan: The comparison's plan.
        failure: The error that ended the last run, if any.
        missing: As in `Answers`: {(prompt index, mixture index): {objective: reason}}.
    """
    rest = answered < len(plan.prompts)
    if not (rest or missing):
        return ""
    said = [f"{answered} of {len(plan.prompts)} prompts are answered."] if rest else []
    if failure:
        said.append(f"It ended because of an error: {failure}.")
    if missing:
        places = sorted({place + 1 for place, _ in missing})
        named = ", ".join(map(str, places[:NAMED])) + (
            f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
        )
        prompts = f"prompt {named}" if len(places) == 1 else f"prompts {named}"
        responses = "1 response" if len(missing) == 1 else f"{len(missing)} responses"
        said.append(
            f"{responses} to {prompts} {'lacks' if len(missing) == 1 else 'lack'} a reward: "
            f"{missing_line(missing_counts(missing.values()))}."
        )
    todo = ["continue with the rest"] if rest else []
    todo += ["compute the missing rewards again"] if missing else []
    said.append(f"Press Resume to {' and '.join(todo)}.")
    return message(" ".join(said), "bad" if failure or missing else "info")


def duration(seconds: float) -> str:
    """Format a duration in seconds as "40 s", "12 min" or "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def standard_rewards(answers: ComparisonAnswers) -> np.ndarray:
    """Return rewards [prompts, mixtures, objectives] in standard deviations from the reference's mean."""
    scale = np.array([*answers.plan.scale.values()], float).reshape(-1, 2)
    return (answers.rewards - scale[:, 0]) / scale[:, 1]


def win_table(summary: Summary, styles: Sequence[Look], objectives: Mapping[str, str]) -> str:
    """Return the table of win rates against the first mixture and of mean rewards, as HTML.

    Args:
        summary: Win rates, means and counts of the comparison.
        styles: One look per mixture; the first mixture is the opponent.
        objectives: {name: accent colour}.
    """
    if not objectives:
        return '<p class="hint">This configuration has no reward models: read the responses below.</p>'
    if not summary.counts.any():
        return '<p class="hint">Win rates come with the first prompt that all mixtures have answered.</p>'
    columns = [*objectives.items(), ("lowest of all", "var(--body-text-color)")]
    dot = '<span class="dot"></span>'
    counts = [*(int(count) for count in summary.counts), summary.prompts]
    most = max(counts)
    heads = "".join(
        f'<th scope="col" style="--accent:{colour}">{dot if name in objectives else ""}{escape(name)}'
        f"{'' if count == most else f'<small>{count} of {most} prompts</small>'}</th>"
        for (name, colour), count in zip(columns, counts, strict=True)
    )
    rows = ""
    for place, look in enumerate(styles):
        lowest = np.nanmin(summary.means[place])
        means = [f"{signed(mean)}σ" if np.isfinite(mean) else "–" for mean in (*summary.means[place], lowest)]
        cells = ""
        for i, (_, colour) in enumerate(columns):
            rate = (
                ""
                if place == 0 or not counts[i]
                else win_cell(summary.wins[place - 1, i], counts[i] >= ENOUGH, i < len(objectives))
            )
            cells += f'<td style="--accent:{colour}">{rate}<small>{means[i]}</small></td>'
        note = "<small>the one to win against</small>" if place == 0 else ""
        mark = f'<span class="line" style="border-top:{line(look)}"></span>'
        rows += f'<tr><th scope="row">{mark}{escape(look.name)}{note}</th>{cells}</tr>'
    counted = "1 prompt" if most == 1 else f"{most} prompts"
    fewer = "" if min(counts) == most else " Prompts of which a mixture lacks a reward are left out of it."
    intervals = (
        "Beside it, and as a bar, the 95% interval, by bootstrap over prompts; bold where it leaves out 50%."
        if most >= ENOUGH
        else f"95% intervals come with {ENOUGH} prompts."
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Win rates"><table class="wins"><thead><tr>'
        f'<th scope="col">Wins against {escape(styles[0].name)}</th>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        f'</div><p class="hint">Share of {counted} won, a tie being half a win. {intervals} Small: '
        f"the mean reward, in standard deviations (σ) from the reference’s.{fewer}</p>"
    )


def win_cell(win: np.ndarray, interval: bool, fair: bool) -> str:
    """Return one win rate as HTML.

    Args:
        win: [rate, low, high] as fractions; `low` and `high` bound the 95% interval.
        interval: Whether to show the interval.
        fair: Whether an equal opponent would win 50%. The lowest of several rates is below 50% by chance alone, so it
            is never bold.
    """
    rate, low, high = (100 * float(value) for value in win)
    if not interval:
        return f'<span class="rate">{rate:.0f}%</span>'
    sure = " sure" if fair and (low > 50 or high < 50) else ""
    return (
        f'<span class="rate{sure}">{rate:.0f}%</span><span class="interval">{low:.0f} to {high:.0f}</span>'
        f'<span class="track"><i style="left:{low:.1f}%;width:{max(high - low, 1):.1f}%"></i>'
        f'<b style="left:{rate:.1f}%"></b></span>'
    )


def comparison_radar(summary: Summary, styles: Sequence[Look], objectives: Mapping[str, str]) -> go.Figure | None:
    """Return the mean rewards with 95% bands, one line per mixture.

    Fewer than three objectives are drawn as bars. Objectives without a finite mean for every mixture are left out; the
    result is None if none is left.
    """
    # A reward that no prompt has of all mixtures is not drawn.
    known = np.asarray(np.isfinite(summary.means).all(0))
    objectives = {name: colour for (name, colour), there in zip(objectives.items(), known, strict=True) if there}
    names = list(objectives)
    if not names:
        return None
    summary = replace(summary, means=summary.means[:, known], errors=summary.errors[:, known])
    spread = 1.96 * np.nan_to_num(summary.errors)
    figure = go.Figure()
    if len(names) < 3:
        for look, means, errors in zip(styles, summary.means, spread, strict=True):
            figure.add_trace(
                go.Bar(
                    x=[plot_text(name) for name in names], y=means, name=plot_text(look.name),
                    marker={"color": look.colour},
                    error_y={"array": errors, "color": TEXT}, hovertemplate="%{y:+.2f}σ<extra>%{fullData.name}</extra>",
                )
            )  # fmt: skip
        figure.update_yaxes(gridcolor=GRID, zerolinecolor=TEXT, title="σ from the reference")
        return styled(figure)
    angles = radar_chart.angles_of(names)
    closed = [*angles, angles[0]]
    top = max(0.5, math.ceil(2 * float((summary.means + spread).max())) / 2)
    bottom = min(-0.5, math.floor(2 * float((summary.means - spread).min())) / 2)
    ring = list(range(0, 361, 5))
    figure.add_trace(
        go.Scatterpolar(
            r=[0] * len(ring), theta=ring, mode="lines", hoverinfo="skip",
            line={"color": TEXT, "width": 1.5, "dash": "dash"},
        )
    )  # fmt: skip
    for look, means, errors in zip(styles, summary.means, spread, strict=True):
        for edge, fill in ((means - errors, "none"), (means + errors, "tonext")):
            figure.add_trace(
                go.Scatterpolar(
                    r=[*edge, edge[0]], theta=closed, mode="lines", hoverinfo="skip", fill=fill,
                    fillcolor=faint(look.colour), line={"width": 0, "color": look.colour},
                )
            )  # fmt: skip
    for look, means, errors in zip(styles, summary.means, spread, strict=True):
        text = [
            f"{plot_text(look.name)}, {plot_text(name)}<br>{signed(mean)}σ ± {error:.2f}"
            for name, mean, error in zip(names, means, errors, strict=True)
        ]
        figure.add_trace(
            go.Scatterpolar(
                r=[*means, means[0]], theta=closed, mode="lines+markers", text=[*text, text[0]],
                hovertemplate="%{text}<extra></extra>", marker={"size": 5, "color": look.colour},
                line={"width": 2, "color": look.colour, "dash": look.dash},
            )
        )  # fmt: skip
    figure.update_layout(
        polar={
            "bgcolor": "rgba(0,0,0,0)",
            "angularaxis": {
                "tickvals": angles,
                **radar_chart.axis_labels(names, list(objectives.values())),
                "gridcolor": GRID, "linecolor": GRID, "ticks": "outside", "ticklen": 8,
                "tickcolor": "rgba(0,0,0,0)",
            },
            "radialaxis": {
                "range": [bottom - 0.4, top], "dtick": 0.5, "showticklabels": False, "gridcolor": GRID,
                "showline": False, "ticks": "",
            },
        }
    )  # fmt: skip
    return with_label_room(styled(figure), names)


def faint(colour: str) -> str:
    """Return a `#rrggbb` colour as a translucent `rgba()` value."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.13)"


def table_value(
    comparison: int, answers: ComparisonAnswers, styles: Sequence[Look], objectives: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values of the prompt table for its script, which inserts every string as text."""
    values = np.round(standard_rewards(answers), 3)
    shown = values.astype(object)
    shown[~np.isfinite(values)] = None
    return {
        "comparison": comparison,
        "objectives": [{"name": name, "colour": colour} for name, colour in objectives.items()],
        "mixtures": [{"name": look.name, "line": line(look)} for look in styles],
        "rows": [
            {"place": place, "prompt": prompt, "rewards": rewards, "texts": texts}
            for place, (prompt, rewards, texts) in enumerate(
                zip(answers.plan.prompts, shown.tolist(), answers.texts, strict=True)
            )
        ],
    }


def prompt_value(
    plan: Plan, place: int, rows: Sequence[Mapping[str, Any]], styles: Sequence[Look], objectives: Mapping[str, str]
) -> dict[str, Any]:
    """Return one prompt with all its responses for the dialog's script, which inserts every string as text."""
    by_name = {look.name: look for look in styles}
    return {
        "title": f"Prompt {place + 1} of {len(plan.prompts)}",
        "prompt": plan.prompts[place],
        "objectives": [{"name": name, "colour": colour} for name, colour in objectives.items()],
        "responses": [
            {
                "name": row["mixture_name"],
                "line": line(by_name[row["mixture_name"]]),
                "text": row["text"],
                "made": how_made(
                    Completion(
                        **{key: row[key] for key in ("prompt", "text", "tokens", "seed", "finish_reason")},
                        mixture=Mixture(**row["mixture"]), sampling=Sampling(**row["sampling"]), trace=[],
                    )
                ),
                "rewards": [
                    [row["rewards"][name], (row["rewards"][name] - plan.scale[name][0]) / plan.scale[name][1]]
                    if name in row["rewards"] and np.isfinite(plan.scale[name]).all()
                    else None
                    for name in objectives
                ],
                "missing": row["missing_rewards"],
            }
            for row in rows
        ],
    }  # fmt: skip
