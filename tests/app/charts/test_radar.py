from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from app import palette
from app.charts import radar as radar_chart
from app.charts.plotly_component import plotted
from app.charts.radar import SideRewards

OBJECTIVES = ["helpful", "harmless", "humorous", "concise"]
COLOURS = [palette.colour(i) for i in range(4)]


def sides() -> dict[str, SideRewards]:
    raw = {"helpful": 12.5, "harmless": -1.0, "humorous": 0.0, "concise": -40.0}
    standard = {"helpful": 1.5, "harmless": -0.5, "humorous": 0.0, "concise": -9.0}
    return {"Left": SideRewards(raw, standard), "Right": SideRewards(raw, dict.fromkeys(raw, 7.0))}


def radar(objectives: Sequence[str], colours: Sequence[str], sides: Mapping[str, SideRewards]) -> go.Figure:
    """What the page gets; plotly refuses what plotly.js would not know."""
    return go.Figure(json.loads(plotted(radar_chart.radar(objectives, colours, sides))))


def test_the_radar_has_a_line_a_side_and_the_references_ring():
    figure = radar(OBJECTIVES, COLOURS, sides())
    ring, left, right = figure.data
    assert ring.name == "reference" and "reference" in ring.text and set(ring.r) == {0.0}
    assert (left.name, right.name) == ("Left", "Right")
    assert left.line.dash != right.line.dash and left.line.color != right.line.color
    assert list(left.r) == [1.5, -0.5, 0.0, -radar_chart.REACH, 1.5], "closed, and clipped"
    assert set(right.r) == {radar_chart.REACH}
    assert "12.50" in left.text[0] and "+1.5σ" in left.text[0], "the hover shows the raw reward"


def test_axis_labels_carry_the_objectives_colours():
    axis = radar(OBJECTIVES, COLOURS, {}).layout.polar.angularaxis
    assert [colour in label for colour, label in zip(COLOURS, axis.ticktext, strict=True)] == [True] * 4
    assert all(0 <= angle < 360 for angle in axis.tickvals)


def test_without_responses_there_is_the_ring_alone():
    assert [trace.name for trace in radar(OBJECTIVES, COLOURS, {}).data] == ["reference"]


def test_few_objectives_are_bars():
    for objectives in ([], ["helpful"], ["helpful", "concise"]):
        figure = radar(objectives, COLOURS[: len(objectives)], sides())
        assert all(trace.type == "bar" for trace in figure.data)


def test_names_are_text():
    name = '<img src=x onerror="alert(1)">'
    rewards = {"Left": SideRewards({name: 1.0, "b": 1.0, "c": 1.0}, {name: 1.0, "b": 1.0, "c": 1.0})}
    assert "<img" not in plotted(radar_chart.radar([name, "b", "c"], COLOURS[:3], rewards))


def test_colours_are_enough_for_any_number_of_objectives():
    assert len({palette.colour(i) for i in range(8)}) == 8
    assert palette.colour(1000) in palette.COLOURS


def test_a_long_name_is_broken_into_lines_of_the_label():
    names = ["helpful", "instruction-following", "factual accuracy of all the medical advice that is given"]
    layout = radar_chart.radar(names, COLOURS[:3], {})["layout"]
    labels = layout["polar"]["angularaxis"]["ticktext"]
    assert labels[0].endswith("> helpful")
    for label in labels:
        *_, text = label.split("</span> ")
        lines = text.split("<br>")
        assert len(lines) <= radar_chart.LABEL_LINES
        assert all(len(line) <= radar_chart.LABEL_WIDTH + 1 for line in lines)
    assert labels[1].replace("<br>", "").endswith("instruction-following"), "nothing is left out where there is room"
    assert labels[2].endswith("…")
    short = radar_chart.radar(OBJECTIVES, COLOURS, {})["layout"]
    assert layout["margin"]["t"] > short["margin"]["t"] == 30
    assert all("<br>" not in label for label in short["polar"]["angularaxis"]["ticktext"])


def test_quotes_are_no_entities():
    names = ['says "no"', "it's", "c & d"]
    for few in (names, names[:2]):
        shown = json.dumps(radar_chart.radar(few, COLOURS[: len(few)], {}))
        assert "&quot;" not in shown and "&#x27;" not in shown
    assert "c &amp; d" in json.dumps(radar_chart.radar(names, COLOURS[:3], {}))
