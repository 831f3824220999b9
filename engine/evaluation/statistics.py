"""Win rates with intervals, by bootstrap over prompts."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from engine.bank.collection import Array

log = logging.getLogger("mixdesk")
REPEATS = 2000  # of the bootstrap over prompts


def rates(objectives: list[str], won: Array, seed: int) -> dict[str, Any]:
    """Return {"win_rates": {objective: [rate, low, high]}, "minimum": [rate, low, high]} of wins [prompts, R]."""
    intervals = with_intervals(won, np.random.default_rng(seed))
    return {"win_rates": dict(zip(objectives, intervals[:-1], strict=True)), "minimum": intervals[-1]}


def minimum_above(ours: Array, theirs: Array, seed: int) -> list[float]:
    """Return [difference, low, high] of two methods' lowest win rates, with a 95% interval by paired bootstrap.

    ours, theirs: [prompts, R], wins of the two methods. Prompts with NaN in either are left out.
    """
    known = ~(np.isnan(ours) | np.isnan(theirs)).any(1)
    ours, theirs = ours[known], theirs[known]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(ours), size=(REPEATS, len(ours)))
    again = ours[drawn].mean(1).min(1) - theirs[drawn].mean(1).min(1)
    low, high = np.quantile(again, [0.025, 0.975])
    return [float(ours.mean(0).min() - theirs.mean(0).min()), float(low), float(high)]


def with_intervals(won: Array, rng: np.random.Generator) -> list[list[float]]:
    """Return [rate, low, high] for each objective of wins [prompts, R], and for the lowest, with 95% intervals."""
    drawn = rng.integers(len(won), size=(REPEATS, len(won)))
    again = won[drawn].mean(1)  # [REPEATS, R]
    rates = [*won.mean(0), won.mean(0).min()]
    spread = np.quantile(np.column_stack([again, again.min(1)]), [0.025, 0.975], axis=0)
    return [[float(rate), float(low), float(high)] for rate, low, high in zip(rates, *spread, strict=True)]
