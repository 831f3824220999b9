"""Which two systems to compare next: those whose order the votes so far leave most in doubt."""

from __future__ import annotations

import numpy as np
from scipy import special

PRIOR = 2.0  # standard deviation of a strength, in logits, before there are votes
UNIFORM = 0.25  # share of the draws that ignores the votes, so that every pair keeps a probability
STEPS = 25  # of Newton's method, which needs 5 to 10


def order_doubts(wins: np.ndarray) -> np.ndarray:
    """Return for each two systems the probability that the stronger one only seems to be so.

    The strengths are the Bradley-Terry model's with a normal prior, and their errors those of a normal distribution
    around the maximum of the posterior.

    Args:
        wins: [M, M], how often the row's system won against the column's; a tie is half a win for either.

    Returns:
        [M, M], symmetric, from 0 (the order is certain) to 0.5 (nothing is known); the diagonal is 0.5.
    """
    count = len(wins)
    strengths = np.zeros(count)
    games = wins + wins.T
    for _ in range(STEPS):
        expected = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
        gradient = (wins - games * expected).sum(axis=1) - strengths / PRIOR**2
        information = games * expected * (1 - expected)
        precision = np.diag(information.sum(axis=1) + 1 / PRIOR**2) - information
        step = np.linalg.solve(precision, gradient)
        strengths = strengths + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    covariance = np.linalg.inv(precision)
    variances = np.diag(covariance)[:, None] + np.diag(covariance)[None, :] - 2 * covariance
    differences = np.abs(strengths[:, None] - strengths[None, :])
    doubts = special.ndtr(-differences / np.sqrt(np.maximum(variances, 1e-12)))
    np.fill_diagonal(doubts, 0.5)
    return doubts


def pair_probabilities(wins: np.ndarray, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Return the probability with which each of these pairs of systems is to be compared next.

    Args:
        wins: [M, M], as for `order_doubts`.
        pairs: Pairs of systems that can be compared.

    Returns:
        [pairs], summing to 1, each at least UNIFORM over the number of pairs.
    """
    doubts = order_doubts(wins)
    shares = np.array([doubts[first, second] for first, second in pairs])
    uniform = np.full(len(pairs), 1 / len(pairs))
    total = shares.sum()
    return uniform if total <= 0 else UNIFORM * uniform + (1 - UNIFORM) * shares / total
