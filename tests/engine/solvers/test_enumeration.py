"""Bank and solvers against policies whose responses are all written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import Sampling
from engine.bank.collection import collect
from engine.bank.collection import proposals as engine_proposals
from engine.bank.estimate import Bank
from engine.bank.storage import BankFile
from engine.solvers.mpo import solve_mpo
from tests.engine.conftest import LENGTH, PROMPTS, Exact, Small

EVERY = [(2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1)]
SAMPLING = Sampling(max_new_tokens=LENGTH, temperature=1.0)


def proposals(exact: Exact) -> list[np.ndarray]:
    """The reference, every policy, and all policies alike."""
    size = exact.log_probs.shape[-1]
    return [*np.eye(size), np.array([0, *[1 / (size - 1)] * (size - 1)])]


@pytest.mark.parametrize(("count", "seed"), EVERY)
def test_all_responses_add_up_to_one(small: Callable[[int, int], Small], count: int, seed: int) -> None:
    exact = small(count, seed).exact
    for log_probs in (exact.log_probs, exact.log_even):
        assert np.abs(np.exp(log_probs).sum(1) - 1).max() < 1e-5


def test_responses_drawn_from_the_tables_count_as_those_of_the_batch(
    small: Callable[[int, int], Small], tmp_path: Path
) -> None:
    """log_base of the engine's own bank, from the tables: with the even mixture token by token; and what it cost."""
    engine, exact = small(3, 0).engine, small(3, 0).exact
    sources = engine_proposals(engine)
    file = BankFile(engine.config, SAMPLING, sources, folder=tmp_path)
    bank = collect(engine, PROMPTS, 25, SAMPLING, sources=sources, file=file)
    rounds = file.read()
    place = {text: i for i, text in enumerate(exact.texts)}
    said = [[row["text"] for n in range(5) for row in rounds[prompt, n]] for prompt in PROMPTS]
    chosen = np.array([[place[text] for text in texts] for texts in said])
    proposed = exact.proposed()
    at = np.arange(len(PROMPTS))[:, None], chosen
    balance = np.logaddexp.reduce(proposed[:, at[0], chosen], 0) - np.log(len(proposed))
    assert bank.log_base == pytest.approx(exact.log_probs[at][..., 0] - balance, abs=1e-4)
    assert bank.policy_tokens == exact.lengths[chosen].sum() * 4


@pytest.mark.parametrize(("count", "seed"), EVERY)
def test_weights_and_objective(small: Callable[[int, int], Small], count: int, seed: int) -> None:
    exact = small(count, seed).exact
    bank = exact.sample(proposals(exact), 4000, np.random.default_rng(seed))
    solution = solve_mpo(bank, seed, repeats=5)
    found, best = np.array(list(solution.weights.values())), exact.best()
    assert 0.5 * np.abs(found - best).sum() < 0.02
    assert abs(solution.objective - exact.objective(best)) < 0.01
    assert solution.gap is not None
    assert solution.gap < 1e-5
    # The test of optimality: the same distance from every policy that has weight, a smaller one from the others.
    log_mixture, _ = exact.log_mixture(found)
    distances = np.einsum("py,pyk->k", np.exp(log_mixture), log_mixture[..., None] - exact.log_probs[..., 1:])
    distances /= len(PROMPTS)
    active = found > 0.02
    assert np.ptp(distances[active]) < 0.02
    assert (distances[~active] < distances[active].mean() + 0.02).all()
    assert abs(distances[active].mean() + solution.objective) < 0.02


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (3, 1), (4, 0)])
def test_a_bank_of_real_samples(small: Callable[[int, int], Small], count: int, seed: int) -> None:
    """Drawn in the running batch, as anyone's are: F, its gradient and the rewards are within their errors."""
    engine, exact = small(count, seed).engine, small(count, seed).exact
    bank = collect(engine, PROMPTS, responses=150, sampling=SAMPLING, seed=seed)
    for weights in (exact.best(), np.eye(count)[0], np.full(count, 1 / count)):
        estimate = bank.estimate(weights)
        assert abs(estimate.objective - exact.objective(weights)) < 4 * estimate.error + 1e-5
        assert (np.abs(estimate.rewards - exact.expected(weights)) < 4 * estimate.reward_errors + 1e-5).all()
        assert (estimate.reward_errors < 0.15).all()
        assert estimate.gradient == pytest.approx(exact.gradient(weights), abs=0.3)
        assert estimate.ess_fraction > 0.3


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_stated_errors_hold_95_times_of_100(small: Callable[[int, int], Small], count: int) -> None:
    exact, rng = small(count, 0).exact, np.random.default_rng(count)
    best, weights = exact.best(), np.full(count, 1 / count)
    objective, rewards, at_best = [], [], []
    for _ in range(200):
        bank = exact.sample(proposals(exact), 24, rng)
        estimate = bank.estimate(weights)
        objective.append(abs(estimate.objective - exact.objective(weights)) < 1.96 * estimate.error)
        rewards.append(np.abs(estimate.rewards - exact.expected(weights)) < 1.96 * estimate.reward_errors)
        found = solve_mpo(bank, repeats=20)
        at_best.append(abs(found.objective - exact.objective(best)) < 1.96 * found.objective_error)
    # 190 of 200 are expected; 181 is three standard deviations below.
    assert sum(objective) >= 181
    assert (np.sum(rewards, 0) >= 181).all()
    assert sum(at_best) >= 181


