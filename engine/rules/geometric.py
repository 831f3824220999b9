"""The rule `geometric`."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.rules.rule import Rule
from engine.rules.weighted import broadcast_weights


def geometric(log_probs: Tensor, weights: Tensor, exponent: float = 0.0) -> Tensor:
    """Return log-probs of Π π_k^{λ_k}, normalised (MPO, arXiv 2502.18699, Lemma 3.9; MOD, arXiv 2406.18853, eq. 7).

    Args:
        log_probs: [K, ..., V], log π_k.
        weights: [..., K], λ.
        exponent: ignored; all rules have the same signature.

    Returns:
        [..., V].
    """
    w = broadcast_weights(log_probs, weights)
    terms = w * log_probs
    if (w == 0).any():
        # A policy of weight zero contributes nothing, also where its log-prob is -inf.
        terms = torch.where(w == 0, torch.zeros_like(log_probs), terms)
    return terms.sum(0).log_softmax(-1)


RULE = Rule(
    name="geometric",
    paper="MPO, arXiv 2502.18699, Lemma 3.9; MOD, arXiv 2406.18853, eq. 7",
    formula="Π π_k^λ_k, normalised",
    combine=geometric,
    is_product=True,
    order=1,
)
