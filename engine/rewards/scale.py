"""The scale of rewards: mean and standard deviation of the reference's rewards, and z-scores against them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError


@dataclass(frozen=True)
class RewardScale:
    """Mean and standard deviation of the reference's rewards, by objective.

    An objective is in `mean` and `std` once it is calibrated, or in `constant` if all of the reference's rewards for it
    are equal, so that there is no standard deviation to divide by. An objective in neither is not calibrated yet.
    """

    mean: Mapping[str, float] = field(default_factory=dict)
    std: Mapping[str, float] = field(default_factory=dict)
    constant: frozenset[str] = frozenset()

    @classmethod
    def from_samples(cls, mean: Mapping[str, float], std: Mapping[str, float]) -> RewardScale:
        """Return the scale of estimated moments; a standard deviation that is only rounding error counts as zero."""
        known = {name: value > 1e-6 * max(1.0, abs(mean[name])) for name, value in std.items()}
        return cls(
            {name: float(mean[name]) for name in std if known[name]},
            {name: float(value) for name, value in std.items() if known[name]},
            frozenset(name for name in std if not known[name]),
        )

    def merged(self, other: RewardScale) -> RewardScale:
        """Return this scale with the objectives that `other` adds; values of this scale take precedence."""
        return RewardScale(
            {**other.mean, **self.mean}, {**other.std, **self.std}, (self.constant | other.constant) - set(self.std)
        )

    def uncalibrated(self, objectives: Iterable[str]) -> list[str]:
        """Return the objectives that are neither calibrated nor known to be constant."""
        return [name for name in objectives if name not in self.std and name not in self.constant]

    def standard(self, rewards: Mapping[str, float]) -> dict[str, float]:
        """Return the z-scores of the calibrated objectives among `rewards`."""
        return {name: (value - self.mean[name]) / self.std[name] for name, value in rewards.items() if name in self.std}

    def require(self, objectives: Iterable[str]) -> RewardScale:
        """Return this scale if it covers all objectives. Raises InputError if one is constant or not calibrated."""
        objectives = list(objectives)
        if constant := [name for name in objectives if name in self.constant]:
            raise InputError(
                f"reward '{constant[0]}': all of the reference's responses have the same reward, so that there is no "
                "standard deviation; give mean and std in the configuration, or leave this reward out"
            )
        if missing := self.uncalibrated(objectives):
            raise InputError(f"rewards: {', '.join(missing)} not calibrated yet; give mean and std, or wait for it")
        return self

    def centre(self, objectives: Iterable[str]) -> NDArray[np.float64]:
        """Return the means [R]; NaN for an objective that is not calibrated."""
        return np.array([self.mean.get(name, np.nan) for name in objectives])

    def spread(self, objectives: Iterable[str]) -> NDArray[np.float64]:
        """Return the standard deviations [R]; NaN for an objective that is not calibrated."""
        return np.array([self.std.get(name, np.nan) for name in objectives])
