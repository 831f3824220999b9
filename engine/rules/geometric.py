"""The rule `geometric`."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.rules.weighted import _weighted


def geometric(log_probs: Tensor, weights: Tensor, exponent: float = 0.0) -> Tensor:
    """Π π_k^{λ_k}, normalised (MPO, arXiv 2502.18699, Lemma 3.9; MOD, arXiv 2406.18853, eq. 7)."""
    w = _weighted(log_probs, weights)
    terms = w * log_probs
    if (w == 0).any():
        # A policy of weight zero has no say, also where its log-prob is -inf.
        terms = torch.where(w == 0, torch.zeros_like(log_probs), terms)
    return terms.sum(0).log_softmax(-1)
