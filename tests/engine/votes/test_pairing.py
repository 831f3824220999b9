"""Which systems to compare next: probabilities against simulated posteriors and cases known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engine.votes.pairing import PRIOR, UNIFORM, order_doubts, pair_probabilities


def sampled_doubt(wins: float, losses: float) -> float:
    """The probability that the weaker of two is the stronger, by the posterior on a grid of both strengths."""
    grid = np.linspace(-12, 12, 801)
    first, second = np.meshgrid(grid, grid, indexing="ij")
    difference = first - second
    log = -(first**2 + second**2) / (2 * PRIOR**2)
    log += -wins * np.logaddexp(0, -difference) - losses * np.logaddexp(0, difference)
    mass = np.exp(log - log.max())
    ahead = mass[difference > 0].sum() / (mass.sum() - mass[difference == 0].sum())
    return float(min(ahead, 1 - ahead))


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (3, 3), (6, 4), (30, 20), (60, 40), (10, 2)])
def test_doubts_are_those_of_the_posterior(wins: float, losses: float) -> None:
    doubts = order_doubts(np.array([[0, wins], [losses, 0]], float))
    assert doubts[0, 1] == pytest.approx(doubts[1, 0])
    assert doubts[0, 1] == pytest.approx(sampled_doubt(wins, losses), abs=0.06)


def test_indirect_votes_count() -> None:
    """The first beats the second and that the third: few doubts remain about the first and the third."""
    wins = np.zeros((3, 3))
    wins[0, 1] = wins[1, 2] = 20
    doubts = order_doubts(wins)
    assert doubts[0, 2] < 0.02 and doubts[0, 2] < doubts[0, 1]


def test_only_wins_and_no_votes_are_finite() -> None:
    wins = np.zeros((4, 4))
    wins[0, 1] = 10_000
    doubts = order_doubts(wins)
    assert np.isfinite(doubts).all() and (doubts >= 0).all() and (doubts <= 0.5).all()
    assert doubts[0, 1] < 1e-3 and doubts[2, 3] == pytest.approx(0.5)


def test_probabilities_favour_doubt_and_are_never_zero() -> None:
    wins = np.zeros((3, 3))
    wins[0, 1] = wins[1, 0] = 50
    wins[0, 2] = wins[1, 2] = 100
    pairs = [(0, 1), (0, 2), (1, 2)]
    probabilities = pair_probabilities(wins, pairs)
    assert probabilities.sum() == pytest.approx(1) and probabilities.min() >= UNIFORM / 3
    assert probabilities[0] == pytest.approx(1 - UNIFORM + UNIFORM / 3, abs=1e-3)
    assert pair_probabilities(np.zeros((3, 3)), pairs) == pytest.approx([1 / 3] * 3)
    assert pair_probabilities(wins, [(0, 2)]) == pytest.approx([1])
