"""Leaderboard of systems: Bradley-Terry with ties, bootstrap intervals, ranks, and the matrix of wins.

See docs/statistics.md for the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.votes.ballots import ballots_of, countable
from engine.votes.connection import components_of, is_one_sided, mark_of
from engine.votes.controls import Control, fit_controls
from engine.votes.intervals import RATING, Interval
from engine.votes.rating import rate, win_rates
from engine.votes.resampling import Clustering
from engine.votes.table import Votes

RESAMPLES = 400


@dataclass(frozen=True)
class SystemRating:
    """A system on the leaderboard. Its numbers compare it with the systems of its component, and with no other.

    Attributes:
        system: Its name.
        votes: Number of votes on its responses; wins, losses and ties add up to it.
        wins: Number of votes for it.
        losses: Number of votes for the other.
        ties: Number of votes for neither.
        average_win_rate: Mean over its opponents of its share of wins, a tie being half of one; 0 without votes.
        component: Which component it belongs to; 0 is the largest.
        newman: Strength by Newman's algorithm (Davidson's model of ties), on evalica's scale.
        bradley_terry: Strength by Bradley-Terry, a tie being half a win for each; sums to one over the component.
        rating: 400 log10 of the strength by Newman's algorithm; the component's mean is 0.
        low: Lower end of the rating's 95% interval.
        high: Upper end.
        rank: Within the component, 1 is best.
        rank_low: Best rank in the 95% interval.
        rank_high: Worst rank in it.
        provisional: Whether the rank may change: the interval holds more than one, or the system is marked.
        best: Probability that it is the best of its component.
        mark: Why the rating says less than it seems ("no votes", "only wins", "only losses", "only ties", "one-sided
            votes"), or "". If any system of a component is marked, the component's strengths include half a win and
            half a loss of each against an imaginary opponent.
        adjusted: Rating with the controls held equal, by logistic regression; None without controls.
    """

    system: str
    votes: int
    wins: int
    losses: int
    ties: int
    average_win_rate: float
    component: int
    newman: float
    bradley_terry: float
    rating: float
    low: float
    high: float
    rank: int
    rank_low: int
    rank_high: int
    provisional: bool
    best: float
    mark: str
    adjusted: Interval | None = None


@dataclass(frozen=True)
class Leaderboard:
    """The leaderboard of M systems.

    Attributes:
        systems: The systems, in the order of the votes' list.
        wins: [M, M], number of wins of the row against the column.
        ties: [M, M], number of ties, symmetric.
        ahead: [M, M], probability that the row is stronger than the column; NaN between components and on the diagonal.
        tie_parameter: For each component, v of Davidson's model.
        clustering: For each component, how alike votes of one prompt and of one annotator are.
        controls: Coefficients of the controls, in the order in which they were asked for.
        votes: Number of votes that count.
        annotators: Number of annotators that gave them.
        prompts: Number of prompts that they are about.
        resamples: Number of resamples of the bootstrap.
    """

    systems: list[SystemRating]
    wins: np.ndarray
    ties: np.ndarray
    ahead: np.ndarray
    tie_parameter: list[float]
    clustering: list[Clustering]
    controls: list[Control]
    votes: int
    annotators: int
    prompts: int
    resamples: int

    @property
    def components(self) -> list[list[str]]:
        """Names of each component's systems, best first."""
        names: list[list[str]] = [[] for _ in self.tie_parameter]
        for row in self.ranking():
            names[row.component].append(row.system)
        return names

    def ranking(self) -> list[SystemRating]:
        """Return the systems by component, best first."""
        return sorted(self.systems, key=lambda row: (row.component, row.rank))


def leaderboard(
    votes: Votes,
    resamples: int = RESAMPLES,
    seed: int = 0,
    weights: np.ndarray | None = None,
    controls: Sequence[str] = (),
) -> Leaderboard:
    """Return the leaderboard of these votes. Repeats do not count, nor do votes of weight zero.

    Args:
        votes: The votes; their own weights count.
        resamples: Number of resamples, for intervals, rank intervals and probabilities.
        seed: Of the resamples.
        weights: [N], further weights that multiply the votes' own, such as of annotators' reliability.
        controls: Names of `votes.features` that may explain votes. Votes with a missing value are left out of that
            regression.
    """
    systems = len(votes.systems)
    ballots = ballots_of(votes, weights)
    wins, ties = ballots.counts(systems)
    component = _by_size(components_of(wins + wins.T + ties))
    rng = np.random.default_rng(seed)
    rows: dict[int, SystemRating] = {}
    ahead = np.full((systems, systems), np.nan)
    tie_parameter, clusterings = [], []
    averages = win_rates(ballots, systems)
    for number in range(component.max(initial=-1) + 1):
        members = np.flatnonzero(component == number)
        block = np.ix_(members, members)
        one_sided = is_one_sided(wins[block], ties[block])
        place = np.zeros(systems, int)
        place[members] = np.arange(len(members))
        own = ballots.where(component[ballots.first] == number)
        own = replace(own, first=place[own.first], second=place[own.second])
        rated = rate(own, len(members), one_sided, resamples, rng)
        ahead[block] = rated.ahead()
        tie_parameter.append(rated.tie_parameter)
        clusterings.append(rated.clustering)
        rank, rank_low, rank_high = rated.ranks()
        best = rated.best()
        for at, system in enumerate(members.tolist()):
            won, lost, tied = int(wins[system].sum()), int(wins[:, system].sum()), int(ties[system].sum())
            mark = mark_of(won, lost, tied, one_sided)
            rows[system] = SystemRating(
                system=votes.systems[system],
                votes=won + lost + tied,
                wins=won,
                losses=lost,
                ties=tied,
                average_win_rate=float(averages[system]),
                component=number,
                newman=float(rated.newman[at]),
                bradley_terry=float(rated.bradley_terry[at]),
                rating=float(RATING * rated.log_strength[at]),
                low=float(RATING * rated.low[at]),
                high=float(RATING * rated.high[at]),
                rank=int(rank[at]),
                rank_low=int(rank_low[at]),
                rank_high=int(rank_high[at]),
                provisional=bool(rank_low[at] < rank_high[at] or mark),
                best=float(best[at]),
                mark=mark,
            )
    np.fill_diagonal(ahead, np.nan)
    made = [rows[system] for system in range(systems)]
    coefficients: list[Control] = []
    if controls:
        features = {name: votes.features[name][countable(votes, weights)] for name in controls}
        adjusted, coefficients = fit_controls(ballots, component, features, resamples, rng)
        made = [replace(row, adjusted=own) for row, own in zip(made, adjusted, strict=True)]
    return Leaderboard(
        systems=made,
        wins=wins,
        ties=ties,
        ahead=ahead,
        tie_parameter=tie_parameter,
        clustering=clusterings,
        controls=coefficients,
        votes=len(ballots),
        annotators=len(np.unique(ballots.annotator)),
        prompts=len(np.unique(ballots.prompt)),
        resamples=resamples,
    )


def _by_size(component: np.ndarray) -> np.ndarray:
    """Return the components [M] renumbered: the largest is 0, of equal ones the one with the earlier system."""
    sizes = np.bincount(component) if len(component) else np.zeros(0, int)
    order = np.argsort(-sizes, kind="stable")
    new = np.empty_like(order)
    new[order] = np.arange(len(order))
    return new[component]
