"""Max-min of expected rewards: never a point that another one beats in everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from engine.bank.estimate import Bank
from engine.solvers import maxmin


def random_bank(rng: np.random.Generator) -> Bank:
    policies, rewards = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    prompts, responses = int(rng.integers(2, 6)), int(rng.integers(12, 40))
    ratios = rng.normal(size=(prompts, responses, policies)) * rng.uniform(0.2, 0.8)
    given = rng.normal(size=(prompts, responses, rewards)) + ratios @ rng.normal(size=(policies, rewards))
    names = [f"p{i}" for i in range(policies)]
    return Bank(names, [f"r{i}" for i in range(rewards)], ["x"] * prompts, ratios, np.zeros(ratios.shape[:2]), given, 0)


def expected_rewards(bank: Bank, weights: np.ndarray) -> tuple[np.ndarray, bool]:
    """By hand, prompt by prompt: the expected rewards, and whether the bank is to be relied on there."""
    means, sizes = [], []
    for ratios, rewards in zip(bank.log_ratios, bank.rewards, strict=True):
        w = np.exp(ratios @ weights)
        w /= w.sum()
        means.append(w @ rewards)
        sizes.append(1 / (w**2).sum())
    size = float(np.mean(sizes))
    return np.mean(means, 0), size >= 2 and size / bank.rewards.shape[1] >= 0.1


@pytest.mark.parametrize("seed", range(50))
def test_nothing_dominates_what_is_found(seed: int) -> None:
    bank = random_bank(np.random.default_rng(seed))
    size = len(bank.objectives)
    solution = maxmin.solve_maxmin(bank, np.zeros(size), np.ones(size), repeats=0)
    weights = np.array(list(solution.weights.values()))
    assert weights.sum() == pytest.approx(1) and weights.min() >= 0
    found, reliable = expected_rewards(bank, weights)
    assert reliable
    count, steps = len(bank.policies), {2: 100, 3: 20, 4: 12}[len(bank.policies)]
    grid = [at for at in itertools.product(range(steps + 1), repeat=count) if sum(at) == steps]
    for at in grid:
        other, reliable = expected_rewards(bank, np.array(at) / steps)
        if reliable:
            assert other.min() <= found.min() + 5e-3, "the smallest is the largest that can be had"
            assert not (np.all(other >= found) and np.any(other > found + 1e-6)), f"{at} dominates"
