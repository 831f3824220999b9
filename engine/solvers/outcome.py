"""Expected rewards at given weights with their errors, and a point that is better in all objectives if one exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.bank.calibration import Calibration
from engine.bank.collection import Array
from engine.bank.estimate import Bank
from engine.errors import InputError
from engine.inference.engine import Engine
from engine.solvers import maxmin

MARGIN = 0.01  # standard deviations; a point that gains less than this in an objective is not called better
SIGNIFICANT = 2.0  # standard errors


@dataclass(frozen=True)
class Better:
    """A point that is better in all objectives.

    Attributes:
        weights: {policy: weight}.
        gains: {objective: gain in standard deviations}.
        errors: {objective: standard error over prompts of the gain, a paired difference}.
        significant: whether every gain is more than SIGNIFICANT standard errors.
    """

    weights: dict[str, float]
    gains: dict[str, float]
    errors: dict[str, float]
    significant: bool

    def among(self, policies: list[str], fixed: Mapping[str, float]) -> Better:
        """Return the point over all policies, in this order, with the weights that were held fixed (Bank.holding)."""
        left = 1 - sum(fixed.values())
        whole = {name: fixed[name] if name in fixed else left * self.weights[name] for name in policies}
        return replace(self, weights=whole)


@dataclass(frozen=True)
class Outcome:
    """Expected rewards at one point.

    Attributes:
        rewards: {objective: standard deviations from the reference's mean}.
        errors: {objective: standard error}, over prompts as a sample of prompts like these; the error of sampling the
            responses is included.
        better: a point that is better in all objectives, if one was found.
    """

    rewards: dict[str, float]
    errors: dict[str, float]
    better: Better | None

    def as_dict(self) -> dict[str, object]:
        """Return the outcome for JSON."""
        return {"expected": self.rewards, "expected_errors": self.errors, "better": self.better and vars(self.better)}


def outcome(bank: Bank, centre: Array, scale: Array, weights: Array, search: bool = True) -> Outcome:
    """Return the expected rewards at `weights`.

    Args:
        bank: the bank.
        centre: [R], the mean that each reward is standardised by.
        scale: [R], the standard deviation that each reward is standardised by.
        weights: [K].
        search: also search for a better point.
    """
    rewards = (bank.estimate(weights).rewards - centre) / scale
    return Outcome(
        rewards=dict(zip(bank.objectives, rewards.tolist(), strict=True)),
        errors=dict(zip(bank.objectives, (bank.prompt_errors(weights) / scale).tolist(), strict=True)),
        better=better_point(bank, scale, weights) if search else None,
    )


def better_point(bank: Bank, scale: Array, weights: Array) -> Better | None:
    """Return the point whose smallest gain over `weights` [K] is the largest, if it gains in every objective."""
    # Max-min with the rewards at `weights` as the origin maximises the smallest gain.
    found, _ = maxmin.optimise_maxmin(bank, bank.estimate(weights).rewards, scale)
    gains, errors = bank.prompt_change(weights, found)
    gains, errors = gains / scale, errors / scale
    if gains.min() < MARGIN:
        return None
    return Better(
        weights=dict(zip(bank.policies, found.tolist(), strict=True)),
        gains=dict(zip(bank.objectives, gains.tolist(), strict=True)),
        errors=dict(zip(bank.objectives, errors.tolist(), strict=True)),
        significant=bool(np.all(gains > SIGNIFICANT * errors)),
    )


def scaled(bank: Bank, engine: Engine) -> tuple[Bank, Array, Array]:
    """Return the bank restricted to objectives with a scale, and the reference's means and standard deviations [R].

    A reward that is constant for the reference has no scale, and is left out.

    Raises:
        InputError: a reward is not calibrated yet, or none is left.
    """
    known = engine.reward_set.scale
    known.require(known.uncalibrated(bank.objectives))
    names = [name for name in bank.objectives if name in known.std]
    if not names:
        known.require(bank.objectives)
        raise InputError(f"{engine.config.file}: rewards: found none, expected at least one")
    part = bank if names == bank.objectives else bank.of_objectives(names)
    return part, known.centre(names), known.spread(names)


def expect(engine: Engine, bank: Bank, weights: Mapping[str, float]) -> Outcome | None:
    """Return the outcome that a bank predicts for decoding with these weights; None if no reward has a scale."""
    Calibration(engine).load(bank)
    try:
        part, centre, scale = scaled(bank.decoding, engine)
    except InputError:
        return None
    return outcome(part, centre, scale, np.array([weights[name] for name in bank.policies]))
