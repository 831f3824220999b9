"""Amplify a mixture's distance from the reference."""

from __future__ import annotations

from torch import Tensor

LEAST = -1e4  # the log-prob of an impossible token


def amplify(mixed: Tensor, reference: Tensor, gain: float) -> Tensor:
    """Return log-probs of π_ref (π/π_ref)^s, normalised.

    s = 0 gives the reference, 1 the mixture, and above 1 extrapolates beyond it (DExperts; decoding-time realignment,
    arXiv 2402.02992).

    Args:
        mixed: [..., V], log π.
        reference: [..., V], log π_ref.
        gain: s.
    """
    if gain == 1:
        return mixed
    # A token that is impossible under both stays impossible: the difference of two infinities is not a number.
    reference, mixed = reference.clamp(min=LEAST), mixed.clamp(min=LEAST)
    return (reference + gain * (mixed - reference)).log_softmax(-1)
