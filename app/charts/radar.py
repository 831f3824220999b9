"""Radar and bar charts of rewards, as figures for plotly.js."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from math import ceil
from typing import Any

import plotly.graph_objects as go

from app.palette import EXPECTED, GRID, GUESS, LINES, TEXT

# What of a label fits beside the radar where it is narrowest, in average characters; and lines above or below it.
LABEL_WIDTH, LABEL_LINES = 9.0, 4
LABEL_SIZE, SMALL_LABEL_SIZE, LINE_HEIGHT = 13, 11, 15  # pixels
SIDE_ROOM = 76  # pixels beside a radar for a line of `LABEL_WIDTH`
BAR_LABEL_WIDTH = 13.0
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
    figure = go.Figure().update_layout(
        polar={
            "bgcolor": "rgba(0,0,0,0)",
            "angularaxis": {
                "tickvals": angles_of(objectives),
                **axis_labels(objectives, colours),
                "gridcolor": GRID,
                "linecolor": GRID,
                "ticks": "outside",
                "ticklen": 8,
                "tickcolor": "rgba(0,0,0,0)",
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
    return json.loads(with_label_room(styled(figure), objectives).to_json())["layout"]


def axis_labels(objectives: Sequence[str], colours: Sequence[str]) -> dict[str, Any]:
    """Return the labels of a radar's axes and their font, as properties of its angular axis."""
    lines = [label_lines(name, LABEL_WIDTH) for name in objectives]
    small = any(len(of_name) > 1 for of_name in lines)
    return {
        "ticktext": [
            f'<span style="color:{colour}">●</span> {"<br>".join(map(plot_text, of_name))}'
            for of_name, colour in zip(lines, colours, strict=True)
        ],
        "tickfont": {"size": SMALL_LABEL_SIZE if small else LABEL_SIZE},
    }


def with_label_room(figure: go.Figure, objectives: Sequence[str]) -> go.Figure:
    """Make room for `axis_labels` around a radar and return it."""
    more = LINE_HEIGHT * (max((len(label_lines(name, LABEL_WIDTH)) for name in objectives), default=1) - 1)
    margin = figure.layout.margin
    # An axis that points sideways has its whole label beside the circle.
    sides = max(margin.l, SIDE_ROOM) if more else margin.l
    return figure.update_layout(margin={"t": margin.t + more, "b": margin.b + more, "l": sides, "r": sides})


def label_lines(name: str, width: float) -> list[str]:
    """Return a name in lines for the label of an axis, broken after spaces and punctuation where that is possible.

    Args:
        name: The name; what exceeds `LABEL_LINES` lines is replaced by "…".
        width: Greatest width of a line, in average characters.
    """
    if text_width(name) <= width:
        return [name]
    lines = [""]
    for part in re.findall(r"[^\s_/.:-]*[\s_/.:-]*", name):
        if text_width(lines[-1] + part.rstrip()) <= width:
            lines[-1] += part
            continue
        if lines[-1]:
            lines.append("")
        # A word that fits no line is broken into equal pieces.
        size = ceil(len(part) / ceil(text_width(part.rstrip()) / width))
        pieces = [part[i : i + size] for i in range(0, len(part), size)]
        lines = [*lines[:-1], *pieces]
    lines = [line.strip() for line in lines if line.strip()]
    if len(lines) > LABEL_LINES:
        lines = [*lines[: LABEL_LINES - 1], f"{lines[LABEL_LINES - 1]}…"]
    return lines


def text_width(text: str) -> float:
    """Return about how wide a text is, in average characters."""

    def width(character: str) -> float:
        if unicodedata.east_asian_width(character) in "WF":
            return 2.0
        if character in "fijlrt'.,:;!|()[] ":
            return 0.6
        return 1.4 if character.isupper() or character in "mw@%" else 1.0

    return sum(map(width, text))


def plot_text(text: str) -> str:
    """Return a text for plotly, which reads a kind of HTML, without the entities for quotes."""
    return escape(text, quote=False)


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
        bar = {"type": "bar", "x": [plot_text(name) for name in known], "y": reach, "textposition": "none"}
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
                "x": [plot_text(name) for name in known],
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
    names = [plot_text(name) for name in objectives]
    labels = ["<br>".join(map(plot_text, label_lines(name, BAR_LABEL_WIDTH))) for name in objectives]
    figure.update_xaxes(
        categoryorder="array", categoryarray=names, tickvals=names, ticktext=labels, tickangle=0, automargin="height"
    )
    figure.update_yaxes(range=[-REACH, REACH], gridcolor=GRID, zerolinecolor=TEXT, title="σ from the reference")
    return plot_layout(figure)


def radar_hover(side: str, objective: str, rewards: SideRewards) -> str:
    """Return the hover text of one reward."""
    return (
        f"{side}, {plot_text(objective)}<br>reward {rewards.raw[objective]:.2f}"
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
