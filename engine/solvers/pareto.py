"""The Pareto front: expected rewards over the simplex of weights, and the points that no other dominates."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from engine.bank.collection import Array
from engine.bank.estimate import Bank

POINTS = 600
PART = 100  # λs that are estimated at once, so that memory stays small whatever the bank


@dataclass(frozen=True)
class Front:
    """Expected rewards at L points of the simplex.

    Attributes:
        weights: [L, K].
        rewards: [L, R], in standard deviations.
        ess_fraction: [L], the effective sample size as a fraction of the bank's responses.
        reliable: [L], whether the estimates are reliable.
        efficient: [L], whether a point is reliable and no other reliable point dominates it.
    """

    weights: Array
    rewards: Array
    ess_fraction: Array
    reliable: NDArray[np.bool_]
    efficient: NDArray[np.bool_]


def front(bank: Bank, centre: Array, scale: Array, points: int = POINTS) -> Front:
    """Return the expected rewards over a grid on the simplex.

    Args:
        bank: the bank.
        centre: [R], the mean that each reward is standardised by.
        scale: [R], the standard deviation that each reward is standardised by.
        points: the most points of the grid.
    """
    weights = simplex(len(bank.policies), points)
    parts = [bank.estimate(weights[start : start + PART]) for start in range(0, len(weights), PART)]
    rewards = (np.concatenate([part.rewards for part in parts]) - centre) / scale
    reliable = np.concatenate([part.reliable for part in parts])
    return Front(
        weights=weights,
        rewards=rewards,
        ess_fraction=np.concatenate([part.ess_fraction for part in parts]),
        reliable=reliable,
        efficient=reliable & undominated(np.where(reliable[:, None], rewards, -np.inf)),
    )


def simplex(size: int, points: int = POINTS) -> Array:
    """Return the finest even grid on the simplex, corners included, of at most `points` points: [L, size]."""
    steps = 1
    while size > 1 and comb(steps + size, size - 1) <= points:
        steps += 1
    # Stars and bars: where size - 1 bars stand among the steps.
    bars = np.array(list(itertools.combinations(range(steps + size - 1), size - 1)), dtype=int)
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, steps + size - 1)))
    return (np.diff(edges, axis=1) - 1) / steps


def undominated(rewards: Array) -> NDArray[np.bool_]:
    """Return for each row of `rewards` [L, R] whether no other row is at least as high everywhere and higher somewhere.

    The result is [L].
    """
    as_high = np.all(rewards[:, None] <= rewards[None], axis=-1)
    higher = np.any(rewards[:, None] < rewards[None], axis=-1)
    return ~np.any(as_high & higher, axis=1)
