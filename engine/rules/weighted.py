"""Weights broadcast to log-probabilities."""

from __future__ import annotations

from torch import Tensor


def _weighted(log_probs: Tensor, weights: Tensor) -> Tensor:
    """weights moved to the front and made to broadcast: [K, ..., 1]."""
    return weights.movedim(-1, 0).unsqueeze(-1).to(log_probs)
