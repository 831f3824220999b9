"""Annotators: how much they did, how consistent and unbiased they are, how they agree with others, how reliable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.votes.intervals import Interval, wilson
from engine.votes.reliability import reliabilities
from engine.votes.table import BOTH_BAD, FIRST, SECOND, Votes

OUTCOMES_OF_VOTES = BOTH_BAD + 1


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
        reliability: Share of the votes that follow the responses rather than chance, 0 to 1 (one-coin model).
    """

    annotator: str
    votes: int
    median_seconds: float
    consistency: Interval
    left: Interval
    agreement: Interval
    reliability: float


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
    reliability = reliabilities(votes)
    timed = counts & np.isfinite(votes.seconds)
    order = np.argsort(votes.annotator[timed], kind="stable")
    seconds = np.split(
        votes.seconds[timed][order], np.cumsum(np.bincount(votes.annotator[timed], minlength=people))[:-1]
    )
    return [
        AnnotatorReport(
            annotator=name,
            votes=int(number[at]),
            median_seconds=float(np.median(seconds[at])) if len(seconds[at]) else float("nan"),
            consistency=wilson(int(same[at]), int(again[at])),
            left=wilson(int(lefts[at]), int(sided[at])),
            agreement=wilson(float(alike[at]), int(compared[at])),
            reliability=float(reliability[at]),
        )
        for at, name in enumerate(votes.annotators)
    ]


def reliability_weights(votes: Votes, reports: list[AnnotatorReport]) -> np.ndarray:
    """Return weights [N] of the votes by their annotators' reliability, for `leaderboard`; reports: of these votes."""
    return np.array([report.reliability for report in reports])[votes.annotator]


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
