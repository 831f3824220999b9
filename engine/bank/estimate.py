"""Estimate the objective and the expected rewards at any λ from a bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from engine.bank.local_normaliser import LocalNormaliser
from engine.bank.missing_rewards import (
    known_rewards,
    over_prompts,
    reward_prompts,
    weighted,
)
from engine.config import REFERENCE
from engine.errors import InputError
from engine.inference.token_events import Steps

Array = NDArray[np.float64]
# Where the effective sample size is below this share of the responses, or this many of a prompt's (of a few responses
# one always counts, and is a large share), figures are not to be trusted.
LOW_ESS_FRACTION = 0.1
LOW_ESS = 2.0


@dataclass(frozen=True)
class Estimate:
    """Estimates from a bank at λ. For L λs at once every field has a leading axis of L.

    Standard errors are for this fixed set of prompts, i.e. of the sampling of responses alone.

    Attributes:
        objective: F̂(λ), in nats.
        error: the standard error of `objective`.
        gradient: [K], of F̂.
        rewards: [R], expected, in each reward's own unit.
        reward_errors: [R], standard errors of `rewards`.
        ess_fraction: the effective sample size (Σw)²/Σw² of a prompt's responses as a fraction of their number; the
            mean over prompts.
        ess: the effective sample size itself; the mean over prompts.
    """

    objective: Array  # F̂(λ), in nats
    error: Array
    gradient: Array  # [K]
    rewards: Array  # [R], expected, in each reward's own unit
    reward_errors: Array  # [R]
    ess_fraction: Array
    ess: Array

    @property
    def reliable(self) -> NDArray[np.bool_]:
        return (self.ess_fraction >= LOW_ESS_FRACTION) & (self.ess >= LOW_ESS)


@dataclass(frozen=True)
class Bank:
    """Responses to P prompts, N each.

    In a reference-free bank π_ref is replaced by 1. On the simplex, where the weights sum to one, this cancels.

    Attributes:
        policies: the names of the K policies.
        objectives: the names of the R rewards.
        prompts: the P prompts.
        log_ratios: [P, N, K], log π_k(y|x) - log π_ref(y|x).
        log_base: [P, N], log π_ref(y|x) - log Σ_m α_m q_m(y|x).
        rewards: [P, N, R]; NaN if missing, which excludes the response from estimates of this reward only.
        policy_tokens: the cost: tokens drawn times policies computed.
        sources: the names of the proposals; except in a reference-free bank, response i of a prompt is drawn from
            proposal i modulo their number.
        steps: the next-token events of every token, if they were recorded.
        local: the difference between q_λ, which is decoded token by token, and π_λ.
        token_level: whether expected rewards are of q_λ; see `decoding`. F and its gradient are always of π_λ.
    """

    policies: list[str]
    objectives: list[str]
    prompts: list[str]
    log_ratios: Array
    log_base: Array
    rewards: Array
    policy_tokens: int
    sources: tuple[str, ...] = ()
    steps: Steps | None = None
    local: LocalNormaliser | None = None
    token_level: bool = False

    @property
    def decoding(self) -> Bank:
        """The bank whose rewards, effective sample size and slopes are of q_λ, the token-by-token mixture.

        Without `local`, it is the bank itself, of π_λ.
        """
        return replace(self, token_level=True) if self.local is not None else self

    @property
    def reference_only(self) -> Bank | None:
        """The bank of this one's reference responses, as the paper's solver needs it; None if there are none."""
        if REFERENCE not in self.sources:
            return None
        rows = slice(self.sources.index(REFERENCE), None, len(self.sources))
        return replace(
            self,
            log_ratios=self.log_ratios[:, rows],
            log_base=np.zeros_like(self.log_base[:, rows]),
            rewards=self.rewards[:, rows],
            sources=(REFERENCE,),
            steps=None,
            local=None,
            token_level=False,
        )

    def of_prompts(self, chosen: NDArray[np.int64]) -> Bank:
        """Return the bank of the prompts with these numbers, which may repeat, as in a bootstrap."""
        return replace(
            self,
            prompts=[self.prompts[i] for i in chosen],
            log_ratios=self.log_ratios[chosen],
            log_base=self.log_base[chosen],
            rewards=self.rewards[chosen],
            steps=None,
            local=self.local and self.local.of_prompts(chosen),
        )

    @property
    def missing(self) -> dict[str, int]:
        """{objective: the number of responses without its reward}, of objectives with missing rewards."""
        counts = dict(zip(self.objectives, np.isnan(self.rewards).sum((0, 1)).tolist(), strict=True))
        return {name: count for name, count in counts.items() if count}

    def of_objectives(self, names: list[str]) -> Bank:
        """Return the bank restricted to these objectives."""
        columns = [self.objectives.index(name) for name in names]
        return replace(self, objectives=names, rewards=self.rewards[..., columns])

    def holding(self, fixed: Mapping[str, float], gain: float = 1.0) -> Bank:
        """Return a bank over the policies that are not fixed, for solvers.

        Its estimates at μ on their simplex are this bank's at gain · λ, where λ has the fixed weights, and
        (1 - Σ fixed) μ for the other policies.

        Args:
            fixed: {policy: weight}.
            gain: the factor of λ.

        Raises:
            InputError: some weights are fixed, and fewer than two policies or no weight is left.
        """
        free = [i for i, name in enumerate(self.policies) if name not in fixed]
        left = 1 - sum(fixed.values())
        if fixed and (len(free) < 2 or left < 1e-6):
            raise InputError("weights: no two policies are free to share; release a Lock, Solo or Mute")
        kept = np.array([fixed.get(name, 0.0) for name in self.policies])
        return replace(
            self,
            policies=[self.policies[i] for i in free],
            log_ratios=gain * left * self.log_ratios[..., free],
            log_base=self.log_base + gain * self.log_ratios @ kept,
            steps=None,
            local=self.local and self.local.restricted(gain * kept, gain * left * np.eye(len(self.policies))[:, free]),
        )

    def log_weights(self, weights: ArrayLike) -> Array:
        """Return the log importance weights log w_i(λ) of π_λ, [..., P, N], at λ [..., K]."""
        return np.einsum("pnk,...k->...pn", self.log_ratios, np.asarray(weights, float)) + self.log_base

    def reward_weights(self, weights: ArrayLike, log_w: Array | None = None) -> Array:
        """Return the log importance weights for expected rewards: of q_λ at `token_level`, otherwise of π_λ.

        Args:
            weights: λ [..., K].
            log_w: `log_weights(weights)`, if known.

        Returns:
            [..., P, N].
        """
        log_w = self.log_weights(weights) if log_w is None else log_w
        if not self.token_level or self.local is None:
            return log_w
        return log_w - self.local(np.asarray(weights, float))

    def estimate(self, weights: ArrayLike, prompts: Array | None = None) -> Estimate:
        """Return the estimates at λ.

        Args:
            weights: λ [K], or [L, K] for L at once.
            prompts: [P], the weight of each prompt; uniform if None.
        """
        log_w = self.log_weights(weights)
        top, count = log_w.max(-1, keepdims=True), log_w.shape[-1]
        w = np.exp(log_w - top)
        total = w.sum(-1)  # [..., P]
        own = w / total[..., None]
        mean_log = np.log(total) + top[..., 0] - np.log(count)
        by_prompt = np.full(len(self.prompts), 1.0) if prompts is None else prompts
        by_prompt = by_prompt / by_prompt.sum()
        gradient = np.einsum("...pn,pnk->...pk", own, self.log_ratios)
        relative = (own**2).sum(-1) - 1 / count
        if self.token_level:
            own = softmax(self.reward_weights(weights, log_w), -1)
        shares, known = known_rewards(self.rewards, own)
        rewards = weighted(shares, known)
        # Delta method: of log mean w, and of a ratio of two means.
        spread = weighted(shares**2, known**2)
        spread -= 2 * rewards * weighted(shares**2, known)
        spread += rewards**2 * (shares**2).sum(-2)
        counted = reward_prompts(self.rewards, by_prompt)
        effective = (1 / (own**2).sum(-1)) @ by_prompt
        return Estimate(
            objective=mean_log @ by_prompt,
            error=np.sqrt(relative.clip(0) @ by_prompt**2),
            gradient=np.einsum("...pk,p->...k", gradient, by_prompt),
            rewards=(rewards * counted).sum(-2),
            reward_errors=np.sqrt((spread.clip(0) * counted**2).sum(-2)),
            ess_fraction=effective / count,
            ess=effective,
        )

    def change(self, before: Array, after: Array) -> tuple[Array, Array]:
        """Return the gain of each expected reward from one λ [K] to another, with its standard error: [R], [R].

        The error is for this fixed set of prompts. It is smaller than the errors of the two estimates, which use the
        same responses.
        """
        residuals = []
        for weights in (before, after):
            own = softmax(self.reward_weights(weights), -1)
            shares, known = known_rewards(self.rewards, own)
            mean = weighted(shares, known)
            residuals.append((mean, shares * (known - mean[:, None])))
        (mean_before, rest_before), (mean_after, rest_after) = residuals
        spread = ((rest_after - rest_before) ** 2).sum(1)  # delta method, [P, R]
        counted = reward_prompts(self.rewards, np.full(len(self.prompts), 1 / len(self.prompts)))
        return ((mean_after - mean_before) * counted).sum(0), np.sqrt((spread * counted**2).sum(0))

    def by_prompt(self, weights: ArrayLike) -> Array:
        """Return the expected rewards of every prompt, [P, R], at λ [K]; NaN if a prompt's rewards are all missing."""
        shares, known = known_rewards(self.rewards, softmax(self.reward_weights(weights), -1))
        return np.where(np.isfinite(self.rewards).any(1), weighted(shares, known), np.nan)

    def prompt_errors(self, weights: ArrayLike) -> Array:
        """Return standard errors [R] of the expected rewards at λ [K], for prompts as a sample of prompts like these.

        They include the error of sampling the responses, which is all that can be estimated from one prompt.
        """
        if len(self.prompts) < 2:
            return self.estimate(weights).reward_errors
        return over_prompts(self.by_prompt(weights))[1]

    def prompt_change(self, before: Array, after: Array) -> tuple[Array, Array]:
        """Return the gains as `change` does, but with the standard error over prompts of the paired difference."""
        if len(self.prompts) < 2:
            return self.change(before, after)
        return over_prompts(self.by_prompt(after) - self.by_prompt(before))

    def reward_slopes(self, weights: ArrayLike) -> Array:
        """Return the gradients [R, K] of the expected rewards at λ [K]: Cov_λ(r, log π_k/π_ref), mean over prompts."""
        own = softmax(self.reward_weights(weights), -1)
        log_slopes = self.log_ratios
        if self.token_level and self.local is not None:
            log_slopes = log_slopes - self.local.slopes(np.asarray(weights, float))
        shares, known = known_rewards(self.rewards, own)
        counted = reward_prompts(self.rewards, np.full(len(self.prompts), 1 / len(self.prompts)))
        # Of the responses with a reward: their own mean slope is taken off.
        slopes = np.einsum("pnr,pnk->prk", np.broadcast_to(shares, known.shape), log_slopes)
        both = np.einsum("pnr,pnk->prk", shares * known, log_slopes)
        return ((both - weighted(shares, known)[..., None] * slopes) * counted[..., None]).sum(0)
