"""The rule `power`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.rules.geometric import geometric
from engine.rules.rule import Rule
from engine.rules.weighted import broadcast_weights


def power(log_probs: Tensor, weights: Tensor, exponent: float = 1.0) -> Tensor:
    """Return log-probs of (Σ λ_k π_k^p)^{1/p}, normalised (MOD with α-divergences, p = -α, arXiv 2406.18853).

    p = 1 gives the probability mixture, p = -1 the harmonic mean, and p -> 0 the geometric rule.

    Args:
        log_probs: [K, ..., V], log π_k.
        weights: [..., K], λ.
        exponent: p.

    Returns:
        [..., V].
    """
    if exponent == 0:
        return geometric(log_probs, weights)
    # 1/p magnifies rounding: double precision keeps small exponents exact.
    wide = log_probs.double()
    w = broadcast_weights(wide, weights)
    terms = torch.where(w == 0, torch.full_like(wide, -math.inf), w.log() + exponent * wide)
    return (terms.logsumexp(0) / exponent).log_softmax(-1).to(log_probs.dtype)


RULE = Rule(
    name="power",
    paper="MOD with α-divergences, arXiv 2406.18853",
    formula="(Σ λ_k π_k^p)^(1/p), normalised; p is the exponent",
    combine=power,
    takes_exponent=True,
    order=2,
)
