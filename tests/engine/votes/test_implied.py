"""Agreement of scores with votes: by hand, and intervals over simulated studies."""

from __future__ import annotations

import numpy as np
import pytest

from engine.votes.implied import score_agreement
from engine.votes.intervals import wilson
from engine.votes.table import BOTH_BAD, FIRST, SECOND, TIE
from tests.engine.votes.studies import simulate, votes_of


def test_agreement_by_hand() -> None:
    outcomes = [FIRST, FIRST, SECOND, SECOND, TIE, BOTH_BAD, FIRST]
    difference = np.array([1.0, -2.0, -0.5, 0.0, 3.0, -3.0, np.nan])
    votes = votes_of(["a", "b"], [("a", "b", outcome) for outcome in outcomes])
    agreement = score_agreement(votes, difference)
    assert (agreement.value, agreement.number) == (pytest.approx((1 + 0 + 1 + 0.5) / 4), 4)
    assert 0 <= agreement.low < agreement.value < agreement.high <= 1
    weights = np.array([3.0, 1, 1, 1, 1, 1, 1])
    weighted = score_agreement(
        votes_of(["a", "b"], [("a", "b", outcome) for outcome in outcomes], weight=weights), difference
    )
    assert weighted.value == pytest.approx((3 + 0 + 1 + 0.5) / 6)
    assert np.isnan(score_agreement(votes, np.full(7, np.nan)).value)


def test_independent_votes_have_wilsons_interval() -> None:
    outcomes = [FIRST] * 70 + [SECOND] * 30
    votes = votes_of(["a", "b"], [("a", "b", outcome) for outcome in outcomes])
    own, expected = score_agreement(votes, np.ones(100)), wilson(70, 100)
    assert (own.value, own.low, own.high) == pytest.approx((expected.value, expected.low, expected.high), abs=0.003)
    every = score_agreement(votes_of(["a", "b"], [("a", "b", FIRST)] * 20), np.ones(20))
    assert (every.value, every.high) == (1, 1) and every.low == pytest.approx(wilson(20, 20).low, abs=0.01)


def test_votes_on_one_prompt_count_less_than_votes_on_many() -> None:
    outcomes = ([FIRST] * 10 + [SECOND] * 10) * 5
    rows = [("a", "b", outcome) for outcome in outcomes]
    many = score_agreement(votes_of(["a", "b"], rows), np.ones(100))
    few = score_agreement(votes_of(["a", "b"], rows, prompts=[str(at // 10) for at in range(100)]), np.ones(100))
    assert few.value == many.value == 0.5 and few.high - few.low > 2 * (many.high - many.low)


def test_intervals_hold_the_true_share() -> None:
    rng = np.random.default_rng(8)
    strengths = np.array([0.7, 0.0, -0.7])
    settings = {"of_prompts": 0.7, "of_annotators": 0.3}

    def agreement(prompts: int, annotators: int) -> tuple[float, float, float]:
        votes = simulate(rng, strengths, prompts=prompts, annotators=annotators, **settings)
        own = score_agreement(votes, strengths[votes.first] - strengths[votes.second])
        return own.value, own.low, own.high

    truth = agreement(2000, 300)[0]
    held = np.mean([low <= truth <= high for _, low, high in (agreement(30, 10) for _ in range(200))])
    assert 0.90 <= held <= 0.99  # 95% within three standard errors of two hundred
