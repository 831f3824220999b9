"""Expected rewards of a bank with missing rewards, and another attempt at computing these."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bank.storage import BankFile, Unit
from engine.inference.engine import Engine
from engine.rewards.missing import missing_counts, missing_line

Array = NDArray[np.float64]
log = logging.getLogger("mixdesk")


def known_rewards(rewards: Array, own: Array) -> tuple[Array, Array]:
    """Return each response's share of an expected reward, and the rewards, where some may be missing.

    Args:
        rewards: [P, N, R], NaN where one is missing.
        own: [..., P, N], each response's share of its prompt; they sum to one over a prompt's responses.

    Returns:
        Shares [..., P, N, R], among those with the reward and summing to one, or to zero where a prompt has none
        (a single axis of length 1 for R if nothing is missing); rewards [P, N, R] with 0 for NaN.
    """
    known = np.isfinite(rewards)
    if known.all():
        return own[..., None], rewards
    shares = own[..., None] * known
    total = shares.sum(-2, keepdims=True)
    return np.divide(shares, total, out=np.zeros_like(shares), where=total > 0), np.where(known, rewards, 0.0)


def reward_prompts(rewards: Array, by_prompt: Array) -> Array:
    """Return the weight of each prompt in each expected reward, zero if all of its rewards are missing.

    The result is [P, R], or [P, 1] if no reward is missing.
    """
    known = np.isfinite(rewards)
    if known.all():
        return by_prompt[:, None]
    counted = by_prompt[:, None] * known.any(1)
    with np.errstate(invalid="ignore"):
        return counted / counted.sum(0)  # NaN for a reward that no response has


def over_prompts(values: Array) -> tuple[Array, Array]:
    """Return the mean over prompts of values [P, R], and its standard error: [R], [R]. NaN values are left out."""
    known = np.isfinite(values)
    count = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, values, 0.0).sum(0) / count
        spread = np.where(known, values - mean, 0.0)
        return mean, np.sqrt((spread**2).sum(0) / (count - 1) / count)


def weighted(shares: Array, values: Array) -> Array:
    """Return the sums over responses of shares [..., P, N, R or 1] times values [P, N, R]: [..., P, R]."""
    if shares.shape[-1] != values.shape[-1]:
        return np.einsum("...pn,pnr->...pr", shares[..., 0], values)
    return np.einsum("...pnr,pnr->...pr", shares, values)


def rewards_of(row: Mapping[str, Any], objectives: list[str]) -> list[float]:
    """Return a response's rewards from its row, NaN for those that it lacks."""
    return [row["rewards"].get(name, np.nan) for name in objectives]


def tell_missing(rows: Iterable[Mapping[str, Any]]) -> None:
    """Log how many rewards a bank lacks, and why."""
    if counts := missing_counts(row.get("missing_rewards", {}) for row in rows):
        log.warning("bank: rewards are missing, and these responses are left out of them: %s", missing_line(counts))


def score_again(engine: Engine, found: dict[Unit, list[dict[str, Any]]], file: BankFile | None) -> None:
    """Try again to compute the rewards that rows of the file lack, since the cause of the failure may be fixed."""
    for unit, rows in found.items():
        lacking = [row for row in rows if row.get("missing_rewards")]
        if not lacking:
            continue
        names = {name for row in lacking for name in row["missing_rewards"]}
        scored = engine.rewards([(unit[0], row["text"], None) for row in lacking], names)
        for row, rewards in zip(lacking, scored, strict=True):
            row["rewards"] = {**rewards, **row["rewards"]}
            row["missing_rewards"] = {name: why for name, why in rewards.missing.items() if name not in row["rewards"]}
        if file and any(rewards for rewards in scored):
            file.add(unit, rows)
