"""The rule `power`: a power mean of distributions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.rules.geometric import geometric
from engine.rules.rule import Rule
from engine.rules.weighted import broadcast_weights


def power(log_probs: Tensor, weights: Tensor, exponent: float = 1.0) -> Tensor:
    """Return the normalised power mean (Σ λ_k π_k^p)^{1/p}, with p the exponent.

    p = 1 is the probability mixture, p = -1 the harmonic mean, and p -> 0 the rule geometric (MOD with α-divergences,
    p = -α, arXiv 2406.18853).
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
