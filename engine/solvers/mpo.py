"""Max-min weights (MPO, arXiv 2502.18699, Theorem 3.10) by minimisation of the bank's F̂ over the simplex."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from engine.bank.collection import Array
from engine.bank.estimate import LOW_ESS_FRACTION, Bank
from engine.bank.objective import Objective
from engine.config import REFERENCE
from engine.solvers.bank_request import BankRequest
from engine.solvers.solution import Solution, from_bank
from engine.solvers.solver import Solver

GAP = 1e-6  # nats
ROUGH_GAP = 1e-4  # nats, in the bootstrap
REPEATS = 100  # of the bootstrap
MOST_TIMES = 4  # as many responses as were asked for, before it gives up on the effective sample size


def mpo(request: BankRequest) -> Solution:
    """Return λ* = argmin F over the simplex.

    While the effective sample size at the solution is low, more responses are sampled, up to MOST_TIMES as many. The
    bank is reference-free, which costs less, unless the request's file has the reference among its proposals.

    Raises:
        InputError: the request is not valid, or sampling was stopped.
    """
    reference_free = request.file is None or REFERENCE not in request.file.proposals
    for times in (1, 2, MOST_TIMES):
        bank = request.collect_reference_free(times) if reference_free else request.collect(times=times)
        solution = solve_mpo(bank, request.seed)
        if solution.ess_fraction >= LOW_ESS_FRACTION:
            break
    return solution


def solve_mpo(bank: Bank, seed: int = 0, repeats: int = REPEATS) -> Solution:
    """Return the solution from a bank, with errors by bootstrap over prompts."""
    objective = Objective(bank)
    weights, gap, path = minimise(objective)
    rng = np.random.default_rng(seed)
    size = len(bank.prompts)
    again = []
    for _ in range(repeats if size > 1 else 0):
        drawn = rng.multinomial(size, np.full(size, 1 / size)).astype(float)
        other, _, _ = minimise(objective, drawn, weights, ROUGH_GAP)
        again.append((other, objective(other, drawn)[0]))
    return from_bank(SOLVER.name, bank, weights, again, path, gap, objective(weights)[0], objective.share(weights))


def minimise(
    objective: Objective, prompts: Array | None = None, start: Array | None = None, tolerance: float = GAP
) -> tuple[Array, float, list[Array]]:
    """Minimise F̂ over the simplex.

    If F̂ is convex, F̂(λ) - min F̂ <= λ·∇F̂ - min_k ∂F̂/∂λ_k, the duality gap; with a control variate F̂ need not be
    convex, and the gap measures the violation of the first-order conditions. SLSQP runs first; if it stops early,
    exponentiated-gradient steps, which cannot leave the simplex, continue.

    Args:
        objective: F̂.
        prompts: [P], the weight of each prompt; uniform if None.
        start: [K], the initial weights; uniform if None.
        tolerance: the gap to reach, in nats.

    Returns:
        The weights [K], the gap in nats, and the path to the weights.
    """
    size = len(objective.bank.policies)
    weights = np.full(size, 1 / size) if start is None else start
    path = [weights]

    def value(at: Array) -> tuple[float, Array]:
        return objective(at, prompts)

    if size > 1:
        found = minimize(
            value,
            weights,
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * size,
            constraints={"type": "eq", "fun": lambda at: at.sum() - 1, "jac": lambda at: np.ones(size)},
            options={"ftol": 1e-6 * tolerance, "maxiter": 200},
            callback=lambda at: path.append(at.copy()),
        )
        weights = found.x.clip(0)
        weights = weights / weights.sum()
    now, gradient = value(weights)
    gap, step = float(gradient @ weights - gradient.min()), 1.0
    for _ in range(2000):
        if gap <= tolerance:
            break
        # A weight of zero could never come back.
        mixed = 0.999 * weights + 0.001 / size
        moved = mixed * np.exp(-step * (gradient - gradient.min()))
        moved /= moved.sum()
        after, other = value(moved)
        if after < now:
            weights, now, gradient, step = moved, after, other, step * 1.5
            path.append(weights)
            gap = float(gradient @ weights - gradient.min())
        else:
            step /= 2
        if step < 1e-9:
            break
    return weights, gap, [*path, weights]


SOLVER = Solver(
    name="mpo",
    paper="MPO, arXiv 2502.18699, Theorem 3.10",
    summary="by the policies’ own rewards, the one that gains least gains all it can",
    find=mpo,
    reference_free=True,
    order=1,
)
