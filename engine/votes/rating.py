"""Strengths of systems that votes connect, by evalica, and their replicates by bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from engine.votes.ballots import FIRST_WINS, NEITHER, SECOND_WINS, Ballots
from engine.votes.intervals import TAIL, Z, t_quantile
from engine.votes.resampling import MOST_DEGREES, Clustering, clustering_of, clusters_of, draw_weights
from engine.votes.strengths import Strengths, Tallies, fit_strengths, influence_of, tally_votes

if TYPE_CHECKING:
    import evalica  # imported where it is used: with scipy.stats it takes half a second of the app's start

IMAGINARY = 0.5  # votes of each kind against an imaginary opponent, where votes are one-sided
CONVERGED = {"tolerance": 1e-9, "limit": 10_000}  # for evalica
SAME = 1e-6  # log-strengths that differ by less share a rank


@dataclass(frozen=True)
class Rated:
    """S systems that votes connect.

    Attributes:
        newman: [S], strengths by Newman's algorithm, as evalica scales them.
        bradley_terry: [S], strengths by Bradley-Terry, a tie being half a win for each; they add up to one.
        log_strength: [S], logarithms of Newman's strengths, with mean zero.
        low: [S], lower ends of their 95% intervals.
        high: [S], upper ends.
        replicates: [B, S], log-strengths under the resamples, spread as the intervals are.
        tie_parameter: v of Davidson's model.
        clustering: How alike the votes of one prompt and of one annotator are.
    """

    newman: np.ndarray
    bradley_terry: np.ndarray
    log_strength: np.ndarray
    low: np.ndarray
    high: np.ndarray
    replicates: np.ndarray
    tie_parameter: float
    clustering: Clustering

    def ranks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the ranks [S], and the ends of their 95% intervals; 1 is best."""
        rank = ranks_of(self.log_strength)
        low, high = np.quantile(ranks_of(self.replicates), [TAIL, 1 - TAIL], axis=0, method="nearest")
        return rank, np.minimum(low.astype(int), rank), np.maximum(high.astype(int), rank)

    def best(self) -> np.ndarray:
        """Return the probability [S] that each is the best."""
        return np.bincount(self.replicates.argmax(1), minlength=self.replicates.shape[1]) / len(self.replicates)

    def ahead(self) -> np.ndarray:
        """Return the probability [S, S] that the row is stronger than the column."""
        return np.stack([(own[:, None] > self.replicates).mean(0) for own in self.replicates.T])


def rate(ballots: Ballots, systems: int, one_sided: bool, resamples: int, rng: np.random.Generator) -> Rated:
    """Return the strengths of systems that votes connect.

    Args:
        ballots: Votes on these systems; indices are theirs.
        systems: Their number S.
        one_sided: Whether strengths need votes against an imaginary opponent to be finite.
        resamples: Number of resamples B.
        rng: Of the resamples.
    """
    if systems == 1:
        return _alone(resamples, rng)
    clusters = clusters_of(ballots.prompt, ballots.annotator)
    weights = ballots.weight
    size = systems
    if one_sided:
        ballots, size = _with_imaginary(ballots, systems), systems + 1
    tallies = tally_votes(ballots.first, ballots.second, ballots.result, ballots.weight, size)
    fitted = fit_strengths(tallies, size)
    influence = _influences(fitted, tallies, ballots)[: len(weights), :systems]
    influence = influence - influence.mean(1, keepdims=True)
    clustering = clustering_of(influence * weights[:, None], clusters)
    drawn = weights * draw_weights(clustering, clusters, resamples, rng)
    if one_sided:
        imaginary = rng.gamma(IMAGINARY, size=(resamples, 2 * systems))
        drawn = np.concatenate([drawn, np.maximum(imaginary, 1e-6)], axis=1)
    again = fit_strengths(tally_votes(ballots.first, ballots.second, ballots.result, drawn, size), size, fitted)
    log_strength = _centred(fitted.log_strength[:systems])
    replicates = _centred(again.log_strength[:, :systems])
    if one_sided:
        low, high = np.quantile(replicates, [TAIL, 1 - TAIL], axis=0)
        low, high = np.minimum(low, log_strength), np.maximum(high, log_strength)
    else:
        # Scaled to the quantile of Student's t, and around the estimate: replicates have its bias twice.
        stretch = t_quantile(clustering.degrees) / Z
        replicates = log_strength + stretch * (replicates - replicates.mean(0))
        half = Z * replicates.std(0, ddof=1)
        low, high = log_strength - half, log_strength + half
    newman, bradley_terry = _by_evalica(ballots, size)
    return Rated(
        newman=newman[:systems],
        bradley_terry=bradley_terry[:systems] / bradley_terry[:systems].sum(),
        log_strength=log_strength,
        low=low,
        high=high,
        replicates=replicates,
        tie_parameter=float(np.exp(fitted.log_tie)),
        clustering=clustering,
    )