def test_gradients_are_those_of_automatic_differentiation(small: Callable[[int, int], Small]) -> None:
    exact = small(3, 0).exact
    bank = exact.sample(proposals(exact), 10, np.random.default_rng(0))
    weights = torch.tensor([0.5, 0.2, 0.7], dtype=torch.double, requires_grad=True)
    log_w = torch.tensor(bank.log_ratios) @ weights + torch.tensor(bank.log_base)
    objective = (log_w.logsumexp(1) - np.log(bank.log_base.shape[1])).mean()
    objective.backward()
    estimate = bank.estimate(weights.detach().numpy())
    assert estimate.objective == pytest.approx(objective.item(), abs=1e-12)
    assert estimate.gradient == pytest.approx(weights.grad.numpy(), abs=1e-12)


def test_many_weights_at_once_are_the_same_one_by_one(small: Callable[[int, int], Small]) -> None:
    exact = small(3, 0).exact
    bank = exact.sample(proposals(exact), 10, np.random.default_rng(0))
    many = np.random.default_rng(1).dirichlet(np.ones(3), size=50)
    together = bank.estimate(many)
    for i, weights in enumerate(many):
        alone = bank.estimate(weights)
        for name, value in vars(alone).items():
            assert np.allclose(getattr(together, name)[i], value, atol=1e-10), name


def identical() -> Bank:
    shape = (4, 30)
    ratios = np.random.default_rng(0).normal(size=(*shape, 1)).repeat(2, -1)
    return Bank(["a", "b"], ["r"], list("wxyz"), ratios, -ratios[..., 0] / 2, np.ones((*shape, 1)), 0)


def test_policies_that_are_alike_and_rewards_that_are_constant_are_no_trouble() -> None:
    solution = solve_mpo(identical())
    assert sum(solution.weights.values()) == pytest.approx(1)
    assert solution.rewards == {"r": pytest.approx(1)}
    assert solution.reward_errors == {"r": pytest.approx(0, abs=1e-9)}


def test_one_policy_alone_gets_all_weight(small: Callable[[int, int], Small]) -> None:
    exact = small(2, 0).exact
    alone = replace(exact, log_probs=exact.log_probs[..., :2], log_even=None)
    bank = alone.sample(list(np.eye(2)), 10, np.random.default_rng(0))
    assert solve_mpo(bank).weights == {"p0": 1.0}


def test_a_policy_between_the_others_gets_no_weight(small: Callable[[int, int], Small]) -> None:
    """The even mixture of two policies, as a third: the others span more than it."""
    exact = small(2, 1).exact
    between, _ = exact.log_mixture(np.array([0.5, 0.5]))
    three = replace(exact, log_probs=np.concatenate([exact.log_probs, between[..., None]], -1), log_even=None)
    bank = three.sample(list(np.eye(4)), 300, np.random.default_rng(0))
    solution = solve_mpo(bank, repeats=5)
    assert solution.weights["p2"] < 0.02


def test_a_bank_that_cannot_say_says_so() -> None:
    """Policies so far from the responses that one of 200 has nearly all weight."""
    ratios = np.random.default_rng(0).normal(scale=8, size=(4, 200, 2))
    bank = Bank(["a", "b"], ["r"], list("wxyz"), ratios, np.zeros((4, 200)), np.ones((4, 200, 1)), 0)
    estimate = bank.estimate([0.5, 0.5])
    assert estimate.ess_fraction < 0.1
    assert not estimate.reliable
    assert "effective sample size" in solve_mpo(bank, repeats=2).note
