"""Figures of what can be had."""

from __future__ import annotations

import json

import numpy as np
import pytest

from app import palette
from app.charts import pareto
from app.charts import radar as radar_chart
from app.services.bank_service import Reading
from app.ui.balance import balance_sentence, status_line
from engine.solvers.pareto import Front, simplex, undominated
from engine.solvers.solution import Solution

NAMES = ["helpful", "harmless", "humorous", "concise"]


def made(policies: int, objectives: int) -> Front:
    """Of the first rewards, all efficient but number 0, which is beaten, and number 1, which is not sound."""
    weights = simplex(policies, 60)
    rewards = np.random.default_rng(0).normal(size=(len(weights), objectives))
    reliable, efficient = np.ones((2, len(weights)), dtype=bool)
    reliable[1] = efficient[1] = efficient[0] = False
    return Front(weights, rewards, np.where(reliable, 0.5, 0.01), reliable, efficient)


def colours(count: int) -> list[str]:
    return [palette.colour(i) for i in range(count)]


def test_the_simplex_is_covered_evenly_with_its_corners() -> None:
    for size in (1, 2, 3, 4, 7):
        points = simplex(size, 500)
        assert len(points) <= 500 and len(np.unique(points, axis=0)) == len(points)
        assert points.sum(1) == pytest.approx(1) and points.min() >= 0
        assert all((points == corner).all(1).any() for corner in np.eye(size))
    assert len(simplex(3, 500)) > 400


def test_what_is_undominated() -> None:
    rewards = np.array([[1.0, 1], [2, 0], [0, 2], [0.5, 0.5], [1, 1], [1, 0]])
    assert undominated(rewards).tolist() == [True, True, True, False, True, False]


def test_every_pair_has_its_panel_with_all_points() -> None:
    front = made(4, 4)
    way = np.arange(12.0).reshape(3, 4)
    figure = pareto.scatter(front, NAMES, colours(4), NAMES, {"mpo": way})
    panels: dict = {}
    for trace in figure.data:
        panels.setdefault((trace.xaxis, trace.yaxis), []).append(trace)
    assert len(panels) == 6
    for traces in panels.values():
        points = [trace for trace in traces if trace.customdata is not None]
        assert sum(len(trace.x) for trace in points) == len(front.weights)
        path = next(trace for trace in traces if trace.name == "way of mpo")
        assert path.x[-2] is None and path.x[-1] == path.x[-3] + 4, "the star stands apart from the way"
    first = figure.data[0]
    assert first.name == "few responses count" and first.marker.color == pareto.GUESSED
    assert np.array(first.customdata)[0, :4] == pytest.approx(front.weights[1], abs=1e-3)
    assert figure.layout.meta["policies"] == 4
    of_two = pareto.scatter(made(2, 2), NAMES[:2], colours(2), NAMES[:2], {})
    assert {(trace.xaxis, trace.yaxis) for trace in of_two.data} == {("x", "y")}


def test_efficient_points_have_the_colour_of_their_heaviest_policy() -> None:
    front = made(3, 3)
    figure = pareto.ternary(front, NAMES[:3], colours(3), NAMES[:3])
    by_name = {trace.name: trace for trace in figure.data}
    for i, name in enumerate(NAMES[:3]):
        trace = by_name[f"mostly {name}"]
        assert trace.marker.color == palette.colour(i)
        weights = np.array([trace.a, trace.b, trace.c]).T
        assert (weights.argmax(1) == i).all()
    assert len(by_name["others are better in all"].a) == len(by_name["few responses count"].a) == 1


def test_parallel_lines_are_parted() -> None:
    front = made(4, 4)
    figure = pareto.parallel(front, NAMES, colours(4), NAMES)
    assert sum(len(trace.x) for trace in figure.data) == 5 * len(front.weights)
    for trace in figure.data:
        assert all(height is None for height in trace.y[4::5]) and None not in trace.y[:4]
        assert len(trace.customdata) == len(trace.x)


def test_names_are_text() -> None:
    evil = ['<img src=x onerror="alert(1)">', "b", "c"]
    front = made(3, 3)
    for kind in (pareto.ternary, pareto.parallel):
        assert "<img" not in json.dumps(kind(front, evil, colours(3), evil).to_plotly_json(), default=list)
    pairs = pareto.scatter(front, evil, colours(3), evil, {}).to_plotly_json()
    assert "<img" not in json.dumps(pairs, default=list)
    reading = Reading("<img src=x>", dict.fromkeys(evil, 1.0), dict.fromkeys(evil, 1.0), dict.fromkeys(evil, 0.1))
    # The page finds handles by these names, and shows none of them.
    assert "<img" not in json.dumps({**status_line(evil, reading), "standard": {}})


def test_the_expected_polygon_lies_as_the_radars_do_and_is_grey_where_it_is_a_guess() -> None:
    standard = {"helpful": 1.5, "harmless": -0.5, "humorous": 0.0, "concise": -9.0}
    rewards = radar_chart.SideRewards(standard, standard)
    errors = dict.fromkeys(NAMES, 0.1)
    reliable, guess = (radar_chart.expected(NAMES, rewards, errors, known) for known in (True, False))
    side = radar_chart.radar(NAMES, colours(4), {"Left": rewards})["data"][1]
    assert (reliable["r"], reliable["theta"]) == (side["r"], side["theta"])
    assert reliable["name"] == "Expected" and reliable["line"]["dash"] == "dot" and "± 0.1" in reliable["text"][0]
    assert guess["line"]["color"] == palette.GUESS.colour != reliable["line"]["color"]
    two = radar_chart.expected(NAMES[:2], rewards, errors, True)
    assert (two["type"], two["y"]) == ("bar", [1.5, -0.5])


def test_nothing_to_show_is_a_line_alone() -> None:
    assert status_line(NAMES, Reading("No bank.")) == {"line": "No bank.", "traces": [], "standard": {}}


def test_the_sentence_of_balance() -> None:
    weights = {"helpful": 0.37, "concise": 0.6, "humorous": 0.03}
    solution = Solution("mpo", weights, dict.fromkeys(weights, 0.029), -2.0, 0.1, 0.4, 1e-9, 10, [])
    assert balance_sentence(solution) == (
        "Balanced: by the policies’ own rewards, the one that gains least gains all it can — "
        "concise 60%, helpful 37%, humorous 3% "
        "(± 3%)."
    )
