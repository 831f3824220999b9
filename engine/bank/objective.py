"""F̂ as it is minimised: with few responses of a prompt it uses more of what they say than `Bank.estimate` does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.bank.collection import Array
from engine.bank.estimate import Bank
from engine.inference.token_events import StepsAt

FAR = -300.0  # nats; where all weights are below it steps are left out, whose sums would come near the smallest numbers
LEAST = 0.1  # of 1 + D̄; below it a few responses have all the weight, and the variate says nothing


class Objective:
    """F̂(λ) of a bank. With many responses of every prompt it says the same as `Bank.estimate`.

    Shrinkage: of few responses the mean w̄_x of a prompt's weights is so rough that its log lies far too low. Drawn
    towards the mean over all prompts, z_x = (1 - a) w̄_x + a w̄, with a the part of the w̄_x's variance that is their own
    sampling error (James and Stein, 1961; at even weights, so that it is fixed). F̂ = mean_x log z_x stays convex.

    Where the bank has steps, two things more. A response's weight is replaced by what it is on average over where it
    ends, Σ_t w_{t-1} Σ_e Π_k p_k(e)^{λ_k} over the tokens e that end one (Rao and Blackwell); F̂ stays convex. And all
    is divided by 1 + D̄, where D of a response is the sum of its departures (`StepsAt.departure`), zero on average: a
    ratio estimate, exact at every corner of the simplex, where a policy's own probabilities are known to add up to one.
    """

    def __init__(self, bank: Bank) -> None:
        even = np.full(len(bank.policies), 1 / len(bank.policies))
        if bank.steps is not None and bank.log_weights(even).max() < FAR:
            bank = replace(bank, steps=None)
        self.bank = bank
        prompts, count = bank.log_base.shape
        self.shrinkage = 1.0
        if count > 1 and prompts > 1:
            whole, ending, _, _ = self._weights(even)
            w = whole + ending
            spread = w.mean(1).var(ddof=1)
            self.shrinkage = min(1.0, w.var(1, ddof=1).mean() / count / spread) if spread > 0 else 0.0

    def __call__(self, weights: Array, prompts: Array | None = None) -> tuple[float, Array]:
        """λ [K], prompts [P], how much each counts, all alike unless told -> F̂ in nats, its gradient [K]"""
        size, count = self.bank.log_base.shape
        share = np.full(size, 1 / size) if prompts is None else prompts / prompts.sum()
        whole, ending, top, at = self._weights(weights)
        normaliser = self._normaliser(whole + ending, share)
        # Of a prompt that does not count it is never looked at, and may be zero.
        inverse = np.divide(share, normaliser, out=np.zeros(size), where=share > 0)
        value = float(share @ np.log(normaliser, out=np.zeros(size), where=share > 0)) + top
        a = self.shrinkage
        pull = ((1 - a) * inverse + a * inverse.sum() * share) / count  # of every weight on F̂, [P]
        gradient = np.einsum("p,pn,pnk->k", pull, whole, self.bank.log_ratios)
        if at is None:
            return value, gradient
        of_response = np.repeat([pull, share / count], count, axis=1)
        of_ending, of_departure = of_response[:, at.steps.response]
        inside = 1 + float(of_departure @ at.departure)
        of_departure = -of_departure / inside if inside > LEAST else np.zeros_like(of_departure)
        return value - float(np.log(max(inside, LEAST))), gradient + at.gradient(of_ending, of_departure)

    def share(self, weights: Array) -> float:
        """The effective sample size (Σw)²/Σw² of all responses, divided by their number; λ [K]."""
        whole, ending, _, _ = self._weights(weights)
        w = whole + ending
        w /= self._normaliser(w, np.full(len(w), 1 / len(w)))[:, None]
        return float(w.sum() ** 2 / (w**2).sum() / w.size)

    def _normaliser(self, w: Array, share: Array) -> Array:
        """z_x [P] of weights [P, N]. share [P]: how much each prompt counts, in all 1."""
        own, a = w.mean(1), self.shrinkage
        return (1 - a) * own + a * (share @ own)

    def _weights(self, weights: Array) -> tuple[Array, Array, float, StepsAt | None]:
        """Of all responses [P, N], what counts as a whole and what by where it may end; both divided by exp(top)."""
        log_w, steps = self.bank.log_weights(weights), self.bank.steps
        if steps is None:
            top = float(log_w.max())
            return np.exp(log_w - top), np.zeros_like(log_w), top, None
        at = steps.at(weights)
        ending: Array = np.bincount(steps.response, at.ending, log_w.size).astype(float).reshape(log_w.shape)
        return np.where(steps.ended.reshape(log_w.shape), 0, np.exp(log_w)), ending, 0.0, at
