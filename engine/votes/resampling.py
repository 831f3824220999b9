"""Bootstrap weights for votes that are clustered by prompts and by annotators at once.

The pigeonhole bootstrap (Owen 2007) multiplies a random weight of the vote's prompt and one of its annotator. Where
votes of a cluster are no more alike than others, its variance is three times too large. Here the variance of either
weight is the share of its cluster's variance that the votes do not have by themselves anyway, and a weight of each pair
of prompt and annotator makes up the rest; see docs/statistics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

MOST_DEGREES = 1e6


@dataclass(frozen=True)
class Clustering:
    """How alike votes of one prompt, and of one annotator, are.

    Attributes:
        prompts: Variance of the prompts' weights, 0 to 1: 0 if votes of one prompt are no more alike than others.
        annotators: Variance of the annotators' weights, likewise.
        degrees: Degrees of freedom of the variance of what was estimated.
        variance: That variance, summed over what was estimated.
    """

    prompts: float
    annotators: float
    degrees: float
    variance: float = 0.0


@dataclass(frozen=True)
class Clusters:
    """The clusters of N votes.

    Attributes:
        prompt: [N], index of the prompt.
        annotator: [N], index of the annotator.
        cell: [N], index of the pair of both.
    """

    prompt: np.ndarray
    annotator: np.ndarray
    cell: np.ndarray


def clusters_of(prompt: np.ndarray, annotator: np.ndarray) -> Clusters:
    """Return clusters with consecutive indices, of any indices [N] of prompts and annotators."""
    _, prompt = np.unique(prompt, return_inverse=True)
    annotators, annotator = np.unique(annotator, return_inverse=True)
    cell = np.unique(prompt * max(len(annotators), 1) + annotator, return_inverse=True)[1]
    return Clusters(prompt, annotator, cell)


def clustering_of(influence: np.ndarray, clusters: Clusters) -> Clustering:
    """Return how alike votes are within clusters.

    Args:
        influence: [N, D], what each vote adds to the error of each of D estimates, to first order.
        clusters: Of the votes.
    """
    alone, _ = summed_variance(influence, clusters.cell)
    by_prompt, prompts = summed_variance(influence, clusters.prompt)
    by_annotator, annotators = summed_variance(influence, clusters.annotator)
    extra_prompts, extra_annotators = max(by_prompt - alone, 0.0), max(by_annotator - alone, 0.0)
    uncertain = extra_prompts * by_prompt / max(prompts - 1, 1) + extra_annotators * by_annotator / max(
        annotators - 1, 1
    )
    total = alone + extra_prompts + extra_annotators
    degrees = total**2 / uncertain if uncertain > total**2 / MOST_DEGREES else MOST_DEGREES
    return Clustering(
        prompts=extra_prompts / by_prompt if extra_prompts else 0.0,
        annotators=extra_annotators / by_annotator if extra_annotators else 0.0,
        degrees=float(max(degrees, 1.0)),
        variance=total,
    )


def draw_weights(clustering: Clustering, clusters: Clusters, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return weights [resamples, N] of mean one, all positive."""
    by_prompt, by_annotator = clustering.prompts, clustering.annotators
    # So that the variance of weights that two votes share is, in all: by_prompt for votes of one prompt, by_annotator
    # for votes of one annotator, and 1 + by_prompt + by_annotator for votes of one cell.
    rest = (2 + by_prompt + by_annotator) / ((1 + by_prompt) * (1 + by_annotator)) - 1
    weights = gamma_weights(rng, rest, resamples, clusters.cell)
    weights *= gamma_weights(rng, by_prompt, resamples, clusters.prompt)
    weights *= gamma_weights(rng, by_annotator, resamples, clusters.annotator)
    return weights


def gamma_weights(rng: np.random.Generator, variance: float, resamples: int, index: np.ndarray) -> np.ndarray:
    """Return gamma weights of mean one and this variance, one for each cluster, at its votes [resamples, N]."""
    if variance < 1e-6 or not len(index):
        return np.ones((resamples, len(index)))
    drawn = rng.gamma(1 / variance, variance, (resamples, int(index.max()) + 1))
    return np.maximum(drawn, 1e-9)[:, index]  # zero would take out votes that connect systems


def summed_variance(influence: np.ndarray, index: np.ndarray) -> tuple[float, int]:
    """Return the variance, summed over estimates, if votes of a cluster may be alike; and the number of clusters.

    It is 0 where there is a single cluster, as nothing tells how clusters differ.
    """
    votes = len(index)
    number = int(index.max()) + 1 if votes else 0
    if number < 2:
        return 0.0, number
    sums = csr_matrix((np.ones(votes), (index, np.arange(votes))), shape=(number, votes)) @ influence
    return float((sums**2).sum()) * number / (number - 1), number
