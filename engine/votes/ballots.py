"""The votes that count towards strengths, as a win for one system or for neither."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from engine.votes.table import FIRST, SECOND, Votes

FIRST_WINS, SECOND_WINS, NEITHER = range(3)  # results


@dataclass(frozen=True)
class Ballots:
    """N votes that count.

    Attributes:
        first: [N], index of the first response's system.
        second: [N], index of the second's.
        result: [N], FIRST_WINS, SECOND_WINS or NEITHER (a tie, or both are bad).
        weight: [N], positive.
        prompt: [N], index of the prompt.
        annotator: [N], index of the annotator.
    """

    first: np.ndarray
    second: np.ndarray
    result: np.ndarray
    weight: np.ndarray
    prompt: np.ndarray
    annotator: np.ndarray

    def __len__(self) -> int:
        return len(self.result)

    def where(self, chosen: np.ndarray) -> Ballots:
        """Return the chosen ones; chosen: [N], bool."""
        return Ballots(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def counts(self, systems: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers [M, M] of wins of the row against the column, and of ties, whatever the weights."""
        wins, ties = np.zeros((systems, systems), int), np.zeros((systems, systems), int)
        for result, winner, loser in ((FIRST_WINS, self.first, self.second), (SECOND_WINS, self.second, self.first)):
            np.add.at(wins, (winner[self.result == result], loser[self.result == result]), 1)
        neither = self.result == NEITHER
        np.add.at(ties, (self.first[neither], self.second[neither]), 1)
        return wins, ties + ties.T


def results_of(outcome: np.ndarray) -> np.ndarray:
    """Return the results of outcomes."""
    return np.where(outcome == FIRST, FIRST_WINS, np.where(outcome == SECOND, SECOND_WINS, NEITHER))


def countable(votes: Votes, weights: np.ndarray | None = None) -> np.ndarray:
    """Return which votes count [N]: no repeats, none of weight zero, none between two responses of one system.

    weights: [N], multiply the votes' own.
    """
    weight = votes.weight if weights is None else votes.weight * weights
    return ~votes.repeat.astype(bool) & (weight > 0) & (votes.first != votes.second)


def ballots_of(votes: Votes, weights: np.ndarray | None = None) -> Ballots:
    """Return the votes that count; weights: [N], multiply the votes' own."""
    weight = votes.weight if weights is None else votes.weight * weights
    every = Ballots(votes.first, votes.second, results_of(votes.outcome), weight, votes.prompt, votes.annotator)
    return every.where(countable(votes, weights))
