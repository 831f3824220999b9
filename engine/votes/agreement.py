"""Krippendorff's alpha of votes, with an interval over prompts and annotators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from engine.votes.intervals import TAIL, UNKNOWN, Interval, Z, t_quantile
from engine.votes.resampling import clusters_of, gamma_weights, summed_variance
from engine.votes.table import BOTH_BAD, Votes

OUTCOMES = BOTH_BAD + 1


@dataclass(frozen=True)
class _Rated:
    """Votes on items that more than one annotator rated. item: [N]; outcome: [N]; raters: [U], of each item."""

    item: np.ndarray
    outcome: np.ndarray
    raters: np.ndarray

    def pairs(self, weights: np.ndarray, item_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of pairs of votes on one item that differ [B], and of those with each outcome [B, K].

        Args:
            weights: [B, N], weights of the votes.
            item_weights: [B, U], weights of the items.
        """
        votes, units = len(self.item), len(self.raters)
        place = (self.item * OUTCOMES + self.outcome, np.arange(votes))
        into = csr_matrix((np.ones(votes), place), shape=(units * OUTCOMES, votes))
        sums, squares = ((into @ own.T).T.reshape(-1, units, OUTCOMES) for own in (weights, weights**2))
        total = sums.sum(2, keepdims=True)
        item_weights = item_weights / (self.raters - 1)
        differing = np.einsum("bu,buk->b", item_weights, sums * (total - sums))
        return differing, np.einsum("bu,buk->bk", item_weights, sums * total - squares)


def krippendorff_alpha(votes: Votes, resamples: int = 400, seed: int = 0) -> Interval:
    """Return Krippendorff's alpha with its 95% interval.

    The units are items, the values are outcomes about the item's first and second response, so that it does not matter
    which was on the left; values are nominal. Repeats do not count. All are NaN if no item has two votes, or if all
    votes are the same, as alpha is not defined then. `number` is that of items with two votes or more.

    Args:
        votes: The votes.
        resamples: Number of resamples.
        seed: Of the resamples.
    """
    counts = ~votes.repeat.astype(bool)
    counts[counts] = np.bincount(votes.item[counts], minlength=1)[votes.item[counts]] > 1
    if not counts.any():
        return UNKNOWN
    item = np.unique(votes.item[counts], return_inverse=True)[1]
    raters = np.bincount(item)
    rated = _Rated(item, votes.outcome[counts], raters)
    clusters = clusters_of(votes.prompt[counts], votes.annotator[counts])
    prompt_of_item = np.zeros(len(raters), int)
    prompt_of_item[item] = clusters.prompt
    value, influence = _alpha_with_influence(rated)
    if not np.isfinite(value):
        return UNKNOWN
    # A prompt's weight counts once in a pair of votes, an annotator's own once for each of the two: hence the half.
    by_prompt, prompts = summed_variance(influence[:, None] / 2, clusters.prompt)
    by_annotator, annotators = summed_variance(influence[:, None], clusters.annotator)
    alone, _ = summed_variance(influence[:, None], np.arange(len(item)))
    if prompts < 2 or not by_prompt:
        return Interval(value, float("nan"), float("nan"), len(raters))
    extra = max(by_annotator - alone, 0.0)
    total = by_prompt + extra
    degrees = total**2 / (by_prompt**2 / (prompts - 1) + extra * by_annotator / max(annotators - 1, 1))
    rng = np.random.default_rng(seed)
    weights = gamma_weights(rng, extra / by_annotator if extra else 0.0, resamples, clusters.annotator)
    again = _alpha(*rated.pairs(weights, gamma_weights(rng, 1.0, resamples, prompt_of_item)))
    low, high = np.quantile(again[np.isfinite(again)], [TAIL, 1 - TAIL])
    stretch = t_quantile(degrees) / Z
    low, high = value + stretch * (min(low, value) - value), value + stretch * (max(high, value) - value)
    return Interval(value, float(low), float(min(high, 1.0)), len(raters))


def _alpha(differing: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """Return alpha [B] from the weight of pairs that differ [B] and that of each outcome [B, K]."""
    total = margins.sum(1)
    expected = (total**2 - (margins**2).sum(1)) / (total - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - differing / expected


def _alpha_with_influence(rated: _Rated) -> tuple[float, np.ndarray]:
    """Return alpha, and its derivative with respect to each vote's weight [N]."""
    votes = len(rated.item)
    differing, margins = (own[0] for own in rated.pairs(np.ones((1, votes)), np.ones((1, len(rated.raters)))))
    total = margins.sum()
    expected = (total**2 - (margins**2).sum()) / (total - 1)
    if not expected > 0:
        return float("nan"), np.zeros(votes)
    table = np.zeros((len(rated.raters), OUTCOMES))
    np.add.at(table, (rated.item, rated.outcome), 1)
    of_item, others = table[rated.item], rated.raters[rated.item] - 1
    unlike = 2 * (others + 1 - of_item[np.arange(votes), rated.outcome]) / others
    # A vote's weight counts in its own outcome's margin and, as the partner in pairs, in those of the others.
    margin = of_item / others[:, None]
    margin[np.arange(votes), rated.outcome] += 1 - 1 / others
    slope = (2 * total - 2 * margins) / (total - 1) - expected / (total - 1)
    return float(1 - differing / expected), -unlike / expected + differing / expected**2 * (margin @ slope)
