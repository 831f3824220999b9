"""Controls: against scipy's optimiser, and in studies in which length decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from engine.votes.leaderboard import leaderboard
from engine.votes.table import FIRST, SECOND, Votes
from tests.engine.votes.studies import simulate, votes_of

POINTS = 400 / np.log(10)


def with_length(seed: int, effect: float, prompts: int = 25) -> Votes:
    """Return votes of equal systems, the first of which writes more; the log-odds grow by `effect` a unit of length."""
    rng = np.random.default_rng(seed)
    votes = simulate(rng, np.zeros(3), prompts=prompts)
    length = rng.normal(np.array([2.0, 0.0, 0.0])[votes.first] - np.array([2.0, 0.0, 0.0])[votes.second], 1.0)
    won = rng.random(len(votes)) < 1 / (1 + np.exp(-effect * length))
    outcome = np.where(votes.outcome <= SECOND, np.where(won, FIRST, SECOND), votes.outcome)
    return replace(votes, outcome=outcome, features={"length": length, "lists": rng.normal(size=len(votes))})


def test_coefficients_are_those_of_an_optimiser() -> None:
    votes = with_length(1, 0.8)
    board = leaderboard(votes, controls=["length", "lists"])
    share = np.where(votes.outcome == FIRST, 1.0, np.where(votes.outcome == SECOND, 0.0, 0.5))
    features = np.column_stack([votes.features["length"], votes.features["lists"]])

    def loss(at: np.ndarray) -> float:
        logit = at[votes.first] - at[votes.second] + features @ at[3:]
        likelihood = share * np.logaddexp(0, -logit) + (1 - share) * np.logaddexp(0, logit)
        return float(likelihood.sum() + 1e-6 * (at[:3] ** 2).sum())

    expected = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-7}).x
    for control, coefficient in zip(board.controls, expected[3:], strict=True):
        assert control.coefficient.value / control.deviation == pytest.approx(coefficient, abs=1e-4)
        assert control.votes == len(votes)
        assert control.deviation == pytest.approx(np.sqrt(np.mean(votes.features[control.name] ** 2)))
    adjusted = [row.adjusted.value / POINTS for row in board.systems if row.adjusted]
    assert adjusted == pytest.approx(expected[:3] - expected[:3].mean(), abs=1e-3)


def test_length_that_decides_is_found_and_held_equal() -> None:
    board = leaderboard(with_length(2, 0.8, prompts=60), controls=["length", "lists"])
    length, lists = board.controls
    assert length.coefficient.low > 0.3 and lists.coefficient.low < 0 < lists.coefficient.high
    wordy = board.systems[0]
    assert wordy.low > 0  # as votes go, it is better
    assert wordy.adjusted is not None and wordy.adjusted.low < 0 < wordy.adjusted.high < wordy.rating


def test_missing_constant_and_absent_features() -> None:
    votes = with_length(3, 0.5)
    length = votes.features["length"].copy()
    length[:10] = np.nan
    board = leaderboard(
        replace(votes, features={"length": length, "zero": np.zeros(len(votes))}), controls=["length", "zero"]
    )
    assert board.controls[0].votes == len(votes) - 10 and board.votes == len(votes)
    assert np.isfinite(board.controls[0].coefficient.value) and np.isnan(board.controls[1].coefficient.value)
    assert leaderboard(votes).controls == [] and leaderboard(votes).systems[0].adjusted is None
    nothing = leaderboard(
        replace(votes, features={"length": np.full(len(votes), np.nan)}), resamples=20, controls=["length"]
    )
    assert nothing.controls[0].votes == 0 and np.isnan(nothing.systems[0].adjusted.value)  # type: ignore[union-attr]


def test_only_wins_and_a_system_without_votes_stay_finite() -> None:
    rows = [("a", "b", FIRST)] * 10
    votes = votes_of(["a", "b", "new"], rows, features={"length": np.linspace(-1, 1, 10)})
    board = leaderboard(votes, resamples=50, controls=["length"])
    a, b, new = (row.adjusted for row in board.systems)
    assert a is not None and b is not None and new is not None
    assert np.isfinite([a.value, a.low, a.high, b.value]).all() and a.value > b.value and np.isnan(new.value)
