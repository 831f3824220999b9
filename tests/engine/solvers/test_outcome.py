"""Expected rewards with errors over prompts, and the point that is better in all objectives."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from engine import Engine, InputError
from engine.cli.solve import echo_expected
from engine.rewards.scale import RewardScale
from engine.solvers import maxmin, mpo
from engine.solvers.outcome import MARGIN, SIGNIFICANT, better_point, outcome, scaled
from tests.engine.solvers.test_maxmin import expected_rewards, random_bank


def weights_of(solution: Any) -> np.ndarray:
    return np.array(list(solution.weights.values()))


@pytest.mark.parametrize("seed", range(50))
def test_nothing_is_better_than_max_min_and_what_is_better_than_mpo_is_found(seed: int) -> None:
    bank = random_bank(np.random.default_rng(seed))
    size = len(bank.objectives)
    centre, scale = np.zeros(size), np.ones(size)
    fair = weights_of(maxmin.solve_maxmin(bank, centre, scale, repeats=0))
    assert outcome(bank, centre, scale, fair).better is None
    own = weights_of(mpo.solve_mpo(bank, repeats=0))
    found = outcome(bank, centre, scale, own)
    here, _ = expected_rewards(bank, own)
    assert list(found.rewards.values()) == pytest.approx(here)
    if found.better is not None:
        there, reliable = expected_rewards(bank, np.array(list(found.better.weights.values())))
        assert reliable and there - here == pytest.approx(list(found.better.gains.values()))
        assert min(there - here) >= MARGIN
        ratios = [found.better.gains[name] / found.better.errors[name] for name in bank.objectives]
        assert found.better.significant == (min(ratios) > SIGNIFICANT)
        return
    count, steps = len(bank.policies), {2: 100, 3: 20, 4: 12}[len(bank.policies)]
    for at in itertools.product(range(steps + 1), repeat=count):
        if sum(at) == steps:
            there, reliable = expected_rewards(bank, np.array(at) / steps)
            assert not reliable or min(there - here) < 2 * MARGIN, f"{at} is better in all"


def test_some_random_banks_have_a_point_better_than_mpos() -> None:
    """Else the branch above that checks one is never taken."""
    better = 0
    for seed in range(10):
        bank = random_bank(np.random.default_rng(seed))
        own = weights_of(mpo.solve_mpo(bank, repeats=0))
        better += better_point(bank, np.ones(len(bank.objectives)), own) is not None
    assert better


def test_the_error_is_that_of_a_mean_over_prompts() -> None:
    """Over banks of other prompts of the same kind the means scatter as the error says."""
    rng = np.random.default_rng(0)
    weights = np.array([0.7, 0.3])
    ratios, rewards = rng.normal(size=(4000, 20, 2)) * 0.3, rng.normal(size=(4000, 20, 1))
    rewards += rng.normal(size=(4000, 1, 1))  # prompts differ
    bank = random_bank(np.random.default_rng(0))
    means, errors = [], []
    for part in np.split(np.arange(4000), 200):
        own = type(bank)(["a", "b"], ["r"], ["x"] * 20, ratios[part], np.zeros((20, 20)), rewards[part], 0)
        found = outcome(own, np.zeros(1), np.ones(1), weights, search=False)
        means.append(found.rewards["r"])
        errors.append(found.errors["r"])
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.15)


def engine_with(scale: RewardScale) -> Engine:
    config = SimpleNamespace(file="some.yaml")
    return cast(Engine, SimpleNamespace(reward_set=SimpleNamespace(scale=scale), config=config))


def test_a_constant_reward_is_left_out_and_an_uncalibrated_one_is_waited_for() -> None:
    bank = random_bank(np.random.default_rng(3))
    first, *rest = bank.objectives
    ones = dict.fromkeys(rest, 1.0)
    part, centre, scale = scaled(bank, engine_with(RewardScale(ones, ones, frozenset([first]))))
    assert part.objectives == rest and part.rewards.shape[-1] == len(centre) == len(scale) == len(rest)
    assert np.array_equal(part.rewards, bank.rewards[..., 1:])
    with pytest.raises(InputError, match=f"{first} not calibrated"):
        scaled(bank, engine_with(RewardScale(ones, ones)))
    with pytest.raises(InputError, match="same reward"):
        scaled(bank, engine_with(RewardScale({}, {}, frozenset(bank.objectives))))


def test_solve_prints_every_objective_and_what_is_better(capsys: pytest.CaptureFixture) -> None:
    better = {"weights": {"a": 0.25, "b": 0.75}, "gains": {"x": 0.2}, "errors": {"x": 0.05}, "significant": True}
    echo_expected({"expected": {"x": -0.1}, "expected_errors": {"x": 0.04}, "better": better})
    found = capsys.readouterr().out
    assert "expected x            -0.10 ± 0.04" in found
    assert "better in all objectives, by more than twice the error: a=0.250,b=0.750 (x +0.20 ± 0.05)" in found
    echo_expected({"expected": {"x": -0.1}, "expected_errors": {"x": 0.04}, "better": None})
    assert "no other weights" in capsys.readouterr().out
