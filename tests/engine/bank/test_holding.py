"""Some weights stay, the others are solved for: against policies whose responses are all written out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine import InputError
from engine.bank.estimate import Bank
from engine.solvers import mpo, target
from tests.engine.conftest import Exact, Small
from tests.engine.solvers.test_enumeration import proposals
from tests.engine.solvers.test_target import CENTRE, SCALE, standard

FIXED = {"p1": 0.35}


@pytest.fixture(scope="module")
def exact(small: Callable[[int, int], Small]) -> Exact:
    return small(4, 0).exact


@pytest.fixture(scope="module")
def bank(exact: Exact) -> Bank:
    return exact.sample(proposals(exact), 2000, np.random.default_rng(0))


def grid() -> np.ndarray:
    """All weights of four policies with p1 as it is fixed, the others in steps of a thirtieth of the rest."""
    points = [(a, b, 30 - a - b) for a in range(31) for b in range(31 - a)]
    return np.insert(0.65 * np.array(points) / 30, 1, 0.35, axis=1)


@pytest.mark.parametrize("gain", [1.0, 1.7])
def test_it_is_the_same_bank_at_other_weights(bank: Bank, gain: float) -> None:
    part = bank.holding({"p1": 0.35, "p3": 0.05}, gain)
    assert part.policies == ["p0", "p2"]
    said, direct = part.estimate([0.25, 0.75]), bank.estimate(gain * np.array([0.15, 0.35, 0.45, 0.05]))
    assert float(said.objective) == pytest.approx(float(direct.objective))
    assert said.rewards == pytest.approx(direct.rewards)
    assert float(said.ess_fraction) == pytest.approx(float(direct.ess_fraction))


def test_the_max_min_weights_around_one_that_stays(exact: Exact, bank: Bank) -> None:
    found = mpo.solve_mpo(bank.holding(FIXED), repeats=5).among(bank.policies, FIXED)
    weights = np.array(list(found.weights.values()))
    assert list(found.weights) == bank.policies
    assert weights.sum() == pytest.approx(1)
    assert weights[1] == 0.35 and found.weight_errors["p1"] == 0
    best = min(exact.objective(point) for point in grid())
    assert exact.objective(weights) < best + 0.002
    assert exact.objective(weights) > exact.objective(exact.best()), "what stays costs something here"
    # What a free solve finds, with the others' shares squeezed into what is left, is not it.
    free = np.array(list(mpo.solve_mpo(bank, repeats=0).weights.values()))
    squeezed = 0.65 * free / (1 - free[1])
    squeezed[1] = 0.35
    assert exact.objective(weights) < exact.objective(squeezed) - 1e-4
    assert np.allclose([point[1] for point in found.path], 0.35)


def test_the_nearest_to_a_point_around_one_that_stays(exact: Exact, bank: Bank) -> None:
    """Within reach, beyond it, and from one start as from many."""
    inside = standard(exact, dict(zip(bank.policies, [0.1, 0.35, 0.3, 0.25], strict=True)))
    rewards = np.array([(exact.expected(point) - CENTRE) / SCALE for point in grid()])
    for wanted in (inside, inside + np.array([1.5, 0.0]), inside + np.array([-1.0, 2.0])):
        goal = dict(zip(bank.objectives, wanted.tolist(), strict=True))
        best = ((rewards - wanted) ** 2).sum(-1).min()
        for start in (None, np.full(3, 1 / 3)):
            part = target.solve_target(bank.holding(FIXED), CENTRE, SCALE, goal, {}, repeats=0, start=start)
            found = part.among(bank.policies, FIXED)
            assert found.weights["p1"] == 0.35
            assert sum(found.weights.values()) == pytest.approx(1)
            assert ((standard(exact, found.weights) - wanted) ** 2).sum() < best + 0.03


def test_where_nothing_is_left_to_share_it_is_told(bank: Bank) -> None:
    for fixed in ({"p0": 1.0}, {"p0": 0.7, "p1": 0.6}, {"p0": 0.1, "p1": 0.1, "p3": 0.1}):
        with pytest.raises(InputError, match="no two policies are free to share; release a Lock"):
            bank.holding(fixed)


def test_the_error_of_a_change_is_the_spread_over_other_banks(exact: Exact) -> None:
    before, after = np.array([0.4, 0.2, 0.2, 0.2]), np.array([0.1, 0.5, 0.2, 0.2])
    changes, errors, alone = [], [], []
    for seed in range(150):
        bank = exact.sample(proposals(exact), 20, np.random.default_rng(seed))
        change, error = bank.change(before, after)
        assert change == pytest.approx(bank.estimate(after).rewards - bank.estimate(before).rewards)
        changes.append(change)
        errors.append(error)
        alone.append(bank.estimate(after).reward_errors)
    assert np.mean(changes, 0) == pytest.approx(exact.expected(after) - exact.expected(before), abs=0.02)
    ratio = np.mean(errors, 0) / np.std(changes, 0)
    assert (ratio > 0.8).all() and (ratio < 1.25).all()
    assert (np.mean(errors, 0) < np.mean(alone, 0)).all(), "the same responses stand behind both"
