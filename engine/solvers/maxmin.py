"""Weights that maximise the smallest expected reward: MaxMin-RLHF (arXiv 2402.08925), over mixtures' weights.

Rewards are those of the reward models, in standard deviations from the reference's mean, expected of decoded responses.
They are not concave in λ: a grid over the simplex is searched, and its best points are refined by gradients.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from engine.bank.calibration import calibrated
from engine.bank.collection import Array
from engine.bank.estimate import Bank
from engine.errors import InputError
from engine.solvers.bank_request import BankRequest
from engine.solvers.pareto import front, undominated
from engine.solvers.solution import Solution, from_bank
from engine.solvers.solver import Solver

FOLLOWED = 4  # of the grid's best points
REPEATS = 30  # of the bootstrap
EQUAL = 1e-9  # standard deviations that make no difference


def maxmin(request: BankRequest) -> Solution:
    """Sample a bank and return the weights that maximise its smallest expected reward.

    Raises:
        InputError: the configuration has no rewards, the request is not valid, or sampling was stopped.
    """
    engine = request.engine
    if not engine.reward_set.objectives:
        raise InputError(f"{engine.config.file}: rewards: found none, expected at least one for method {SOLVER.name}")
    bank = request.collect()
    scale = calibrated(engine, bank)
    return solve_maxmin(bank.decoding, scale.centre(bank.objectives), scale.spread(bank.objectives), request.seed)


def solve_maxmin(bank: Bank, centre: Array, scale: Array, seed: int = 0, repeats: int = REPEATS) -> Solution:
    """Return the solution from a bank, with errors by bootstrap over prompts.

    Args:
        bank: the bank.
        centre: [R], the mean that each reward is standardised by.
        scale: [R], the standard deviation that each reward is standardised by.
        seed: of the bootstrap.
        repeats: the number of bootstrap samples.
    """
    weights, path = optimise_maxmin(bank, centre, scale)
    rng, size = np.random.default_rng(seed), len(bank.prompts)
    again = []
    for _ in range(repeats if size > 1 else 0):
        part = bank.of_prompts(rng.integers(size, size=size))
        other, _ = refine(part, centre, scale, weights)
        again.append((other, float(part.estimate(other).objective)))
    return from_bank(SOLVER.name, bank, weights, again, path)


def optimise_maxmin(bank: Bank, centre: Array, scale: Array) -> tuple[Array, list[Array]]:
    """Return the max-min weights [K] where the bank's estimates are reliable, and the path to them.

    If the estimates are reliable nowhere, all weights are allowed. No other point that was searched dominates the
    result, i.e. has all expected rewards at least as high and one higher.
    """
    searched = front(bank, centre, scale)
    allowed = searched.reliable if searched.reliable.any() else np.ones(len(searched.weights), dtype=bool)
    candidates = searched.weights[allowed]
    best = candidates[np.argsort(-searched.rewards[allowed].min(1), kind="stable")[:FOLLOWED]]
    paths = {}
    for start in best:
        found, path = refine(bank, centre, scale, start)
        if not searched.reliable.any() or bool(bank.estimate(found).reliable):
            paths[found.tobytes()] = path
            candidates = np.concatenate([candidates, found[None]])
    rewards = standard_expected(bank, centre, scale, candidates)
    # The largest minimum first, then, among all that are nowhere below it, the largest sum: nothing dominates that.
    first = rewards[rewards.min(1).argmax()]
    above = np.all(rewards >= first - EQUAL, axis=1) & undominated(rewards)
    chosen = candidates[np.flatnonzero(above)[rewards[above].sum(1).argmax()]]
    chosen = climb(bank, centre, scale, chosen, not searched.reliable.any())
    return chosen, [*paths.get(chosen.tobytes(), [best[0]]), chosen]


def standard_expected(bank: Bank, centre: Array, scale: Array, weights: Array) -> Array:
    """Return the expected rewards [L, R] at λ [L, K], in standard deviations."""
    parts = [bank.estimate(weights[i : i + 100]).rewards for i in range(0, len(weights), 100)]
    return (np.concatenate(parts) - centre) / scale


def refine(bank: Bank, centre: Array, scale: Array, start: Array) -> tuple[Array, list[Array]]:
    """Return a local maximum of the smallest expected reward near `start` [K], and the path to it.

    If none is better than `start`, `start` is returned.
    """
    size = len(start)

    def rewards(at: Array) -> Array:
        return (bank.estimate(at[:size]).rewards - centre) / scale

    # Maximise t, all rewards being at least t.
    lowest = float(rewards(start).min())
    path = [start]
    made = minimize(
        lambda at: -at[-1],
        np.append(start, lowest),
        jac=lambda at: np.append(np.zeros(size), -1.0),
        method="SLSQP",
        bounds=[(0, 1)] * size + [(None, None)],
        constraints=[
            {"type": "eq", "fun": lambda at: at[:size].sum() - 1, "jac": lambda at: np.append(np.ones(size), 0.0)},
            {
                "type": "ineq",
                "fun": lambda at: rewards(at) - at[-1],
                "jac": lambda at: np.column_stack(
                    [bank.reward_slopes(at[:size]) / scale[:, None], -np.ones(len(scale))]
                ),
            },
        ],
        options={"maxiter": 60},
        callback=lambda at: path.append(at[:size].copy()),
    )
    found = made.x[:size].clip(0)
    if not np.isfinite(found).all() or found.sum() <= 0:
        return start, [start]
    found = found / found.sum()
    return (found, path) if rewards(found).min() > lowest else (start, [start])


def climb(bank: Bank, centre: Array, scale: Array, start: Array, anywhere: bool) -> Array:
    """Improve weights until no small exchange between two policies raises one expected reward and lowers none.

    Unless `anywhere` is true, only weights with reliable estimates are visited.
    """
    size = len(start)
    moves = [np.eye(size)[i] - np.eye(size)[j] for i in range(size) for j in range(size) if i != j]
    at, step = start, 0.1
    here = standard_expected(bank, centre, scale, at[None])[0]
    while moves and step > 1e-3:
        tried = at + step * np.array(moves)
        tried = tried[(tried >= -1e-12).all(1)].clip(0)
        if len(tried):
            tried /= tried.sum(1, keepdims=True)
            estimate = bank.estimate(tried)
            rewards = (estimate.rewards - centre) / scale
            better = np.all(rewards >= here, axis=1) & np.any(rewards > here, axis=1) & (estimate.reliable | anywhere)
            if better.any():
                place = np.flatnonzero(better)[rewards[better].sum(1).argmax()]
                at, here = tried[place], rewards[place]
                continue
        step /= 2
    return at


SOLVER = Solver(
    name="maxmin",
    paper="MaxMin-RLHF, arXiv 2402.08925",
    summary="by the reward models, the least expected reward is the most it can be",
    find=maxmin,
    order=3,
)
