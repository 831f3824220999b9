"""Annotators: how much they did, how consistent and unbiased they are, how they agree with others, how reliable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.votes.ballots import FIRST_WINS, NEITHER, SECOND_WINS, Ballots, ballots_of, countable
from engine.votes.intervals import Interval, wilson
from engine.votes.strengths import chances_of, fit_strengths, tally_votes
from engine.votes.table import BOTH_BAD, FIRST, SECOND, Votes

OUTCOMES_OF_VOTES = BOTH_BAD + 1
USUAL, USUAL_VOTES = 0.75, 4.0  # reliability before any votes, and how many votes that counts for
ROUNDS, SETTLED = 500, 1e-6  # of the EM algorithm


@dataclass(frozen=True)
class AnnotatorReport:
    """What an annotator's votes say about the annotator.

    Attributes:
        annotator: The name.
        votes: Number of votes, without repeats.
        median_seconds: Median time of a vote; NaN if not known.
        consistency: Share of repeats with the same outcome as the first time, with Wilson's interval.
        left: Share of the left side among votes for a side, with Wilson's interval; 0.5 is expected, as sides are
            drawn.
        agreement: Share of the others' votes on the same items that have the same outcome, with Wilson's interval.
        reliability: Probability that a vote is that item's true result (one-coin model).
        weight: Share of the votes that are better than guesses, 0 to 1, for the leaderboard.
    """

    annotator: str
    votes: int
    median_seconds: float
    consistency: Interval
    left: Interval
    agreement: Interval
    reliability: float
    weight: float


def annotator_reports(votes: Votes) -> list[AnnotatorReport]:
    """Return a report on each annotator, in the order of `votes.annotators`."""
    people = len(votes.annotators)
    counts = ~votes.repeat.astype(bool)
    number = np.bincount(votes.annotator[counts], minlength=people)
    same, again = _repeats(votes)
    decided = counts & (votes.outcome <= SECOND) & (votes.swapped >= 0)
    left = decided & ((votes.outcome == FIRST) == (votes.swapped == 0))
    lefts, sided = (np.bincount(votes.annotator[own], minlength=people) for own in (left, decided))
    alike, compared = _agreement(votes, counts)
    reliability, guess = reliabilities(votes)
    timed = counts & np.isfinite(votes.seconds)
    order = np.argsort(votes.annotator[timed], kind="stable")
    seconds = np.split(
        votes.seconds[timed][order], np.cumsum(np.bincount(votes.annotator[timed], minlength=people))[:-1]
    )
    weight = np.clip((reliability - guess) / (1 - guess), 0, 1)
    return [
        AnnotatorReport(
            annotator=name,
            votes=int(number[at]),
            median_seconds=float(np.median(seconds[at])) if len(seconds[at]) else float("nan"),
            consistency=wilson(int(same[at]), int(again[at])),
            left=wilson(int(lefts[at]), int(sided[at])),
            agreement=wilson(float(alike[at]), int(compared[at])),
            reliability=float(reliability[at]),
            weight=float(weight[at]),
        )
        for at, name in enumerate(votes.annotators)
    ]


def reliability_weights(votes: Votes, reports: list[AnnotatorReport]) -> np.ndarray:
    """Return weights [N] of the votes by their annotators' reliability, for `leaderboard`; reports: of these votes."""
    return np.array([report.weight for report in reports])[votes.annotator]


def reliabilities(votes: Votes) -> tuple[np.ndarray, float]:
    """Return the reliability [A] of annotators by the one-coin model, and that of a guess.

    An item has a true result: the first wins, the second, or neither. An annotator's vote is that result with the
    annotator's probability, and each of the others equally often otherwise. The EM algorithm finds these probabilities;
    the prior of an item's result is that of its two systems' strengths, so that items with a single vote count as well.
    """
    counts = countable(votes)
    ballots = ballots_of(votes)
    people = len(votes.annotators)
    results = NEITHER + 1 if (ballots.result == NEITHER).any() else NEITHER
    reliability = np.full(people, USUAL)
    if not len(ballots):
        return reliability, 1 / results
    item = np.unique(votes.item[counts], return_inverse=True)[1]
    items, number = int(item.max()) + 1, np.bincount(ballots.annotator, minlength=people)
    prior = _prior(ballots, len(votes.systems))[:results]
    log_prior = np.zeros((items, results))
    log_prior[item] = np.log(np.maximum(prior, 1e-12)).T
    for _ in range(ROUNDS):
        wrong = np.log((1 - reliability) / (results - 1))
        gain = (np.log(reliability) - wrong)[ballots.annotator]
        gains = np.bincount(item * results + ballots.result, gain, items * results)
        score = log_prior + gains.reshape(items, results)
        chance = np.exp(score - score.max(1, keepdims=True))
        chance /= chance.sum(1, keepdims=True)
        right = np.bincount(ballots.annotator, chance[item, ballots.result], people)
        new = (right + USUAL * USUAL_VOTES) / (number + USUAL_VOTES)
        moved = np.abs(new - reliability).max()
        reliability = new
        if moved < SETTLED:
            break
    return reliability, 1 / results


def _prior(ballots: Ballots, systems: int) -> np.ndarray:
    """Return the probabilities [3, N] of each vote's results by the systems' strengths.

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
    strengths = fit_strengths(tallies, systems + 1)
    return chances_of(strengths.log_strength, strengths.log_tie, ballots.first, ballots.second)


def _repeats(votes: Votes) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each annotator, how many repeats have the outcome of the first time, and how many there are."""
    people = len(votes.annotators)
    repeat = votes.repeat.astype(bool)
    key = votes.item.astype(np.int64) * max(people, 1) + votes.annotator
    firsts, place = np.unique(key[~repeat], return_index=True)
    outcomes = votes.outcome[~repeat][place]
    at = np.searchsorted(firsts, key[repeat])
    known = at < len(firsts)
    known[known] = firsts[at[known]] == key[repeat][known]
    annotator = votes.annotator[repeat][known]
    same = outcomes[at[known]] == votes.outcome[repeat][known]
    return np.bincount(annotator[same], minlength=people), np.bincount(annotator, minlength=people)


def _agreement(votes: Votes, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each annotator, the sum of the shares of others' votes that are alike, and the number of votes."""
    people = len(votes.annotators)
    item, annotator, outcome = votes.item[counts], votes.annotator[counts], votes.outcome[counts]
    if not len(item):
        return np.zeros(people), np.zeros(people, int)
    kind = item.astype(np.int64) * OUTCOMES_OF_VOTES + outcome
    mine, own = np.unique(item.astype(np.int64) * people + annotator, return_inverse=True)
    alike, own_alike = np.bincount(kind)[kind], own * OUTCOMES_OF_VOTES + outcome
    alike = alike - np.bincount(own_alike)[own_alike]
    others = np.bincount(item)[item] - np.bincount(own, minlength=len(mine))[own]
    compared = others > 0
    shares = alike[compared] / others[compared]
    return np.bincount(annotator[compared], shares, people), np.bincount(annotator[compared], minlength=people)
