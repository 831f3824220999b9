"""Weights for rewards that are wanted, against policies whose responses are all written out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine import InputError
from engine.bank.estimate import Bank
from engine.solvers.bank_request import BankRequest
from engine.solvers.target import optimise_target, solve_target
from tests.engine.conftest import Exact, Small
from tests.engine.solvers.test_enumeration import proposals

CENTRE, SCALE = np.array([-3.0, 0.5]), np.array([1.0, 0.5])


@pytest.fixture(scope="module")
def exact(small: Callable[[int, int], Small]) -> Exact:
    return small(3, 0).exact


@pytest.fixture(scope="module")
def bank(exact: Exact) -> Bank:
    return exact.sample(proposals(exact), 2000, np.random.default_rng(0))


def standard(exact: Exact, weights: dict[str, float]) -> np.ndarray:
    return (exact.expected(np.array(list(weights.values()))) - CENTRE) / SCALE


def grid(exact: Exact) -> tuple[np.ndarray, np.ndarray]:
    """All weights in steps of a twentieth, and their exact rewards."""
    points = [(a, b, 20 - a - b) for a in range(21) for b in range(21 - a)]
    weights = np.array(points) / 20
    return weights, np.array([(exact.expected(point) - CENTRE) / SCALE for point in weights])


def test_slopes_are_differences(bank: Bank) -> None:
    at, step = np.array([0.5, 0.2, 0.3]), 1e-5
    for k in range(3):
        more, less = (bank.estimate(at + sign * step * np.eye(3)[k]).rewards for sign in (1, -1))
        assert bank.reward_slopes(at)[:, k] == pytest.approx((more - less) / (2 * step), abs=1e-6)


def test_a_point_that_can_be_reached_is_reached(exact: Exact, bank: Bank) -> None:
    wanted = (exact.expected(np.array([0.2, 0.5, 0.3])) - CENTRE) / SCALE
    found = solve_target(bank, CENTRE, SCALE, dict(zip(bank.objectives, wanted.tolist(), strict=True)), {}, repeats=3)
    assert standard(exact, found.weights) == pytest.approx(wanted, abs=0.05)


def test_a_point_out_of_reach_is_come_nearest_to(exact: Exact, bank: Bank) -> None:
    goal = {"short": 5.0, "first": 5.0}
    found = solve_target(bank, CENTRE, SCALE, goal, {}, repeats=3)
    _, rewards = grid(exact)
    best = ((rewards - 5) ** 2).sum(-1).min()
    assert ((standard(exact, found.weights) - 5) ** 2).sum() < best + 0.1


def test_the_most_under_a_floor(exact: Exact, bank: Bank) -> None:
    _, rewards = grid(exact)
    floor = float(np.quantile(rewards[:, 1], 0.8))
    found = solve_target(bank, CENTRE, SCALE, {}, {"first": floor}, repeats=3)
    assert standard(exact, found.weights)[1] > floor - 0.05
    assert standard(exact, found.weights).sum() > rewards[rewards[:, 1] >= floor].sum(-1).max() - 0.05


@pytest.mark.parametrize(
    ("worth", "floors"), [({"short": 3.0}, {}), ({"short": 3.0}, {"first": 0.0}), ({"first": 0.0}, {})]
)
def test_the_most_by_what_each_reward_is_worth(
    exact: Exact, bank: Bank, worth: dict[str, float], floors: dict[str, float]
) -> None:
    """Against all weights of a grid: the sum counts each reward as it is worth, 1 where nothing is said."""
    _, rewards = grid(exact)
    each = np.array([worth.get(name, 1.0) for name in bank.objectives])
    kept = rewards[rewards[:, 1] >= floors.get("first", -np.inf)]
    found = standard(exact, solve_target(bank, CENTRE, SCALE, {}, floors, repeats=3, worth=worth).weights)
    assert found @ each > (kept @ each).max() - 0.05 * np.abs(each).sum()
    assert found[1] > floors.get("first", -np.inf) - 0.05
    # It is another one than that of the plain sum, or the check above would say little.
    assert (kept @ each).max() > kept[kept.sum(-1).argmax()] @ each + 0.1 * np.abs(each).sum()


def test_floors_that_cannot_be_kept_are_told(bank: Bank) -> None:
    with pytest.raises(InputError, match=r"floor: no weights keep to .*lower a floor, or leave one out"):
        solve_target(bank, CENTRE, SCALE, {}, {"first": 50.0})


def test_rewards_without_a_name_are_told(small: Callable[[int, int], Small]) -> None:
    from engine.solvers import SOLVERS

    for given, said in (
        ({"goal": {"kind": 1.0}}, "target: no reward is for 'kind'"),
        ({"worth": {"kind": 1.0}}, "worth: no reward is for 'kind'"),
        ({"goal": {"short": 1.0}, "worth": {"short": 1.0}}, "give one of the two"),
        ({}, "target: found none"),
    ):
        with pytest.raises(InputError, match=said):
            SOLVERS["target"].find(BankRequest(small(2, 0).engine, ["a"]), **given)


def made_up(rewards: np.ndarray, ratios: np.ndarray) -> Bank:
    """Reference samples of four prompts with these rewards [4, N, R] and log-ratios [4, N, K]."""
    names = [f"r{i}" for i in range(rewards.shape[-1])]
    policies = [f"p{i}" for i in range(ratios.shape[-1])]
    return Bank(policies, names, list("wxyz"), ratios, np.zeros(ratios.shape[:2]), rewards, 0)


def test_a_policy_that_dominates_gets_all_weight() -> None:
    """p0 is drawn to both rewards, p1 to neither: the corner."""
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(4, 400, 2))
    ratios = np.stack([rewards.sum(-1) / 2, rng.normal(size=(4, 400)) / 10], -1)
    bank = made_up(rewards, ratios)
    for goal, floors in (({"r0": 3.0, "r1": 3.0}, {}), ({}, {"r0": 0.1})):
        found = solve_target(bank, np.zeros(2), np.ones(2), goal, floors, repeats=3)
        assert found.weights["p0"] > 0.99
    # Also where the search begins in that corner, as it does in a bootstrap.
    again, _ = optimise_target(bank, np.zeros(2), np.ones(2), {"r0": 3.0}, {}, rng, start=np.array([1.0, 0.0]))
    assert again == pytest.approx([1, 0], abs=0.01)


def test_rewards_that_are_constant_and_policies_that_are_alike() -> None:
    rng = np.random.default_rng(0)
    alike = rng.normal(size=(4, 50, 1)).repeat(2, -1) / 10
    constant = made_up(np.ones((4, 50, 2)), alike)
    found = solve_target(constant, np.zeros(2), np.ones(2), {}, {"r0": 0.5}, repeats=3)
    assert sum(found.weights.values()) == pytest.approx(1)
    assert found.rewards == {"r0": pytest.approx(1), "r1": pytest.approx(1)}
    with pytest.raises(InputError, match="no weights keep to"):
        solve_target(constant, np.zeros(2), np.ones(2), {}, {"r0": 1.5})


def test_one_objective_and_one_policy() -> None:
    rng = np.random.default_rng(0)
    bank = made_up(rng.normal(size=(4, 50, 1)), rng.normal(size=(4, 50, 1)) / 10)
    assert solve_target(bank, np.zeros(1), np.ones(1), {"r0": 1.0}, {}, repeats=3).weights == {"p0": pytest.approx(1)}
