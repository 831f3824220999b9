"""Radar and bar charts of rewards, as figures for plotly.js."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Any

import plotly.graph_objects as go

from app.palette import EXPECTED, GRID, GUESS, LINES, TEXT

REACH = 3.0  # the radar ends at this many standard deviations from the reference


@dataclass(frozen=True)
class SideRewards:
    """The rewards of one panel: raw, and in standard deviations from the reference's mean."""

    raw: Mapping[str, float]
    standard: Mapping[str, float]


def radar(objectives: Sequence[str], colours: Sequence[str], sides: Mapping[str, SideRewards]) -> dict[str, Any]:
    """Return the radar as plotly.js takes it: one axis per objective, one line per panel (`LINES`), clipped to ±REACH.

    A dashed ring marks the reference. Fewer than three objectives span no area and are drawn as bars. The figure is a
    plain dict because plotly's own class would validate it again at the end of each response, while the text of all
    other responses waits.
    """
    if len(objectives) < 3:
        return {"data": bars(objectives, sides), "layout": bars_layout(tuple(objectives))}
    angles = angles_of(objectives)
    ring = list(range(90, 451, 5))
    reference = {
        "type": "scatterpolar",
        "r": [0.0] * len(ring),
        "theta": ring,
        "mode": "lines+text",
        "text": ["reference", *[""] * (len(ring) - 1)],
        "textposition": "top center",
        "textfont": {"size": 11},
        "line": {"color": TEXT, "width": 1.5, "dash": "dash"},
        "name": "reference",
        "hoverinfo": "skip",
    }
    traces = [reference]
    for side, rewards in sides.items():
        line, known = LINES[side], [name for name in objectives if name in rewards.standard]
        at = [angles[objectives.index(name)] for name in known]
        reach = [max(-REACH, min(REACH, rewards.standard[name])) for name in known]
        detail = [radar_hover(side, name, rewards) for name in known]
        traces.append(
            {
                "type": "scatterpolar",
                "r": [*reach, *reach[:1]],
                "theta": [*at, *at[:1]],
                "mode": "lines+markers",
                "fill": "toself",
                "fillcolor": line.fill,
                "line": {"color": line.colour, "width": 2.5, "dash": line.dash},
                "marker": {"symbol": line.symbol, "size": 8, "color": line.colour},
                "name": side,
                "text": [*detail, *detail[:1]],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    return {"data": traces, "layout": radar_layout(tuple(objectives), tuple(colours))}


@lru_cache
def radar_layout(objectives: tuple[str, ...], colours: tuple[str, ...]) -> dict[str, Any]:
    """Return the radar's layout; cached, since building it with plotly is slow."""
    labels = [
        f'<span style="color:{shade}">●</span> {escape(name)}' for name, shade in zip(objectives, colours, strict=True)
    ]
    figure = go.Figure().update_layout(
        polar={
            "bgcolor": "rgba(0,0,0,0)",
            "angularaxis": {
                "tickvals": angles_of(objectives),
                "ticktext": labels,
                "gridcolor": GRID,
                "linecolor": GRID,
                "ticks": "outside",
                "ticklen": 8,
                "tickcolor": "rgba(0,0,0,0)",
                "tickfont": {"size": 13},
            },
            # One ring a standard deviation; the ring at 0 is the reference's own.
            "radialaxis": {
                "range": [-REACH - 0.4, REACH],
                "tickvals": [-2, -1, 1, 2, 3],
                "showticklabels": False,
                "gridcolor": GRID,
                "showline": False,
                "ticks": "",
            },
        },
    )
    return plot_layout(figure)


def angles_of(objectives: Sequence[str]) -> list[float]:
    """Return the angle of each axis in degrees.

    No axis is horizontal, so that labels stand above or below the plot, where there is room. A configuration without
    rewards has no axes.
    """
    if not objectives:
        return []
    first = 90 + (180 / len(objectives) if len(objectives) % 4 == 0 else 0)
    return [(first - 360 * i / len(objectives)) % 360 for i in range(len(objectives))]


def expected(
    objectives: Sequence[str], rewards: SideRewards, errors: Mapping[str, float], reliable: bool
) -> dict[str, Any]:
    """Return the trace of the expected rewards, to be drawn under the others; grey if the estimate is unreliable."""
    line = EXPECTED if reliable else GUESS
    known = [name for name in objectives if name in rewards.standard]
    reach = [max(-REACH, min(REACH, rewards.standard[name])) for name in known]
    detail = [f"{radar_hover('Expected', name, rewards)} (± {errors[name]:.1f})" for name in known]
    common = {"name": "Expected", "hovertemplate": "%{text}<extra></extra>"}
    if len(objectives) < 3:
        bar = {"type": "bar", "x": [escape(name) for name in known], "y": reach, "textposition": "none"}
        outline = {"color": line.fill, "line": {"color": line.colour, "width": 1}}
        return {**common, **bar, "text": detail, "marker": outline}
    every = angles_of(objectives)
    angles = [every[objectives.index(name)] for name in known]
    return {
        **common,
        "type": "scatterpolar",
        "r": [*reach, *reach[:1]],
        "theta": [*angles, *angles[:1]],
        "mode": "lines+markers",
        "fill": "toself",
        "fillcolor": line.fill,
        "line": {"color": line.colour, "width": 2, "dash": line.dash},
        "marker": {"symbol": line.symbol, "size": 5, "color": line.colour},
        "text": [*detail, *detail[:1]],
    }


def bars(objectives: Sequence[str], sides: Mapping[str, SideRewards]) -> list[dict[str, Any]]:
    """Return one bar trace per panel, clipped to ±REACH."""
    traces = []
    for side, rewards in sides.items():
        known = [name for name in objectives if name in rewards.standard]
        traces.append(
            {
                "type": "bar",
                "x": [escape(name) for name in known],
                "y": [max(-REACH, min(REACH, rewards.standard[name])) for name in known],
                "name": side,
                "marker": {"color": LINES[side].colour},
                "text": [radar_hover(side, name, rewards) for name in known],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    return traces


@lru_cache
def bars_layout(objectives: tuple[str, ...]) -> dict[str, Any]:
    """Return the layout of the bars; cached."""
    figure = go.Figure()
    figure.update_xaxes(categoryorder="array", categoryarray=[escape(name) for name in objectives])
    figure.update_yaxes(range=[-REACH, REACH], gridcolor=GRID, zerolinecolor=TEXT, title="σ from the reference")
    return plot_layout(figure)


def radar_hover(side: str, objective: str, rewards: SideRewards) -> str:
    """Return the hover text of one reward."""
    return (
        f"{side}, {escape(objective)}<br>reward {rewards.raw[objective]:.2f}"
        f"<br>{rewards.standard[objective]:+.1f}σ from the reference"
    )


def plot_layout(figure: go.Figure) -> dict[str, Any]:
    """Return the figure's styled layout as plotly.js takes it."""
    return json.loads(styled(figure).to_json())["layout"]


def styled(figure: go.Figure) -> go.Figure:
    """Apply the page's font, margins and transparent background to a figure and return it."""
    return figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT, "family": "system-ui, sans-serif"},
        margin={"l": 64, "r": 64, "t": 30, "b": 30},
        height=330,
        showlegend=False,
        dragmode=False,
    )
