"""Strengths of systems from counts of wins and ties, for many sets of counts at once: Bradley-Terry with ties.

Davidson's model, which Newman's algorithm fits as well: with log-strengths θ, d = θ_i - θ_j and tie parameter v,
P(i wins) = e^{d/2} / Z, P(j wins) = e^{-d/2} / Z, P(tie) = 2v / Z, Z = e^{d/2} + e^{-d/2} + 2v.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.sparse import csr_matrix

STEPS = 60  # of Newton's method; a few suffice where the likelihood is not almost flat
LAST_STEP = 1e-5  # of a log-strength: a step as short leaves an error of about its square
LONGEST_STEP = 2.0  # of a log-strength, in one step


@dataclass(frozen=True)
class Tallies:
    """Weighted counts of the Q pairs of systems that met, in one or more sets.

    Attributes:
        first: [Q], index of one system.
        second: [Q], index of the other.
        wins: [..., Q], weight of votes for the first.
        losses: [..., Q], weight of votes for the second.
        ties: [..., Q], weight of votes for neither.
    """

    first: np.ndarray
    second: np.ndarray
    wins: np.ndarray
    losses: np.ndarray
    ties: np.ndarray


@dataclass(frozen=True)
class Strengths:
    """Strengths that fit tallies.

    Attributes:
        log_strength: [..., M], with mean zero.
        log_tie: [...], log v; -inf where there are no ties.
    """

    log_strength: np.ndarray
    log_tie: np.ndarray


def tally_votes(
    first: np.ndarray, second: np.ndarray, result: np.ndarray, weights: np.ndarray, systems: int
) -> Tallies:
    """Return the tallies of votes under one or more sets of weights.

    Args:
        first: [N], index of the first response's system.
        second: [N], index of the second's.
        result: [N], 0 if the first is better, 1 if the second is, 2 if neither.
        weights: [..., N], weights of the votes.
        systems: Number of systems M.
    """
    turned = first > second
    low, high = np.where(turned, second, first), np.where(turned, first, second)
    result = np.where(turned & (result < 2), 1 - result, result)
    pairs, pair = np.unique(low.astype(np.int64) * systems + high, return_inverse=True)
    votes, cells = len(first), 3 * len(pairs)
    place = csr_matrix((np.ones(votes), (3 * pair + result, np.arange(votes))), shape=(cells, votes))
    counts = (place @ np.atleast_2d(weights).T).T.reshape(*weights.shape[:-1], len(pairs), 3)
    return Tallies(pairs // systems, pairs % systems, counts[..., 0], counts[..., 1], counts[..., 2])


def fit_strengths(tallies: Tallies, systems: int, start: Strengths | None = None) -> Strengths:
    """Return the strengths that maximise Davidson's likelihood, by Newton's method on all sets of tallies together.

    Args:
        tallies: Counts whose maximum is finite (see `is_one_sided`).
        systems: Number of systems M.
        start: Strengths of one set to start from.
    """
    leading = tallies.wins.shape[:-1]
    counts = np.stack([np.atleast_2d(some) for some in (tallies.wins, tallies.losses, tallies.ties)])  # [3, B, Q]
    # One vote per system on average, so that what holds the mean at zero (`_newton`) is of the curvature's size.
    counts = counts * (systems / np.maximum(counts.sum((0, 2)), 1e-300))[:, None]
    with_ties = bool((counts[2] > 0).any())
    sets = counts.shape[1]
    at = np.zeros((sets, systems + with_ties))
    if with_ties:
        at[:, systems] = np.log(0.5)
    if start is not None:
        at[:, :systems] = start.log_strength
        if with_ties and np.isfinite(start.log_tie):
            at[:, systems] = start.log_tie
    value = np.full(sets, -np.inf)
    step = np.zeros_like(at)
    active = np.arange(sets)
    for _ in range(STEPS):
        here, now = at[active] + step[active], counts[:, active]
        chances, likelihood = _likelihood(tallies, here, now, systems)
        better = likelihood >= value[active] - 1e-12 * np.abs(value[active])
        step[active[~better]] /= 2
        moved = active[better]
        at[moved], value[moved] = here[better], likelihood[better]
        if len(moved):
            step[moved] = _newton(tallies, chances[:, better], now[:, better], systems, with_ties)
        active = active[np.abs(step[active]).max(1) > LAST_STEP]
        if not len(active):
            break
    at += np.where(np.abs(step) > LAST_STEP, 0.0, step)
    log_strength = at[:, :systems] - at[:, :systems].mean(1, keepdims=True)
    log_tie = at[:, systems] if with_ties else np.full(sets, -np.inf)
    return Strengths(log_strength.reshape(*leading, systems), log_tie.reshape(leading))


def chances_of(log_strength: np.ndarray, log_tie: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the probabilities [3, ..., Q] that the first wins, that the second does, and of a tie.

    Args:
        log_strength: [..., M], log-strengths.
        log_tie: [...], log of the tie parameter.
        first: [Q], index of one system.
        second: [Q], index of the other.
    """
    return special.softmax(_exponents(log_strength, log_tie, first, second), axis=0)


