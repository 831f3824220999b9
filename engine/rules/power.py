"""The rule `power`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.rules.geometric import geometric
from engine.rules.weighted import _weighted


def power(log_probs: Tensor, weights: Tensor, exponent: float = 1.0) -> Tensor:
    """(Σ λ_k π_k^p)^{1/p}, normalised: p = 1 the probability mixture, p = -1 the harmonic mean, p -> 0 geometric
    (MOD with α-divergences, p = -α, arXiv 2406.18853)."""
    if exponent == 0:
        return geometric(log_probs, weights)
    # 1/p magnifies rounding: double precision keeps small exponents exact.
    wide = log_probs.double()
    w = _weighted(wide, weights)
    terms = torch.where(w == 0, torch.full_like(wide, -math.inf), w.log() + exponent * wide)
    return (terms.logsumexp(0) / exponent).log_softmax(-1).to(log_probs.dtype)
