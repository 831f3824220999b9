"""Expected rewards of weights with their errors, and a point that is better in all objectives where there is one."""

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

    gains, errors: by objective, in standard deviations, with the standard error over prompts of the paired difference.
    significant: every gain is more than SIGNIFICANT standard errors.
    """

    weights: dict[str, float]
    gains: dict[str, float]
    errors: dict[str, float]
    significant: bool

    def among(self, policies: list[str], fixed: Mapping[str, float]) -> Better:
        """Return the point of all policies, in this order, where `fixed` (Bank.holding) keep their weights."""
        left = 1 - sum(fixed.values())
        whole = {name: fixed[name] if name in fixed else left * self.weights[name] for name in policies}
        return replace(self, weights=whole)


@dataclass(frozen=True)
class Outcome:
    """Expected rewards of one point. rewards, errors: by objective, in standard deviations from the reference's mean.

    The errors are standard errors over prompts, the sampling of the responses included: those of the mean that prompts
    of the same kind would have.
    """

    rewards: dict[str, float]
    errors: dict[str, float]
    better: Better | None

    def as_dict(self) -> dict[str, object]:
        return {"expected": self.rewards, "expected_errors": self.errors, "better": self.better and vars(self.better)}


def outcome(bank: Bank, centre: Array, scale: Array, weights: Array, search: bool = True) -> Outcome:
    """Return the expected rewards at `weights` [K]. centre, scale: [R]; search: for a better point too."""
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
    """Return the bank of the objectives that have a scale, with the reference's means and standard deviations [R].

    A reward that is constant for the reference has none, and is left out. Raises InputError if a reward is not
    calibrated yet, or none is left.
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
    """Return what the bank expects of decoding with these weights; None without a reward that has a scale."""
    Calibration(engine).load(bank)
    try:
        part, centre, scale = scaled(bank.decoding, engine)
    except InputError:
        return None
    return outcome(part, centre, scale, np.array([weights[name] for name in bank.policies]))
