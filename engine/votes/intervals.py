"""Values with 95% intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

LEVEL = 0.95
RATING = 400 / np.log(10)  # points of a log-strength: 400 points are odds of ten to one, as in chess
TAIL = (1 - LEVEL) / 2
Z = float(special.ndtri(1 - TAIL))


@dataclass(frozen=True)
class Interval:
    """A value and its 95% interval. All are NaN if there is nothing to compute the value from.

    Attributes:
        value: The value.
        low: Lower end.
        high: Upper end.
        number: Number of votes, items or answers that the value was computed from.
    """

    value: float
    low: float
    high: float
    number: int = 0


UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


def wilson(successes: float, number: float) -> Interval:
    """Return a share with Wilson's score interval."""
    if not number:
        return UNKNOWN
    share = successes / number
    centre = (share + Z**2 / (2 * number)) / (1 + Z**2 / number)
    half = Z / (1 + Z**2 / number) * np.sqrt(share * (1 - share) / number + Z**2 / (4 * number**2))
    low, high = max(float(centre - half), 0.0), min(float(centre + half), 1.0)
    return Interval(share, min(low, share), max(high, share), int(number))


def studentised(value: float, replicates: np.ndarray, degrees: float, number: int = 0) -> Interval:
    """Return a value with the interval of Student's t around it: its standard error is that of the replicates.

    Args:
        value: The estimate.
        replicates: [B], of it under the resamples.
        degrees: Degrees of freedom.
        number: Number of votes.
    """
    half = t_quantile(degrees) * float(np.std(replicates, ddof=1))
    return Interval(value, value - half, value + half, number)


def t_quantile(degrees: float) -> float:
    """Return the 97.5% quantile of Student's t."""
    return float(special.stdtrit(degrees, 1 - TAIL))
