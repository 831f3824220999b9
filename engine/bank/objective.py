"""F̂ as it is minimised: with few responses per prompt it has a smaller error than that of `Bank.estimate`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.bank.collection import Array
from engine.bank.estimate import Bank
from engine.inference.token_events import StepsAt

FAR = -300.0  # nats; where all weights are below it steps are left out, whose sums would come near the smallest numbers
LEAST = 0.1  # of 1 + D̄; below it a few responses have all the weight, and the variate says nothing


class Objective:
    """F̂(λ) of a bank. With many responses per prompt it agrees with `Bank.estimate`.

    Shrinkage: with few responses the mean w̄_x of a prompt's weights is noisy, and its log is biased far downwards. It
    is shrunk towards the mean over all prompts, z_x = (1 - a) w̄_x + a w̄, with a the fraction of the variance of w̄_x
    that is sampling error (James and Stein, 1961), estimated at uniform λ and then fixed. F̂ = mean_x log z_x remains
    convex.

    If the bank has steps, two more techniques apply. First, Rao-Blackwellisation: a response's weight is replaced by
    its conditional mean over the stopping time, Σ_t w_{t-1} Σ_e Π_k p_k(e)^{λ_k} over the tokens e that end a response;
    F̂ remains convex. Second, a ratio estimate with a control variate: the estimate is divided by 1 + D̄, where D of a
    response is the sum of its control variates (`StepsAt.departure`) with mean zero. With a = 1, and every sampled
    token among those kept, it is exact at the corners of the simplex, where a policy's probabilities sum to one.
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
        """Return F̂ in nats and its gradient [K].

        Args:
            weights: λ [K].
            prompts: [P], the weight of each prompt; uniform if None.
        """
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
        """Return the effective sample size (Σw)²/Σw² at λ [K], as a fraction of the number of responses."""
        whole, ending, _, _ = self._weights(weights)
        w = whole + ending
        w /= self._normaliser(w, np.full(len(w), 1 / len(w)))[:, None]
        return float(w.sum() ** 2 / (w**2).sum() / w.size)

    def _normaliser(self, w: Array, share: Array) -> Array:
        """Return z_x [P] from weights [P, N]. share: [P], the weight of each prompt; they sum to 1."""
        own, a = w.mean(1), self.shrinkage
        return (1 - a) * own + a * (share @ own)

    def _weights(self, weights: Array) -> tuple[Array, Array, float, StepsAt | None]:
        """Return the weights of all responses [P, N] in two parts, and the log of their common factor.

        The first part is of whole responses, the second the sum of stopping-time terms. The last result is the steps at
        λ, if the bank has any.
        """
        log_w, steps = self.bank.log_weights(weights), self.bank.steps
        if steps is None:
            top = float(log_w.max())
            return np.exp(log_w - top), np.zeros_like(log_w), top, None
        at = steps.at(weights)
        ending: Array = np.bincount(steps.response, at.ending, log_w.size).astype(float).reshape(log_w.shape)
        return np.where(steps.ended.reshape(log_w.shape), 0, np.exp(log_w)), ending, 0.0, at
