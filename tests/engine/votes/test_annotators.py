"""Reports on annotators: by hand, and careless ones in simulated studies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.votes.annotators import annotator_reports, reliability_weights
from engine.votes.intervals import wilson
from engine.votes.leaderboard import leaderboard
from engine.votes.table import BOTH_BAD, FIRST, SECOND, TIE
from tests.engine.votes.studies import public_votes, simulate, votes_of

# item, annotator, outcome, swapped, repeat, seconds
ROWS = [
    ("1", "x", FIRST, 0, False, 10.0),
    ("1", "y", FIRST, 1, False, 3.0),
    ("1", "z", SECOND, 0, False, np.nan),
    ("2", "x", SECOND, 1, False, 20.0),
    ("2", "y", TIE, 0, False, 5.0),
    ("3", "x", TIE, 1, False, 60.0),
    ("3", "y", TIE, 1, False, 4.0),
    ("3", "z", TIE, 1, False, np.nan),
    ("4", "x", BOTH_BAD, -1, False, 30.0),
    ("1", "x", FIRST, 1, True, 1.0),
    ("2", "x", FIRST, 0, True, 1.0),
    ("2", "y", TIE, 1, True, 1.0),
]


def test_reports_by_hand() -> None:
    item, annotator, outcome, swapped, repeat, seconds = (list(column) for column in zip(*ROWS, strict=True))
    votes = votes_of(
        ["a", "b"],
        [("a", "b", own) for own in outcome],
        annotators=annotator,
        items=item,
        prompts=item,
        swapped=swapped,
        repeat=repeat,
        seconds=seconds,
    )
    x, y, z = annotator_reports(votes)
    assert [own.annotator for own in (x, y, z)] == ["x", "y", "z"]
    assert [own.votes for own in (x, y, z)] == [4, 3, 2]
    assert (x.median_seconds, y.median_seconds) == (25.0, 4.0) and np.isnan(z.median_seconds)
    assert (x.consistency.value, x.consistency.number) == (0.5, 2)
    assert (y.consistency.value, y.consistency.number) == (1.0, 1)
    assert np.isnan([z.consistency.value, z.consistency.low, z.consistency.high]).all()
    # x chose the left on item 1, and on item 2, where the second was on the left; y the right; z the right.
    assert (x.left.value, x.left.number) == (1.0, 2)
    assert (y.left.value, z.left.value) == (0.0, 0.0)
    # x: half of the others on item 1, none on item 2, all on item 3; item 4 has no others.
    assert (x.agreement.value, x.agreement.number) == (pytest.approx(0.5), 3)
    assert y.agreement.value == pytest.approx((0.5 + 0 + 1) / 3)
    assert z.agreement.value == pytest.approx((0 + 1) / 2)
    assert all(0 <= own.reliability <= 1 for own in (x, y, z))
    assert reliability_weights(votes, [x, y, z]).tolist() == [
        {"x": x, "y": y, "z": z}[name].reliability for name in annotator
    ]


def test_wilson_is_that_of_a_textbook() -> None:
    # Newcombe 1998, table I: 81 of 263 and 15 of 148; 0 of 20 and 1 of 29
    for successes, number, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        own = wilson(successes, number)
        assert (own.low, own.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    assert np.isnan(wilson(0, 0).value)


@pytest.mark.parametrize("effects", [{}, {"of_prompts": 0.7, "of_annotators": 0.2}])
def test_careless_annotators_are_the_least_reliable(effects: dict[str, float]) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        votes = simulate(rng, rng.permutation(np.linspace(-1, 1, 5)), careless=2, **effects)
        reports = annotator_reports(votes)
        assert set(np.argsort([own.reliability for own in reports])[:2]) == {0, 1}
        assert max(own.reliability for own in reports[:2]) < 0.6 < np.mean([own.reliability for own in reports[2:]])
        # Counted less, they no longer draw the systems together.
        spread = [
            np.std([row.rating for row in leaderboard(votes, resamples=2, weights=weights).systems])
            for weights in (None, reliability_weights(votes, reports))
        ]
        assert spread[1] > spread[0]


def test_one_who_always_takes_the_left_is_seen() -> None:
    votes = simulate(np.random.default_rng(3), np.array([1.5, 0.0, -1.5]), prompts=120, annotators=6)
    lazy = votes.annotator == 0
    votes = replace(votes, outcome=np.where(lazy, np.where(votes.swapped == 0, FIRST, SECOND), votes.outcome))
    lazy_report, *others = annotator_reports(votes)
    assert lazy_report.left.value == 1 and lazy_report.left.low > 0.9
    assert all(own.left.low < 0.5 < own.left.high for own in others[:3])
    assert lazy_report.reliability < min(own.reliability for own in others)
    assert lazy_report.agreement.value < min(own.agreement.value for own in others)


def test_reports_of_votes_that_say_little() -> None:
    votes = votes_of(["a", "b"], [("a", "b", FIRST)] * 3)
    votes = replace(votes, annotators=[*votes.annotators, "new"])
    reports = annotator_reports(votes)
    assert np.isfinite([own.reliability for own in reports]).all()
    assert reports[3].votes == 0 and reports[3].reliability == pytest.approx(0.75)
    assert np.isnan(reports[0].agreement.value) and np.isnan(reports[0].left.value)
    assert annotator_reports(votes_of([], [])) == []


def test_reports_of_a_public_data_set() -> None:
    votes = public_votes()
    reports = annotator_reports(votes)
    assert len(reports) == 124 and sum(own.votes for own in reports) == 8931
    # By loops, for one of them.
    own = next(report for report in reports if report.annotator == "58")
    mine = votes.annotator == votes.annotators.index("58")
    shares = []
    for at in np.flatnonzero(mine):
        others = votes.outcome[(votes.item == votes.item[at]) & ~mine]
        if len(others):
            shares.append(np.mean(others == votes.outcome[at]))
    assert own.agreement.value == pytest.approx(np.mean(shares)) and own.agreement.number == len(shares)
    assert own.left.number == np.sum(votes.outcome[mine] <= SECOND)