def ranks_of(log_strength: np.ndarray) -> np.ndarray:
    """Return the ranks [..., S] of log-strengths [..., S]; 1 is best, and equal ones share the better rank."""
    order = np.sort(log_strength, axis=-1)
    flat, flat_order = log_strength.reshape(-1, log_strength.shape[-1]), order.reshape(-1, order.shape[-1])
    above = [len(own) - np.searchsorted(rising, own + SAME) for own, rising in zip(flat, flat_order, strict=True)]
    return 1 + np.reshape(above, log_strength.shape)


def win_rates(ballots: Ballots, systems: int) -> np.ndarray:
    """Return each system's mean, over its opponents, of its share of wins, a tie being half of one [M]."""
    if not len(ballots):
        return np.zeros(systems)
    import evalica

    return _in_order(evalica.average_win_rate(**_arguments(ballots)), systems)


def _by_evalica(ballots: Ballots, systems: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the strengths [S] by Newman's algorithm and by Bradley-Terry."""
    import evalica

    arguments = _arguments(ballots) | CONVERGED
    return (
        _in_order(evalica.newman(**arguments), systems),
        _in_order(evalica.bradley_terry(**arguments), systems),
    )


def _arguments(ballots: Ballots) -> dict[str, Any]:
    """Return evalica's arguments."""
    from evalica import Winner

    of_result = {FIRST_WINS: Winner.X, SECOND_WINS: Winner.Y, NEITHER: Winner.Draw}
    winners = [of_result[result] for result in ballots.result.tolist()]
    sides = {"xs": ballots.first.tolist(), "ys": ballots.second.tolist()}
    return {**sides, "winners": winners, "weights": ballots.weight.tolist()}


def _in_order(ranking: evalica.Result, systems: int) -> np.ndarray:
    """Return the scores [S] of a ranking; 0 for a system without votes."""
    scores = ranking.scores.to_dict()
    return np.array([scores.get(system, 0.0) for system in range(systems)])


def _with_imaginary(ballots: Ballots, systems: int) -> Ballots:
    """Return the votes with a win and a loss of each system against an imaginary opponent, number `systems`."""
    each = np.tile(np.arange(systems), 2)
    none = np.full(2 * systems, -1)
    return Ballots(
        first=np.concatenate([ballots.first, each]),
        second=np.concatenate([ballots.second, np.full(2 * systems, systems)]),
        result=np.concatenate([ballots.result, np.repeat([FIRST_WINS, SECOND_WINS], systems)]),
        weight=np.concatenate([ballots.weight, np.full(2 * systems, IMAGINARY)]),
        prompt=np.concatenate([ballots.prompt, none]),
        annotator=np.concatenate([ballots.annotator, none]),
    )


def _influences(fitted: Strengths, tallies: Tallies, ballots: Ballots) -> np.ndarray:
    """Return by how much each vote moves the log-strengths [N, S], for a weight of one."""
    systems = len(fitted.log_strength)
    turned = ballots.first > ballots.second
    low, high = np.where(turned, ballots.second, ballots.first), np.where(turned, ballots.first, ballots.second)
    pair = np.searchsorted(tallies.first * systems + tallies.second, low * systems + high)
    result = np.where(turned & (ballots.result != NEITHER), 1 - ballots.result, ballots.result)
    return influence_of(fitted, tallies)[pair, result]


def _alone(resamples: int, rng: np.random.Generator) -> Rated:
    """Return one system that met no other: all that is known is the imaginary votes."""
    edge = np.array([special.logit(special.betaincinv(IMAGINARY, IMAGINARY, 1 - TAIL))])
    one = np.ones(1)
    clustering = Clustering(0.0, 0.0, MOST_DEGREES)
    return Rated(one, one, np.zeros(1), -edge, edge, np.zeros((resamples, 1)), 0.0, clustering)


def _centred(log_strength: np.ndarray) -> np.ndarray:
    return log_strength - log_strength.mean(-1, keepdims=True)
