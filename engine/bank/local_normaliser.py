"""The local normaliser: it relates π_λ to q_λ, the token-by-token mixture that is decoded.

Decoding normalises at every token, q_λ(y) = Π_k π_k(y)^{λ_k} / Π_t Z_t(λ), so that the expected rewards of π_λ, which
is normalised once over whole responses, differ from those of decoded responses (METHODS, section 1). log Π_t Z_t is
zero at every single policy. Between policies it is, to second order in the log-ratios, a quadratic form in the weights.
Its coefficients follow from the values at the midpoint of every pair of policies, which are recorded while a bank is
sampled, without another forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_POLICIES = 6  # with more, the reference included, midpoints are too many; the uniform mixture's value has to do


def midpoint(first: str, second: str) -> str:
    """Return the name of the equal mixture of two policies; policy names cannot contain a +."""
    return f"{first}+{second}"


def midpoints(names: list[str]) -> dict[str, dict[str, float]]:
    """Return {name: weights} of the midpoints to record for these policies, which include the reference."""
    if len(names) > MOST_POLICIES:
        return {}
    return {midpoint(a, b): {a: 0.5, b: 0.5} for a, b in combinations(names, 2)}


@dataclass(frozen=True)
class LocalNormaliser:
    """log Π_t Z_t(λ) of P·N responses as the quadratic form `constant` + `linear`·λ + λᵀ `square` λ / 2.

    λ are the policies' weights; the reference's is one less their sum.

    Attributes:
        constant: [P, N].
        linear: [P, N, K].
        square: [P, N, K, K].
    """

    constant: Array
    linear: Array
    square: Array

    def __call__(self, weights: Array) -> Array:
        """Return log Π_t Z_t(λ), [..., P, N], at λ [..., K]."""
        size = weights.shape[-1]
        flat = weights.reshape(-1, size)
        products = np.einsum("lj,lk->ljk", flat, flat).reshape(len(flat), -1)
        found = products @ self.square.reshape(-1, size * size).T / 2 + flat @ self.linear.reshape(-1, size).T
        return found.reshape(*weights.shape[:-1], *self.constant.shape) + self.constant

    def slopes(self, weights: Array) -> Array:
        """Return the gradient with respect to λ, [P, N, K], at λ [K]."""
        return self.linear + self.square @ weights

    def restricted(self, origin: Array, directions: Array) -> LocalNormaliser:
        """Return the form in μ where λ = origin [K] + directions [K, F] μ."""
        return LocalNormaliser(
            self(origin),
            self.slopes(origin) @ directions,
            np.einsum("kf,pnkl,lg->pnfg", directions, self.square, directions),
        )

    def of_prompts(self, chosen: NDArray[np.int64]) -> LocalNormaliser:
        """Return the form of the prompts with these numbers, which may repeat."""
        return LocalNormaliser(self.constant[chosen], self.linear[chosen], self.square[chosen])


def fit_normaliser(
    rows: list[list[dict[str, Any]]], policies: list[str], reference: str, uniform: str
) -> LocalNormaliser | None:
    """Fit the form to a bank's rows.

    Rows without midpoints have the value at the uniform mixture only: the coefficients of all pairs are then taken to
    be equal.

    Args:
        rows: [P][N], each with its log_probs.
        policies: the names of the K policies.
        reference: the name of the reference.
        uniform: the name of the uniform mixture.

    Returns:
        The form, or None if there are fewer than two policies, or a row lacks log-probs.
    """
    if len(policies) < 2:
        return None
    names = [*policies, reference]
    size = len(names)
    pairs = [[pair_values(row["log_probs"], names, policies, uniform) for row in some] for some in rows]
    if any(values is None for some in pairs for values in some):
        return None
    upper = np.array(pairs, dtype=float)  # [P, N, pairs]
    form = np.zeros((*upper.shape[:2], size, size))
    for place, (j, k) in enumerate(combinations(range(size), 2)):
        form[..., j, k] = form[..., k, j] = 4 * upper[..., place]
    # In the policies' weights alone: the reference's is one less their sum.
    to_reference, among = form[..., :-1, -1], form[..., :-1, :-1]
    square = among - to_reference[..., None, :] - to_reference[..., None]
    return LocalNormaliser(np.zeros(upper.shape[:2]), to_reference, square)


def pair_values(log_probs: dict[str, float], names: list[str], policies: list[str], uniform: str) -> list[float] | None:
    """Return log Π_t Z_t of one response at the midpoint of every pair of names, in the order of `combinations`.

    The result is None if the log-probs that it needs are missing.
    """
    pairs = list(combinations(names, 2))
    if all(midpoint(a, b) in log_probs for a, b in pairs):
        return [(log_probs[a] + log_probs[b]) / 2 - log_probs[midpoint(a, b)] for a, b in pairs]
    if uniform not in log_probs or any(name not in log_probs for name in names):
        return None
    # Of equal coefficients c the form is c Σ_{j<k} λ_j λ_k, at uniform weights c (K - 1) / 2K.
    at_uniform = sum(log_probs[name] for name in policies) / len(policies) - log_probs[uniform]
    return [at_uniform * len(policies) / (2 * (len(policies) - 1))] * len(pairs)
