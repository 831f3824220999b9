"""Plotly figures of the attainable expected rewards over all mixture weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.charts.marks import SHAPES, Mark
from app.charts.radar import plot_text, styled
from app.palette import GRID, TEXT
from engine.solvers import bsmd, mpo
from engine.solvers.pareto import Front, undominated

DOMINATED, GUESSED = "#a1a1aa", "#c8c8ce"
WAY = "#7c5cf5"
MARK = "#e5484d"  # read on white and on black; what tells marks apart is their shape
# Where a solver arrives, and the dash of its way there.
PATHS = {mpo.SOLVER.name: ("#18181b", "solid", "diamond"), bsmd.SOLVER.name: (WAY, "dot", "hexagon")}
AXIS = {"gridcolor": GRID, "linecolor": GRID, "ticks": "", "tickfont": {"size": 11}}


def ternary(front: Front, policies: Sequence[str], colours: Sequence[str], objectives: Sequence[str]) -> go.Figure:
    """Return the ternary plot of three policies, in which each point's position is its weights."""
    figure = go.Figure()
    for name, rows, look in groups(front, policies, colours):
        figure.add_trace(
            go.Scatterternary(
                **{axis: front.weights[rows, i] for i, axis in enumerate("abc")},
                mode="markers", marker={**look, "size": look["size"] + 2}, name=name,
                **point_hover(front, rows, policies, objectives),
            )
        )  # fmt: skip
    axes = {
        f"{axis}axis": {
            "title": {"text": label(name, colour)},
            "gridcolor": GRID,
            "linecolor": GRID,
            "tickvals": [0.2, 0.4, 0.6, 0.8],
            "tickformat": ".0%",
        }
        for axis, name, colour in zip("abc", policies, colours, strict=True)
    }
    figure.update_layout(ternary={"bgcolor": "rgba(0,0,0,0)", **axes})
    return finished(figure, policies, objectives, {"l": 80, "r": 80, "t": 50, "b": 50})


def parallel(
    front: Front,
    policies: Sequence[str],
    colours: Sequence[str],
    objectives: Sequence[str],
    marks: Sequence[Mark] = (),
) -> go.Figure:
    """Return the parallel-coordinates plot: one axis per objective, one line per weight vector."""
    figure, size = go.Figure(), len(objectives)
    for name, rows, look in groups(front, policies, colours):
        # One trace for all lines of a look: what is None parts them.
        heights = np.column_stack([front.rewards[rows].round(3).astype(object), np.full(len(rows), None)])
        figure.add_trace(
            go.Scatter(
                x=[*range(size), None] * len(rows), y=heights.ravel().tolist(), mode="lines+markers", name=name,
                line={"color": look["color"], "width": 1}, opacity=look["opacity"] / 2,
                marker={"size": 4, "color": look["color"], "symbol": look["symbol"]},
                **point_hover(front, np.repeat(rows, size + 1), policies, objectives),
            )
        )  # fmt: skip
    for mark in marks:
        figure.add_trace(mark_trace(mark, list(range(size)), [mark.rewards.get(name) for name in objectives], True))
    figure.update_xaxes(
        tickvals=list(range(size)), ticktext=[plot_text(name) for name in objectives], range=[-0.2, size - 0.8],
        **{**AXIS, "gridcolor": "rgba(128,128,128,0.6)", "zeroline": False, "tickfont": {"size": 13}},
    )  # fmt: skip
    figure.update_yaxes(
        **AXIS, zerolinecolor=TEXT, title={"text": "expected reward, σ from the reference", "font": {"size": 12}}
    )
    return finished(figure, policies, objectives, {"l": 50, "t": 10})


