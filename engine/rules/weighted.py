"""Weights broadcast to log-probabilities."""

from __future__ import annotations

from torch import Tensor


def broadcast_weights(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Return weights [..., K] as [K, ..., 1], in the type of the log-probabilities."""
    return weights.movedim(-1, 0).unsqueeze(-1).to(log_probs)
