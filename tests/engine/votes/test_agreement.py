"""Krippendorff's alpha: against evalica's and the krippendorff package's, and its interval over simulated studies."""

from __future__ import annotations

from dataclasses import replace

import evalica
import numpy as np
import pandas as pd
import pytest

from engine.votes.agreement import krippendorff_alpha
from engine.votes.table import FIRST, SECOND, TIE, Votes
from tests.engine.votes.studies import public_votes, simulate, votes_of


def table(votes: Votes) -> np.ndarray:
    """Return the outcomes [annotators, items], NaN where there is none."""
    rows = np.full((len(votes.annotators), len(votes.items)), np.nan)
    counts = ~votes.repeat
    rows[votes.annotator[counts], votes.item[counts]] = votes.outcome[counts]
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_alpha_is_that_of_other_implementations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    votes = simulate(rng, np.array([1.0, 0.0, -0.5]), prompts=8, annotators=5, wanted=3, of_prompts=1.0)
    keep = rng.random(len(votes)) < 0.8  # items with one, two and three votes
    votes = replace(
        votes,
        **{
            name: getattr(votes, name)[keep]
            for name in (
                "first",
                "second",
                "outcome",
                "annotator",
                "prompt",
                "item",
                "swapped",
                "repeat",
                "weight",
                "seconds",
            )
        },
    )
    alpha = krippendorff_alpha(votes)
    assert alpha.value == pytest.approx(evalica.alpha(pd.DataFrame(table(votes))).alpha, abs=1e-12)
    assert alpha.low < alpha.value < alpha.high <= 1
    other = pytest.importorskip("krippendorff")
    assert alpha.value == pytest.approx(other.alpha(table(votes), level_of_measurement="nominal"), abs=1e-12)


def test_alpha_of_a_public_data_set() -> None:
    votes = public_votes()
    alpha = krippendorff_alpha(votes)
    assert alpha.value == pytest.approx(evalica.alpha(pd.DataFrame(table(votes))).alpha, abs=1e-12)
    assert alpha.low < alpha.value < alpha.high and alpha.number == 2124


def test_complete_agreement_none_and_undefined() -> None:
    people = ["x", "y"] * 6
    items = [f"item {at // 2}" for at in range(12)]
    alike = [FIRST, FIRST, SECOND, SECOND, TIE, TIE] * 2

    def alpha_of(outcomes: list[int]) -> tuple[float, float, float]:
        rows = [("a", "b", outcome) for outcome in outcomes]
        alpha = krippendorff_alpha(votes_of(["a", "b"], rows, annotators=people, prompts=items, items=items))
        return alpha.value, alpha.low, alpha.high

    assert alpha_of(alike)[0] == 1
    value, low, high = alpha_of([FIRST, SECOND] * 6)
    assert value == pytest.approx(1 - 11 / 6) and low <= value <= high  # all pairs differ, 6 of 11 by chance
    assert np.isnan(alpha_of([FIRST] * 12)).all()  # nothing to disagree about
    alone = votes_of(["a", "b"], [("a", "b", FIRST), ("a", "b", SECOND)])
    assert np.isnan(krippendorff_alpha(alone).value) and krippendorff_alpha(alone).number == 0
    assert np.isnan(krippendorff_alpha(votes_of([], [])).value)


def test_the_interval_holds_what_many_prompts_and_annotators_give() -> None:
    strengths = np.array([0.8, 0.0, -0.8])
    rng = np.random.default_rng(11)
    settings = {"of_prompts": 1.0, "of_annotators": 0.3}
    truth = krippendorff_alpha(simulate(rng, strengths, prompts=2000, annotators=200, **settings), resamples=2).value
    intervals = [krippendorff_alpha(simulate(rng, strengths, prompts=30, **settings), 200) for _ in range(60)]
    held = np.mean([own.low <= truth <= own.high for own in intervals])
    assert held >= 0.86  # 95% less three standard errors of sixty
    assert np.mean([own.high - own.low for own in intervals]) < 0.3