def scatter(
    front: Front,
    policies: Sequence[str],
    colours: Sequence[str],
    objectives: Sequence[str],
    paths: Mapping[str, np.ndarray],
    marks: Sequence[Mark] = (),
) -> go.Figure:
    """Return the scatter plots of every pair of objectives: a matrix of panels, or one panel for two objectives.

    Args:
        front: Expected rewards over the weights.
        policies: Names, in the order of the weights' columns.
        colours: One accent colour per policy.
        objectives: Names, in the order of the rewards' columns.
        paths: {solver: rewards [steps, R] along its path, with those of its solution in the last row}.
        marks: Reference points to add.
    """
    size = len(objectives) - 1
    figure = make_subplots(
        rows=size, cols=size, shared_xaxes="columns", shared_yaxes="rows",
        specs=[[{} if column <= row else None for column in range(size)] for row in range(size)],
        horizontal_spacing=0.03, vertical_spacing=0.03,
    )  # fmt: skip
    for row in range(size):
        for column in range(row + 1):
            place: dict[str, Any] = {"row": row + 1, "col": column + 1}
            first = row == column == 0
            for name, rows, look in groups(front, policies, colours):
                figure.add_trace(
                    go.Scatter(
                        x=front.rewards[rows, column].round(3), y=front.rewards[rows, row + 1].round(3),
                        mode="markers", marker=look, name=name, legendgroup=name, showlegend=first,
                        **point_hover(front, rows, policies, objectives),
                    ),
                    **place,
                )  # fmt: skip
            figure.add_trace(edge(front.rewards[:, [column, row + 1]], front.reliable, first), **place)
            for name, way in reversed(list(paths.items())):
                figure.add_trace(path(name, way[:, [column, row + 1]], first), **place)
            for mark in marks:
                x, y = mark.rewards.get(objectives[column]), mark.rewards.get(objectives[row + 1])
                if x is not None and y is not None:
                    figure.add_trace(mark_trace(mark, [x], [y], first), **place)
    axes: dict[str, Any] = {**AXIS, "zerolinecolor": "rgba(128,128,128,0.7)"}
    figure.update_xaxes(**axes)
    figure.update_yaxes(**axes)
    for i in range(size):
        figure.update_xaxes(title={"text": plot_text(objectives[i]), "font": {"size": 13}}, row=size, col=i + 1)
        figure.update_yaxes(title={"text": plot_text(objectives[i + 1]), "font": {"size": 13}}, row=i + 1, col=1)
    finished(figure, policies, objectives, {"l": 54, "t": 10, "b": 44})
    return figure.update_layout(showlegend=True)


def edge(rewards: np.ndarray, reliable: np.ndarray, in_legend: bool) -> go.Scatter:
    """Return the front of two objectives alone, as a step line.

    Args:
        rewards: [L, 2].
        reliable: [L], True for the points that the line may pass through.
        in_legend: Whether the trace has a legend entry.
    """
    best = rewards[reliable][undominated(rewards[reliable])]
    best = best[best[:, 0].argsort()].round(3)
    return go.Scatter(
        x=best[:, 0], y=best[:, 1], mode="lines", name="front of these two", legendgroup="edge", showlegend=in_legend,
        hoverinfo="skip", line={"color": TEXT, "width": 1.5, "shape": "hv"},
    )  # fmt: skip


def path(name: str, way: np.ndarray, in_legend: bool) -> go.Scatter:
    """Return a solver's path, with a symbol at its solution.

    Args:
        name: A key of `SOLVERS`.
        way: Rewards [steps, 2], with those of the solution in the last row.
        in_legend: Whether the trace has a legend entry.
    """
    colour, dash, symbol = PATHS[name]
    count = len(way)
    # What is None parts the mark from the way: some solvers give an average of it.
    x, y = ([*way[:-1, axis].round(3).tolist(), None, round(float(way[-1, axis]), 3)] for axis in (0, 1))
    return go.Scatter(
        x=x, y=y, mode="lines+markers", name=f"way of {name}", legendgroup=name,
        showlegend=in_legend, hoverinfo="skip", line={"color": WAY, "width": 2, "dash": dash},
        marker={
            "color": [WAY] * count + [colour],
            "symbol": ["circle"] * count + [symbol],
            "size": [1] * count + [12],
            "line": {"color": "#ffffff", "width": [0] * count + [1.5]},
            "opacity": 1,
        },
    )  # fmt: skip


