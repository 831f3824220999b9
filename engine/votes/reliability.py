"""Reliability of annotators: the share of their votes that follow the responses, by a one-coin model and EM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.sparse import csr_matrix

from engine.votes.ballots import FIRST_WINS, NEITHER, SECOND_WINS, Ballots, ballots_of, countable
from engine.votes.strengths import fit_strengths, tally_votes
from engine.votes.table import Votes

USUAL, USUAL_VOTES = 0.75, 4.0  # reliability before any votes, and how many votes that counts for
ROUNDS, SETTLED = 100, 1e-3  # of the EM algorithm; of reliabilities
NODES = 7  # of the quadrature over what an item adds to the difference of strengths
START = np.array([1.3, 0.7, np.log(0.5)])  # factor, spread of items, log of the tie parameter


@dataclass(frozen=True)
class _Items:
    """N votes on U items.

    Attributes:
        item: [N], index of each vote's item.
        annotator: [N], index of its annotator.
        result: [N], FIRST_WINS, SECOND_WINS or NEITHER.
        difference: [U], of the item's two systems' log-strengths.
        results: Number of different results, 2 without ties.
        nodes: [K], values of the quadrature.
        by_item: [U, N], sums votes of an item.
        by_result: [3 U, N], sums votes of an item with the same result.
    """

    item: np.ndarray
    annotator: np.ndarray
    result: np.ndarray
    difference: np.ndarray
    results: int
    nodes: np.ndarray
    by_item: csr_matrix
    by_result: csr_matrix


def reliabilities(votes: Votes) -> np.ndarray:
    """Return the reliability [A] of annotators, 0 to 1.

    An annotator's vote follows the responses with the annotator's probability, and is any of the possible results
    equally often otherwise. A vote that follows them has Davidson's probabilities; the difference of log-strengths is
    that of the systems, times a factor, plus a normal deviation of the item, which its votes share. The EM algorithm
    finds the annotators' probabilities, the factor, the spread of items, and the tie parameter.
    """
    ballots = ballots_of(votes)
    people = len(votes.annotators)
    if not len(ballots):
        return np.full(people, USUAL)
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(NODES)
    _, first_vote, item = np.unique(votes.item[countable(votes)], return_index=True, return_inverse=True)
    units = len(first_vote)
    items = _Items(
        item=item,
        annotator=ballots.annotator,
        result=ballots.result,
        difference=_differences(ballots, len(votes.systems))[first_vote],
        results=NEITHER + bool((ballots.result == NEITHER).any()),
        nodes=nodes,
        by_item=_summing(item, units),
        by_result=_summing(ballots.result * units + item, 3 * units),
    )
    number = np.bincount(items.annotator, minlength=people)
    reliability = np.full(people, USUAL)
    at = START
    for _ in range(ROUNDS):
        chances = _chances(items, at)
        follows = reliability[items.annotator, None] * chances[items.result, items.item]  # [N, K]
        either = follows + (1 - reliability[items.annotator, None]) / items.results
        score = np.log(node_weights) + items.by_item @ np.log(either)
        of_node = special.softmax(score, axis=1)
        following = of_node[items.item] * follows / either  # probability of the node, and that the vote follows
        share = np.bincount(items.annotator, following.sum(1), people) + USUAL * USUAL_VOTES
        moved = share / (number + USUAL_VOTES) - reliability
        reliability = reliability + moved
        step = _step(items, at, chances, following)
        at = np.maximum(at + step, [0.0, 1e-3, -20.0])
        if np.abs(moved).max() < SETTLED and np.abs(step).max() < 10 * SETTLED:
            break
    return reliability


def _chances(items: _Items, at: np.ndarray) -> np.ndarray:
    """Return the probabilities [3, U, K] of results if a vote follows the responses."""
    half = (at[0] * items.difference[:, None] + at[1] * items.nodes) / 2
    none = np.full(half.shape, np.log(2) + at[2] if items.results > NEITHER else -np.inf)
    return special.softmax(np.stack([half, -half, none]), axis=0)


def _step(items: _Items, at: np.ndarray, chances: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Return Newton's step of factor, spread and log tie parameter; following: [N, K], weights of votes."""
    units = len(items.difference)
    counts = (items.by_result @ following).reshape(3, units, -1)
    number = counts.sum(0)
    lead = chances[0] - chances[1]
    pull = (counts[0] - counts[1] - number * lead) / 2
    bend = number * (chances[0] + chances[1] - lead**2) / 4
    cross = -number * lead * chances[NEITHER] / 2
    by = np.stack([np.broadcast_to(items.difference[:, None], pull.shape), np.broadcast_to(items.nodes, pull.shape)])
    slope = np.append((by * pull).sum((1, 2)), (counts[NEITHER] - number * chances[NEITHER]).sum())
    curvature = np.zeros((3, 3))
    curvature[:2, :2] = np.einsum("auk,buk,uk->ab", by, by, bend)
    curvature[:2, 2] = curvature[2, :2] = (by * cross).sum((1, 2))
    curvature[2, 2] = (number * chances[NEITHER] * (1 - chances[NEITHER])).sum()
    # A prior around the start, of one vote's weight, keeps them finite whatever the votes.
    step = np.linalg.solve(curvature + np.eye(3), slope - (at - START))
    return step / max(1.0, float(np.abs(step).max()))


def _summing(index: np.ndarray, number: int) -> csr_matrix:
    """Return a matrix [number, N] that sums values with the same index [N]."""
    return csr_matrix((np.ones(len(index)), (index, np.arange(len(index)))), shape=(number, len(index)))


def _differences(ballots: Ballots, systems: int) -> np.ndarray:
    """Return the differences [N] of the systems' log-strengths.

    Half a win and half a loss against an imaginary opponent make them finite, whatever the votes.
    """
    each, imaginary = np.tile(np.arange(systems), 2), np.full(2 * systems, systems)
    tallies = tally_votes(
        np.concatenate([ballots.first, each]),
        np.concatenate([ballots.second, imaginary]),
        np.concatenate([ballots.result, np.repeat([FIRST_WINS, SECOND_WINS], systems)]),
        np.concatenate([ballots.weight, np.full(2 * systems, 0.5)]),
        systems + 1,
    )
    log_strength = fit_strengths(tallies, systems + 1).log_strength
    return log_strength[ballots.first] - log_strength[ballots.second]
