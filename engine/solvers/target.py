"""Weights whose expected rewards are nearest to a point, or maximise a weighted sum, subject to floors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
from scipy.optimize import minimize

from engine.bank.calibration import calibrated
from engine.bank.collection import Array
from engine.bank.estimate import Bank
from engine.errors import InputError
from engine.solvers.bank_request import BankRequest
from engine.solvers.solution import Solution, from_bank
from engine.solvers.solver import Solver

STARTS = 500  # points of the simplex that are tried before the best of them are followed
FOLLOWED = 5
REPEATS = 30  # of the bootstrap
CLOSE = 0.01  # standard deviations by which a floor may be missed


def target(
    request: BankRequest,
    goal: Mapping[str, float] | None = None,
    floors: Mapping[str, float] | None = None,
    worth: Mapping[str, float] | None = None,
) -> Solution:
    """Return weights whose expected rewards are nearest to a goal, or have the largest weighted sum, above the floors.

    Args:
        request: the bank; its seed is also that of the starting points and the bootstrap.
        goal: {objective: standard deviations above the reference's mean}, as on the radar; the squared distance to it
            is minimised.
        floors: the smallest expected rewards, in the same unit.
        worth: without a goal, {objective: its factor in the sum}; 1 for objectives that are not named.

    Raises:
        InputError: an argument is not valid, sampling was stopped, or no weights that were found satisfy the floors.
    """
    engine = request.engine
    settings = engine.reward_set.settings
    for what, given in (("target", goal), ("floor", floors), ("worth", worth)):
        check_objectives(what, given or {}, settings)
    if not goal and not floors and not worth:
        raise InputError("target: found none; give --target, --floor or --worth, such as harmless=0.5")
    if goal and worth:
        raise InputError("worth: it is how rewards are added up, and a target is come near to; give one of the two")
    bank = request.collect()
    known = calibrated(engine, bank)
    centre, scale = known.centre(bank.objectives), known.spread(bank.objectives)
    return solve_target(bank.decoding, centre, scale, goal or {}, floors or {}, request.seed, worth=worth or {})


def check_objectives(what: str, given: Mapping[str, float], objectives: Collection[str]) -> None:
    """Check that `given` has finite numbers for known objectives. Raises InputError, which begins with `what`."""
    for name, value in given.items():
        if name not in objectives:
            raise InputError(f"{what}: no reward is for '{name}'; there are {', '.join(objectives)}")
        if not math.isfinite(value):
            raise InputError(f"{what}: {name} is {value}; give a finite number, such as 0.5")


def solve_target(
    bank: Bank,
    centre: Array,
    scale: Array,
    goal: Mapping[str, float],
    floors: Mapping[str, float],
    seed: int = 0,
    repeats: int = REPEATS,
    start: Array | None = None,
    worth: Mapping[str, float] = MappingProxyType({}),
) -> Solution:
    """Return the solution from a bank, with errors by bootstrap over prompts.

    Args:
        bank: the bank.
        centre: [R], the mean that each reward is standardised by.
        scale: [R], the standard deviation that each reward is standardised by.
        goal: see `target`.
        floors: see `target`.
        seed: of the starting points and the bootstrap.
        repeats: the number of bootstrap samples.
        start: [K], the only starting point, for speed; if None, the best of many.
        worth: see `target`.

    Raises:
        InputError: no weights that were found satisfy the floors.
    """
    rng = np.random.default_rng(seed)
    weights, path = optimise_target(bank, centre, scale, goal, floors, rng, start, worth)
    size = len(bank.prompts)
    again = []
    for _ in range(repeats if size > 1 else 0):
        part = bank.of_prompts(rng.integers(size, size=size))
        try:
            other, _ = optimise_target(part, centre, scale, goal, floors, rng, weights, worth)
        except InputError:  # in this part of the prompts the floors are out of reach
            continue
        again.append((other, float(part.estimate(other).objective)))
    return from_bank(SOLVER.name, bank, weights, again, path)


def optimise_target(
    bank: Bank,
    centre: Array,
    scale: Array,
    goal: Mapping[str, float],
    floors: Mapping[str, float],
    rng: np.random.Generator,
    start: Array | None = None,
    worth: Mapping[str, float] = MappingProxyType({}),
) -> tuple[Array, list[Array]]:
    """Return the best weights [K] and the path to them.

    Expected rewards are not concave in λ, so several starting points are refined. Raises InputError if no result
    satisfies the floors.
    """
    count = len(bank.policies)
    aimed = [bank.objectives.index(name) for name in goal]
    point = np.array(list(goal.values()))
    floored = [bank.objectives.index(name) for name in floors]
    floor = np.array(list(floors.values()))
    each = np.array([worth.get(name, 1.0) for name in bank.objectives])

    def standard(weights: Array) -> Array:
        return (bank.estimate(weights).rewards - centre) / scale

    def loss_of(rewards: Array) -> Array:
        if goal:
            return ((rewards[..., aimed] - point) ** 2).sum(-1)
        return -rewards @ each

    def loss(weights: Array) -> tuple[float, Array]:
        rewards, slopes = standard(weights), bank.reward_slopes(weights) / scale[:, None]
        if goal:
            return float(loss_of(rewards)), 2 * (rewards[aimed] - point) @ slopes[aimed]
        return float(loss_of(rewards)), -each @ slopes

    def missed(rewards: Array) -> Array:
        return (floor - rewards[..., floored]).clip(0).max(-1, initial=0)

    if start is None:
        tried = np.concatenate([np.eye(count), [np.full(count, 1 / count)], rng.dirichlet(np.ones(count), size=STARTS)])
        rewards = standard(tried)
        order = np.lexsort((loss_of(rewards), np.round(missed(rewards), 3)))
        starts = tried[order[:FOLLOWED]]
    else:
        starts = np.array([start])
    constraints: list[dict] = [{"type": "eq", "fun": lambda at: at.sum() - 1, "jac": lambda at: np.ones(count)}]
    if floors:
        constraints.append(
            {
                "type": "ineq",
                "fun": lambda at: standard(at)[floored] - floor,
                "jac": lambda at: (bank.reward_slopes(at) / scale[:, None])[floored],
            }
        )
    found: list[tuple[float, Array, list[Array]]] = []
    for first in starts:
        path = [first]
        made = minimize(
            loss, first, jac=True, method="SLSQP", bounds=[(0, 1)] * count, constraints=constraints,
            options={"maxiter": 200}, callback=lambda at, path=path: path.append(at.copy()),
        )  # fmt: skip
        weights = made.x.clip(0) / made.x.clip(0).sum()
        if missed(standard(weights)) <= CLOSE:
            found.append((loss(weights)[0], weights, [*path, weights]))
    if not found:
        best = starts[0]
        short = dict(zip(floors, standard(best)[floored].round(2).tolist(), strict=True))
        raise InputError(
            f"floor: no weights keep to {dict(floors)}; the nearest found give {short}; lower a floor, or leave one out"
        )
    _, weights, path = min(found, key=lambda one: one[0])
    return weights, path


SOLVER = Solver(
    name="target",
    paper="importance weighting over a bank (Veach and Guibas, 1995)",
    summary="the most expected reward above the floors",
    find=target,
    options={"goal": "target", "floors": "floor", "worth": "worth"},
    order=4,
)