def mark_trace(mark: Mark, x: Sequence[float], y: Sequence[float | None], in_legend: bool) -> go.Scatter:
    """Return the trace of a reference point, with the shape that it has on the radar."""
    symbol, _ = SHAPES[mark.name]
    solid = not symbol.endswith("open")
    return go.Scatter(
        x=list(x), y=[None if value is None else round(value, 3) for value in y], mode="markers", name=mark.name,
        legendgroup=f"mark {mark.name}", showlegend=in_legend, hoverinfo="skip",
        marker={
            "symbol": symbol, "size": 16 if solid else 12, "color": MARK, "opacity": 1,
            "line": {"color": "#ffffff" if solid else MARK, "width": 1.5 if solid else 2.5},
        },
    )  # fmt: skip


def groups(
    front: Front, policies: Sequence[str], colours: Sequence[str]
) -> list[tuple[str, np.ndarray, dict[str, Any]]]:
    """Return [(name, row indices, marker)] in drawing order.

    Efficient points come last, on top, in the colour of their heaviest policy. Empty groups are left out.
    """
    heaviest = front.weights.argmax(1)
    rest = [
        (
            "few responses count",
            ~front.reliable,
            {"color": GUESSED, "size": 4, "symbol": "x-thin-open", "opacity": 0.6},
        ),
        (
            "others are better in all",
            front.reliable & ~front.efficient,
            {"color": DOMINATED, "size": 4, "symbol": "circle", "opacity": 0.3},
        ),
    ]
    best = [
        (
            f"mostly {plot_text(name)}",
            front.efficient & (heaviest == i),
            {"color": colours[i], "size": 5, "symbol": "circle", "opacity": 0.7},
        )
        for i, name in enumerate(policies)
    ]
    return [(name, np.flatnonzero(mask), look) for name, mask, look in (*rest, *best) if mask.any()]


def point_hover(front: Front, rows: np.ndarray, policies: Sequence[str], objectives: Sequence[str]) -> dict[str, Any]:
    """Return the trace keywords that attach weights, rewards and bank share to each point and display them on hover."""
    data = np.column_stack([front.weights, front.rewards, front.ess_fraction])[rows]
    lines = [f"{plot_text(name)} %{{customdata[{i}]:.0%}}" for i, name in enumerate(policies)]
    lines.append("")
    places = enumerate(objectives, len(policies))
    lines += [f"{plot_text(name)} %{{customdata[{i}]:+.2f}}σ" for i, name in places]
    lines.append(f"%{{customdata[{len(policies) + len(objectives)}]:.0%}} of the bank counts")
    return {
        "customdata": data.round(3).tolist(),
        "hovertemplate": "<br>".join(lines) + "<extra></extra>",
        "meta": {"efficient": bool(front.efficient[rows].all())},
    }


def label(name: str, colour: str) -> str:
    """Return an axis title as HTML: a dot in the policy's colour and its escaped name."""
    return f'<span style="color:{colour}">●</span> {plot_text(name)}'


def finished(
    figure: go.Figure, policies: Sequence[str], objectives: Sequence[str], margin: dict[str, int]
) -> go.Figure:
    """Apply the common layout, and store the names of a point's numbers in the figure's metadata for the script."""
    names = {"policies": [*map(plot_text, policies)], "rewards": [*map(plot_text, objectives)]}
    legend = {"x": 1, "y": 1, "xanchor": "right", "yanchor": "top", "font": {"size": 12, "color": TEXT}}
    styled(figure).update_layout(
        height=600, margin={"l": 40, "r": 16, "t": 20, "b": 40, **margin},
        meta={"policies": len(policies), "names": names},
        hovermode="closest", legend={**legend, "bgcolor": "rgba(0,0,0,0)", "itemsizing": "constant"},
    )  # fmt: skip
    return figure.update_layout(
        hoverlabel={"bgcolor": "#27272a", "bordercolor": "#27272a", "font": {"color": "#fafafa"}}
    )
