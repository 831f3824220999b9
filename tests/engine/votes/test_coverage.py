"""95% intervals of simulated studies hold the true strengths; `tests/bench/votes.py` has more of them."""

from __future__ import annotations

import numpy as np
import pytest

from engine.votes.annotators import annotator_reports, reliability_weights
from engine.votes.intervals import RATING
from engine.votes.leaderboard import leaderboard
from tests.engine.votes.studies import population_strengths, simulate

STUDIES, STRENGTHS = 40, np.linspace(-1, 1, 4)


@pytest.mark.parametrize(
    ("careless", "effects"),
    [(0, {}), (0, {"of_prompts": 0.7, "of_annotators": 0.2}), (2, {}), (2, {"of_prompts": 0.7})],
)
def test_intervals_hold_the_truth(careless: int, effects: dict[str, float]) -> None:
    rng = np.random.default_rng(20)
    held, found = [], []
    for _ in range(STUDIES):
        strengths = rng.permutation(STRENGTHS)
        votes = simulate(rng, strengths, careless=careless, **effects)
        weights = None
        if careless:
            reports = annotator_reports(votes)
            weights = reliability_weights(votes, reports)
            found.append(set(np.argsort([own.reliability for own in reports])[:careless]) == set(range(careless)))
        board = leaderboard(votes, resamples=120, weights=weights)
        low, high = np.array([(row.low, row.high) for row in board.systems]).T / RATING
        truth = population_strengths(strengths, spread=float(np.hypot(*[*effects.values(), 0, 0][:2])))
        held.append((low <= truth) & (truth <= high))
    # Ratings of a study add up to zero, so that there are three for each: three standard errors of that many.
    error = np.sqrt(0.95 * 0.05 / (STUDIES * (len(STRENGTHS) - 1)))
    assert abs(np.mean(held) - 0.95) < 3 * error
    assert not careless or np.mean(found) > 0.9
