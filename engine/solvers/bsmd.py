"""The paper's solver (MPO, arXiv 2502.18699, Algorithm 1): batch stochastic mirror descent, from reference samples."""

from __future__ import annotations

import math

import numpy as np

from engine.bank.collection import Array
from engine.bank.estimate import Bank
from engine.config import REFERENCE
from engine.inference.engine import Engine
from engine.rules.mixture import Mixture
from engine.solvers.bank_request import BankRequest
from engine.solvers.solution import Solution, from_bank
from engine.solvers.solver import Solver

REPEATS = 50  # of the bootstrap


def bsmd(request: BankRequest, batch: int = 8, rate: float = 1.0) -> Solution:
    """Return the average iterate of batch stochastic mirror descent on F.

    The responses do not depend on the weights, so all of them are sampled first. Every step then uses `batch` responses
    to one prompt, and no response is used twice.

    Args:
        request: the bank of the reference's responses; its seed is also that of the order of the steps.
        batch: the number of responses in one step.
        rate: the step size times the square root of the number of steps.

    Raises:
        InputError: the request is not valid, or sampling was stopped.
    """
    return solve_bsmd(request.collect(reference_alone(request.engine)), batch, rate, request.seed)


def solve_bsmd(bank: Bank, batch: int, rate: float = 1.0, seed: int = 0, repeats: int = REPEATS) -> Solution:
    """Return the solution from a bank of the reference's responses, with errors by bootstrap over prompts."""
    rng = np.random.default_rng(seed)
    size = len(bank.prompts)
    weights, path = descend(bank, np.arange(size), batch, rate, rng)
    again = []
    for _ in range(repeats if size > 1 else 0):
        drawn = rng.integers(size, size=size)
        other, _ = descend(bank, drawn, batch, rate, rng)
        again.append((other, float(bank.estimate(other, np.bincount(drawn, minlength=size).astype(float)).objective)))
    return from_bank(SOLVER.name, bank, weights, again, path)


def descend(
    bank: Bank, prompts: np.ndarray, batch: int, rate: float, rng: np.random.Generator
) -> tuple[Array, list[Array]]:
    """Run mirror descent over all batches of these prompts' responses, the prompts in random order.

    Each of the T steps is λ_k ← λ_k exp(-η g_k) / norm, with η = rate/√T.

    Returns:
        The average iterate [K], and the iterates.
    """
    count = bank.log_ratios.shape[1] // batch or 1
    steps = [(prompt, part) for part in range(count) for prompt in rng.permutation(prompts)]
    log_weights = np.zeros(len(bank.policies))
    step_size = rate / math.sqrt(len(steps))
    path, total = [], np.zeros(len(bank.policies))
    for prompt, part in steps:
        weights = np.exp(log_weights - np.logaddexp.reduce(log_weights))
        total += weights
        path.append(weights)
        ratios = bank.log_ratios[prompt, part * batch : (part + 1) * batch]  # [batch, K]
        log_w = ratios @ weights
        own = np.exp(log_w - np.logaddexp.reduce(log_w))
        log_weights -= step_size * (own @ ratios)
    return total / len(steps), path


def reference_alone(engine: Engine) -> dict[str, Mixture]:
    """Return the proposals of the paper's solver, which takes samples of the reference."""
    return {REFERENCE: engine.mixture({REFERENCE: 1.0})}


SOLVER = Solver(
    name="bsmd",
    paper="MPO, arXiv 2502.18699, Algorithm 1",
    summary="by the policies’ own rewards, as the paper’s own solver finds them",
    find=bsmd,
    proposals=reference_alone,
    order=2,
)
