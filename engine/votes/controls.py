"""Strengths with length, style or other differences of the responses held equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from engine.votes.ballots import FIRST_WINS, NEITHER, Ballots
from engine.votes.intervals import RATING, UNKNOWN, Interval, studentised
from engine.votes.resampling import clustering_of, clusters_of, draw_weights

PENALTY = 1e-3  # on squared log-strengths and coefficients: keeps them finite where votes are one-sided
STEPS_OF_NEWTON = 50
CLOSE = 1e-8


@dataclass(frozen=True)
class Control:
    """A difference between responses that may explain votes.

    Attributes:
        name: The feature's.
        coefficient: By how much the log-odds of winning grow with one standard deviation of the difference.
        deviation: That standard deviation, around zero.
        votes: Number of votes in the regression.
    """

    name: str
    coefficient: Interval
    deviation: float
    votes: int


def fit_controls(
    ballots: Ballots,
    component: np.ndarray,
    features: Mapping[str, np.ndarray],
    resamples: int,
    rng: np.random.Generator,
) -> tuple[list[Interval], list[Control]]:
    """Return ratings with the features held equal, one a system, and the features' coefficients.

    It is the logistic regression logit P(first wins) = θ_first - θ_second + x·β; a vote for neither is half a vote for
    each.

    Args:
        ballots: The votes.
        component: [M], each system's component; ratings have mean zero over each.
        features: {name: [N]}, differences of the first and the second response.
        resamples: Number of resamples.
        rng: Of the resamples.
    """
    values = np.column_stack(list(features.values()))
    known = np.isfinite(values).all(1)
    ballots, values = ballots.where(known), values[known]
    deviation = np.sqrt(np.mean(values**2, axis=0)) if len(values) else np.zeros(len(features))
    usable = deviation > 0
    scaled = np.where(usable, values / np.where(usable, deviation, 1), 0.0)
    systems, votes = len(component), len(ballots)
    if not votes:
        return [UNKNOWN] * systems, [Control(name, UNKNOWN, float("nan"), 0) for name in features]
    design = _design(ballots, scaled, systems)
    share = np.where(ballots.result == NEITHER, 0.5, (ballots.result == FIRST_WINS).astype(float))
    weights = ballots.weight / ballots.weight.mean()
    fitted = _fit(design, share, weights[None], np.zeros(design.shape[1]))
    chance = 1 / (1 + np.exp(-(design @ fitted[0])))
    curvature = (design.T @ (design.multiply((weights * chance * (1 - chance))[:, None]))).toarray()
    curvature += PENALTY * np.eye(len(curvature))
    influence = design.multiply((weights * (share - chance))[:, None]) @ np.linalg.inv(curvature)
    clusters = clusters_of(ballots.prompt, ballots.annotator)
    clustering = clustering_of(influence, clusters)
    drawn = weights * draw_weights(clustering, clusters, resamples, rng)
    # In parts, as each needs [B, N] numbers several times.
    part = max(1, 2_000_000 // votes)
    again = np.concatenate([_fit(design, share, drawn[at : at + part], fitted[0]) for at in range(0, resamples, part)])
    centre = np.zeros((systems, systems))
    for number in range(component.max() + 1):
        members = np.flatnonzero(component == number)
        centre[np.ix_(members, members)] = np.eye(len(members)) - 1 / len(members)
    rating, replicates = (RATING * own[:, :systems] @ centre for own in (fitted, again))
    met = np.bincount(np.concatenate([ballots.first, ballots.second]), minlength=systems)
    ratings = [
        studentised(float(rating[0, at]), replicates[:, at], clustering.degrees, int(met[at])) if met[at] else UNKNOWN
        for at in range(systems)
    ]
    found = []
    for at, name in enumerate(features):
        own = systems + at
        interval = (
            studentised(float(fitted[0, own]), again[:, own], clustering.degrees, votes) if usable[at] else UNKNOWN
        )
        found.append(Control(name, interval, float(deviation[at]), votes))
    return ratings, found


def _design(ballots: Ballots, scaled: np.ndarray, systems: int) -> csr_matrix:
    """Return [N, M + F]: 1 at the first system, -1 at the second, and the features."""
    votes, number = scaled.shape
    row = np.arange(votes)
    rows = np.concatenate([row, row, np.repeat(row, number)])
    columns = np.concatenate([ballots.first, ballots.second, np.tile(systems + np.arange(number), votes)])
    entries = np.concatenate([np.ones(votes), -np.ones(votes), scaled.ravel()])
    return csr_matrix((entries, (rows, columns)), shape=(votes, systems + number))


def _fit(design: csr_matrix, share: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the coefficients [B, D] under each set of weights [B, N], by Newton's method."""
    size = design.shape[1]
    at = np.tile(start, (len(weights), 1))
    # Products of columns, for the curvature: [N, D * D], with few entries a row.
    products = _products(design)
    for _ in range(STEPS_OF_NEWTON):
        chance = 1 / (1 + np.exp(-(design @ at.T).T))
        slope = (design.T @ (weights * (share - chance)).T).T - PENALTY * at
        curvature = (products.T @ (weights * chance * (1 - chance)).T).T.reshape(-1, size, size)
        move = np.linalg.solve(curvature + PENALTY * np.eye(size), slope[..., None])[..., 0]
        longest = np.abs(move).max(1, keepdims=True)
        at += move * np.minimum(1, 2 / np.maximum(longest, 1e-300))
        if longest.max() < CLOSE:
            break
    return at


def _products(design: csr_matrix) -> csr_matrix:
    """Return each row's products of entries with each other [N, D * D]."""
    votes, size = design.shape
    each = design.indptr[1] if votes else 0  # every row has as many entries
    columns, entries = design.indices.reshape(votes, each), design.data.reshape(votes, each)
    pairs = (columns[:, :, None] * size + columns[:, None, :]).reshape(votes, -1)
    values = (entries[:, :, None] * entries[:, None, :]).reshape(votes, -1)
    starts = np.arange(votes + 1) * each * each
    return csr_matrix((values.ravel(), pairs.ravel(), starts), shape=(votes, size * size))