def influence_of(strengths: Strengths, tallies: Tallies) -> np.ndarray:
    """Return by how much one more vote changes the log-strengths, to first order.

    Args:
        strengths: Fit to the tallies.
        tallies: One set.

    Returns:
        [Q, 3, M], of a vote for the first of a pair, for the second, and of a tie.
    """
    systems = len(strengths.log_strength)
    with_ties = bool(np.isfinite(strengths.log_tie))
    chances = chances_of(strengths.log_strength, strengths.log_tie, tallies.first, tallies.second)[:, None]
    counts = np.stack([tallies.wins, tallies.losses, tallies.ties])[:, None]
    size = systems + with_ties
    pairs = np.arange(len(tallies.first))
    slopes = np.zeros((len(pairs), 3, size))
    for result in range(3):
        seen = np.eye(3)[result][:, None] - chances[:, 0]  # [3, Q]
        pull = (seen[0] - seen[1]) / 2
        slopes[pairs, result, tallies.first] = pull
        slopes[pairs, result, tallies.second] = -pull
        if with_ties:
            slopes[:, result, systems] = seen[2]
    curvature = _curvature(tallies, chances, counts.sum(0), systems, with_ties)[0]
    curvature[:systems, :systems] += max(counts.sum(), 1e-300) / systems**2  # hold the mean
    return (slopes @ np.linalg.inv(curvature))[..., :systems]


def _exponents(log_strength: np.ndarray, log_tie: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the logarithms [3, ..., Q] of the three outcomes' probabilities, up to a constant for each pair."""
    half = (log_strength[..., first] - log_strength[..., second]) / 2
    return np.stack([half, -half, np.broadcast_to(np.log(2) + log_tie[..., None], half.shape)])


def _likelihood(tallies: Tallies, at: np.ndarray, counts: np.ndarray, systems: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities [3, B, Q] at these parameters [B, M (+ 1)], and the log-likelihoods [B]."""
    log_tie = at[:, systems] if at.shape[1] > systems else np.full(len(at), -np.inf)
    exponents = _exponents(at[:, :systems], log_tie, tallies.first, tallies.second)
    peak = exponents.max(0)
    chances = np.exp(exponents - peak)
    total = chances.sum(0)
    likelihood = (counts[0] - counts[1]) * exponents[0] - counts.sum(0) * (np.log(total) + peak)
    if at.shape[1] > systems:
        likelihood += counts[2] * exponents[2]
    return chances / total, likelihood.sum(1)


def _newton(tallies: Tallies, chances: np.ndarray, counts: np.ndarray, systems: int, with_ties: bool) -> np.ndarray:
    """Return Newton's steps [B, M (+ 1)]."""
    number = counts.sum(0)
    slope = np.zeros((len(number), systems + with_ties))
    pull = (counts[0] - counts[1] - number * (chances[0] - chances[1])) / 2
    slope[:, :systems] = pull @ _incidence(tallies, systems)
    if with_ties:
        slope[:, systems] = (counts[2] - number * chances[2]).sum(1)
    curvature = _curvature(tallies, chances, number, systems, with_ties)
    curvature[:, :systems, :systems] += 1 / systems  # the likelihood does not depend on the mean: hold it
    move = np.linalg.solve(curvature, slope[..., None])[..., 0]
    return move * np.minimum(1, LONGEST_STEP / np.maximum(np.abs(move).max(1, keepdims=True), 1e-300))


def _curvature(tallies: Tallies, chances: np.ndarray, number: np.ndarray, systems: int, with_ties: bool) -> np.ndarray:
    """Return the negative second derivatives [B, M (+ 1), M (+ 1)] of the log-likelihood; number: [B, Q], of votes."""
    first, second = tallies.first, tallies.second
    size = systems + with_ties
    curvature = np.zeros((len(number), size, size))
    lead = chances[0] - chances[1]
    bend = number * (chances[0] + chances[1] - lead**2) / 4
    curvature[:, first, second] = curvature[:, second, first] = -bend
    diagonal = np.arange(systems)
    curvature[:, diagonal, diagonal] = -curvature[:, :systems, :systems].sum(2)
    if with_ties:
        cross = (-number * lead * chances[2] / 2) @ _incidence(tallies, systems)
        curvature[:, :systems, systems] = curvature[:, systems, :systems] = cross
        curvature[:, systems, systems] = (number * chances[2] * (1 - chances[2])).sum(1)
    return curvature


def _incidence(tallies: Tallies, systems: int) -> csr_matrix:
    """Return [Q, M], 1 at the first system of each pair and -1 at its second."""
    pairs = len(tallies.first)
    rows = np.tile(np.arange(pairs), 2)
    signs = np.repeat([1.0, -1.0], pairs)
    return csr_matrix((signs, (rows, np.concatenate([tallies.first, tallies.second]))), shape=(pairs, systems))
