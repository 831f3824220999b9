"""Whiskers, the leaderboard, people and influences as HTML: places on an axis, marks, and text that stays text."""

from __future__ import annotations

import math
import re

import pytest

from app.charts.influences import agreeing_table, controls_table
from app.charts.leaderboard import leaderboard_html
from app.charts.people_table import alpha_table, people_table
from app.charts.whiskers import Axis, axis_of, share, whisker
from app.services.results import Agreement, LeaderGroup, LeaderRow, Person
from app.services.vote_sources import GoldScore
from engine import Mixture
from engine.votes.annotators import AnnotatorReport
from engine.votes.intervals import UNKNOWN, Interval
from engine.votes.leaderboard import SystemRating

EVIL = '<img src=x onerror=alert("1")>'


def row(name: str, rank: int, ranks: tuple[int, int], mark: str = "", mixture: Mixture | None = None) -> LeaderRow:
    system = SystemRating(
        system=name, votes=10, wins=6, losses=3, ties=1, average_win_rate=0.65, component=0, newman=1.0,
        bradley_terry=0.5,
        rating=50.4, low=-20.0, high=120.0, rank=rank, rank_low=ranks[0], rank_high=ranks[1],
        provisional=ranks[0] < ranks[1] or bool(mark), best=0.004, mark=mark,
    )  # fmt: skip
    return LeaderRow(0, mixture, system, rank, Interval(50.4, -20.0, 120.0, 10))


def test_values_are_placed_on_the_axis() -> None:
    axis = Axis(-100, 100, (0.0,))
    assert [axis.place(value) for value in (-100, 0, 50, 900)] == [0, 50, 75, 100]
    drawn = whisker(axis, Interval(50, 0, 300))
    assert 'class="cut-high" style="left:50.00%;width:50.00%"' in drawn and 'style="left:75.00%"' in drawn
    assert "−100" in Axis(-200, 0, (-100.0,)).head()


def test_an_axis_holds_what_it_can() -> None:
    axis = axis_of([0.0, 100.0], [-50.0, 150.0, math.inf])
    assert axis.low < -50 and axis.high > 150
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks) and 3 <= len(axis.ticks) <= 7
    # Intervals of a thousand times the span do not press the values into one point.
    far = axis_of([0.0, 100.0], [-100_000.0, 100_000.0])
    assert far.place(100) - far.place(0) > 10


@pytest.mark.parametrize(
    ("value", "text"), [(0.004, "&lt;1%"), (0, "0%"), (0.5, "50%"), (0.997, "&gt;99%"), (1, "100%")]
)
def test_shares_that_are_not_nothing_do_not_read_so(value: float, text: str) -> None:
    assert share(value) == text


def test_provisional_ranks_are_grey_and_say_why() -> None:
    group = LeaderGroup([row("sure", 1, (1, 1)), row("unsure", 2, (2, 4)), row("lucky", 3, (3, 3), "only wins")])
    shown = leaderboard_html([group], [], [], {})
    assert '<td class="rank">1</td>' in shown
    assert re.search(
        r'class="rank provisional" title="Provisional: any rank from 2 to 4 [^"]*">2<small>2–4</small>', shown
    )
    assert "Provisional: only wins" in shown
    assert "+50" in shown and "−20 to +120" in shown and "6 · 1 · 3" in shown
    assert "No vote connects" not in shown and "Send to desk" not in shown


def test_groups_are_apart() -> None:
    shown = leaderboard_html([LeaderGroup([row("a", 1, (1, 1))]), LeaderGroup([row("b", 1, (1, 1))])], ["none"], [], {})
    assert "No vote connects these 2 groups" in shown and "Group 2" in shown and "Without votes: none." in shown
    assert shown.count("<table") == 2


def test_a_mixture_can_be_sent_to_the_desk() -> None:
    shown = leaderboard_html(
        [LeaderGroup([row("a", 1, (1, 1), mixture=Mixture({"a": 1.0}))])], [], ["a"], {"a": "#123456"}
    )
    assert "Send to desk" in shown and "#123456" in shown


def person(name: str, left: Interval, gold: GoldScore | None = None, failed: bool = False) -> Person:
    report = AnnotatorReport(name, 12, math.nan, UNKNOWN, left, Interval(0.5, 0.2, 0.8, 8), 0.75)
    return Person(name, report, gold, failed)


def test_people_who_look_at_one_side_are_marked() -> None:
    shown = people_table(
        [person("ada", Interval(0.5, 0.3, 0.7, 9)), person("bo", Interval(0.9, 0.6, 0.99, 9), GoldScore(1, 4), True)],
        0.8,
    )
    ada, bo = shown.split("<tr>")[2:]
    assert 'class="bad"' not in ada and "50%<small>of 8</small>" in ada and "75%" in ada
    assert '<span class="bad">90%' in bo and "25%<small>of 4</small>" in bo and "failed" in bo


def test_unknown_figures_are_dashes() -> None:
    shown = alpha_table(
        [Agreement("overall", "Better?", UNKNOWN), Agreement("kind", "Kind?", Interval(-0.1, -0.2, 0.0, 7))]
    )
    assert "No pair was rated by two people" in shown and "−0.10" in shown and "nan" not in shown
    assert "nan" not in people_table([person("ada", UNKNOWN)], 0.8)


def test_influences() -> None:
    shown = controls_table({"words": Interval(math.log(2), 0.1, 1.2, 9), "digits": Interval(-0.1, -0.5, 0.3, 9)})
    assert "× 2.00" in shown and shown.count('class="sure"') == 1 and "−0.10" in shown
    assert "come without them" in controls_table({})
    assert "63%" in agreeing_table("Reward models", {"helpful": Interval(0.63, 0.5, 0.7, 40)}, {}, "")
    assert agreeing_table("Reward models", {}, {}, "<p>none</p>").endswith("<p>none</p>")


def test_names_are_text() -> None:
    shown = (
        leaderboard_html(
            [LeaderGroup([row(EVIL, 1, (1, 1), mixture=Mixture({EVIL: 1.0}))])], [EVIL], [EVIL], {EVIL: "red"}
        )
        + people_table([person(EVIL, UNKNOWN)], 0.8)
        + alpha_table([Agreement("k", EVIL, UNKNOWN)])
        + controls_table({EVIL: Interval(0, 0, 0)})
        + agreeing_table(EVIL, {EVIL: Interval(0.5, 0, 1, 3)}, {}, "")
    )
    assert "<img" not in shown
