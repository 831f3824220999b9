"""The result of every solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from engine.bank.collection import Array
from engine.bank.estimate import LOW_ESS, LOW_ESS_FRACTION, Bank


@dataclass(frozen=True)
class Solution:
    """Weights with their uncertainty.

    From ratings, where nothing is sampled, `ess_fraction` and `policy_tokens` are 0; the solver defines `objective`.

    Attributes:
        method: the name of the solver.
        weights: {policy: weight}, on the simplex.
        weight_errors: {policy: standard error}, by bootstrap over prompts.
        objective: F(λ) in nats; smaller is fairer.
        objective_error: the standard error of `objective`.
        ess_fraction: the effective sample size as a fraction of the samples.
        gap: an upper bound on the distance of F̂ from its minimum over the simplex, in nats; None if unknown.
        policy_tokens: the cost: tokens drawn times policies computed.
        path: the weights on the way to the solution, for plots.
        rewards: {objective: expected reward}, in the reward's own unit.
        reward_errors: {objective: standard error}.
        note: remarks to read before the weights are used.
        lottery: mixtures, each with its probability and the standard error of the probability.
    """

    method: str
    weights: dict[str, float]
    weight_errors: dict[str, float]
    objective: float
    objective_error: float
    ess_fraction: float
    gap: float | None
    policy_tokens: int
    path: list[list[float]] = field(repr=False)
    rewards: dict[str, float] = field(default_factory=dict)
    reward_errors: dict[str, float] = field(default_factory=dict)
    note: str = ""
    lottery: list[dict[str, Any]] = field(default_factory=list)

    def among(self, policies: Sequence[str], fixed: Mapping[str, float]) -> Solution:
        """Return the solution over all policies, in this order, with weights that were held fixed (Bank.holding)."""
        left = 1 - sum(fixed.values())

        def whole(found: Mapping[str, float], of_fixed: Mapping[str, float]) -> dict[str, float]:
            return {name: of_fixed[name] if name in fixed else left * found[name] for name in policies}

        return replace(
            self,
            weights=whole(self.weights, fixed),
            weight_errors=whole(self.weight_errors, dict.fromkeys(fixed, 0.0)),
            path=[list(whole(dict(zip(self.weights, at, strict=True)), fixed).values()) for at in self.path],
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(vars(self))


def from_bank(
    method: str,
    bank: Bank,
    weights: Array,
    again: list[tuple[Array, float]],
    path: list[Array],
    gap: float | None = None,
    objective: float | None = None,
    ess_fraction: float | None = None,
) -> Solution:
    """Return the solution of weights that were found from a bank.

    Args:
        method: the name of the solver.
        bank: the bank.
        weights: [K].
        again: the weights [K] and F of every bootstrap sample.
        path: the weights on the way to the solution.
        gap: see `Solution`.
        objective: F; the bank's estimate if None.
        ess_fraction: the effective sample size as a fraction of the samples; the bank's estimate if None.
    """
    estimate = bank.estimate(weights)
    errors = np.std([other for other, _ in again], 0) if again else np.zeros(len(weights))
    fraction = float(estimate.ess_fraction) if ess_fraction is None else ess_fraction
    ess = fraction * bank.log_base.shape[1]
    note = ""
    if fraction < LOW_ESS_FRACTION or ess < LOW_ESS:
        found = f"{fraction:.0%} of the responses, {ess:.1f} a prompt"
        note = f"the effective sample size is {found}: sample more before use"
    return Solution(
        method=method,
        weights=dict(zip(bank.policies, weights.tolist(), strict=True)),
        weight_errors=dict(zip(bank.policies, errors.tolist(), strict=True)),
        objective=float(estimate.objective) if objective is None else objective,
        # With one prompt, or few, what is left is the error of the sampling.
        objective_error=max(float(np.std([value for _, value in again] or [0.0])), float(estimate.error)),
        ess_fraction=fraction,
        gap=gap,
        policy_tokens=bank.policy_tokens,
        path=[point.tolist() for point in path],
        rewards=dict(zip(bank.objectives, estimate.rewards.tolist(), strict=True)),
        reward_errors=dict(zip(bank.objectives, estimate.reward_errors.tolist(), strict=True)),
        note=note,
    )
