"""Amplify a mixture's distance from the reference."""

from __future__ import annotations

from torch import Tensor


def amplify(mixed: Tensor, reference: Tensor, gain: float) -> Tensor:
    """π_ref (π/π_ref)^s, normalised: s = 0 the reference, 1 the mixture, above 1 beyond it
    (DExperts; decoding-time realignment, arXiv 2402.02992)."""
    if gain == 1:
        return mixed
    return (reference + gain * (mixed - reference)).log_softmax(-1)
