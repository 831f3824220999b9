"""Results of a study: leaderboard, wins, agreement, annotators, what goes with votes, and the lottery."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from app.services.standings import Standing, standing_from
from app.services.vote_sources import DESK, GoldScore, VoteFilter, VoteSource, other_question, outcome_of, votes_of
from app.storage.vote_tables import StoredVote, VoteTables
from engine import Mixture
from engine.solvers.ratings import Rating
from engine.votes.agreement import krippendorff_alpha
from engine.votes.annotators import AnnotatorReport, annotator_reports, reliability_weights
from engine.votes.implied import score_agreement
from engine.votes.intervals import Interval
from engine.votes.leaderboard import Leaderboard, SystemRating, leaderboard
from engine.votes.table import FIRST, SECOND, Votes

LEFT_SHARE = {FIRST: 1.0, SECOND: 0.0}  # of a win; a tie and "both bad" are half of one


@dataclass(frozen=True)
class Wanted:
    """What a page asks for.

    Attributes:
        study: A study's id, or `DESK`.
        question: Key of a question.
        chosen: Which votes count.
        weighted: Whether annotators are weighted by their reliability.
        controlled: Whether ratings are those at equal length and style.
    """

    study: str
    question: str
    chosen: VoteFilter = field(default_factory=VoteFilter)
    weighted: bool = False
    controlled: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return this as plain values."""
        values = asdict(self)
        return values | {"chosen": values["chosen"] | {"excluded": sorted(self.chosen.excluded)}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Wanted:
        """Return what `as_dict` has made plain; the desk's own ratings for {}."""
        if not values:
            return cls(DESK, "")
        chosen = VoteFilter(**{**values["chosen"], "excluded": frozenset(values["chosen"]["excluded"])})
        return cls(**{**values, "chosen": chosen})


@dataclass(frozen=True)
class LeaderRow:
    """A system on the leaderboard.

    Attributes:
        number: Of the system in its source.
        mixture: What the desk can have of it, if anything.
        system: Its rating, intervals and counts.
        rank: Among its group, from 1: by the shown rating.
        shown: The rating with its interval: if that was asked for, at equal length and style.
    """

    number: int
    mixture: Mixture | None
    system: SystemRating
    rank: int
    shown: Interval


@dataclass(frozen=True)
class LeaderGroup:
    """Systems that votes connect, the best first."""

    rows: list[LeaderRow]

    @property
    def votes(self) -> int:
        """Number of votes among the systems."""
        return sum(row.system.votes for row in self.rows) // 2


@dataclass(frozen=True)
class Agreement:
    """How far people agree on a question: Krippendorff's alpha, NaN if no item has two votes."""

    key: str
    text: str
    alpha: Interval


@dataclass(frozen=True)
class Person:
    """An annotator.

    Attributes:
        name: The annotator's name.
        report: What the votes say about the annotator.
        gold: Answers to gold pairs, if there were any.
        failed: Whether gold was failed.
    """

    name: str
    report: AnnotatorReport
    gold: GoldScore | None
    failed: bool


@dataclass(frozen=True)
class Results:
    """All that is shown of the votes that count.

    Attributes:
        source: Where they are from.
        wanted: What was asked for.
        votes: Number of votes, without repeats.
        groups: Systems that votes connect, the largest group first.
        unvoted: Names of the systems without votes.
        cells: (first system, second system, wins, ties, losses) of each pair that met.
        agreements: Of each question.
        people: Annotators, the least reliable first.
        controls: Coefficients of length and style.
        rewards: How often each reward model agrees with people.
        implied: How often each policy's implied reward does.
        responses: Ids of the stored responses that the votes are about.
        standing: The lottery, if all systems are mixtures of this desk.
    """

    source: VoteSource
    wanted: Wanted
    votes: int
    people: list[Person] = field(default_factory=list)
    prompts: int = 0
    groups: list[LeaderGroup] = field(default_factory=list)
    unvoted: list[str] = field(default_factory=list)
    cells: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    controls: dict[str, Interval] = field(default_factory=dict)
    rewards: dict[str, Interval] = field(default_factory=dict)
    implied: dict[str, Interval] = field(default_factory=dict)
    responses: list[int] = field(default_factory=list)
    standing: Standing | None = None


def compute_results(
    tables: VoteTables,
    source: VoteSource,
    wanted: Wanted,
    policies: list[str],
    implied: Mapping[str, Mapping[int, float]] | None = None,
) -> Results:
    """Return the results of a source's votes that count.

    Args:
        tables: The store's votes.
        source: Where the votes are from.
        wanted: What the page asks for.
        policies: Names of the desk's policies.
        implied: {policy: {completion id: implied reward}}, as far as they are known.
    """
    chosen = wanted.chosen.apply(source)
    counted = [vote for vote in chosen if vote.first != vote.second]
    texts = tables.texts(
        vote_responses(vote for vote in counted if vote.first_text is None or vote.second_text is None)
    )
    votes = votes_of(source, counted, texts)
    fresh = [vote for vote in counted if vote.kind != "repeat"]
    results = Results(
        source,
        wanted,
        len(fresh),
        prompts=len({vote.prompt for vote in fresh}),
        standing=lottery_of(source, [vote for vote in chosen if vote.kind != "repeat"], policies),
    )
    if not fresh:
        return results
    reports = annotator_reports(votes)
    weights = reliability_weights(votes, reports) if wanted.weighted else None
    board = leaderboard(votes, weights=weights, controls=tuple(votes.features))
    responses = vote_responses(fresh)
    scores = tables.rewards(responses)
    return replace(
        results,
        groups=groups_of(board, source, wanted.controlled),
        unvoted=[row.system for row in board.systems if not row.votes],
        cells=met_pairs(board),
        agreements=agreements_of(tables, source, wanted, votes, policies),
        people=people_of(reports, source),
        controls={control.name: control.coefficient for control in board.controls},
        rewards={name: score_agreement(votes, scores_of(counted, values)) for name, values in sorted(scores.items())},
        implied={name: score_agreement(votes, scores_of(counted, values)) for name, values in (implied or {}).items()},
        responses=responses,
    )


def groups_of(board: Leaderboard, source: VoteSource, controlled: bool) -> list[LeaderGroup]:
    """Return the systems that have votes by the groups that votes connect, the largest first.

    Args:
        board: The leaderboard.
        source: Where the votes are from.
        controlled: Whether to rank by the ratings at equal length and style.
    """
    groups: dict[int, list[tuple[Interval, int, SystemRating]]] = {}
    for number, system in enumerate(board.systems):
        if system.votes:
            own = Interval(system.rating, system.low, system.high, system.votes)
            shown = system.adjusted if controlled and system.adjusted is not None else own
            groups.setdefault(system.component, []).append((shown, number, system))
    return [
        LeaderGroup(
            [
                LeaderRow(
                    number, source.systems[number].mixture, system, system.rank if not controlled else place, shown
                )
                for place, (shown, number, system) in enumerate(sorted(group, key=lambda row: -row[0].value), 1)
            ]
        )
        for _, group in sorted(groups.items())
    ]


def met_pairs(board: Leaderboard) -> list[tuple[int, int, int, int, int]]:
    """Return (first system, second system, wins, ties, losses) of each pair that met."""
    wins, ties = board.wins, board.ties
    return [
        (int(i), int(j), int(wins[i, j]), int(ties[i, j]), int(wins[j, i]))
        for i, j in np.argwhere(np.triu(wins + wins.T + ties, 1))
    ]


def vote_responses(votes: Iterable[StoredVote]) -> list[int]:
    """Return the ids of the stored responses that votes are about, each once."""
    ids = (one for vote in votes for one in (vote.first_id, vote.second_id))
    return list(dict.fromkeys(one for one in ids if one is not None))


def lottery_of(source: VoteSource, votes: Sequence[StoredVote], policies: list[str]) -> Standing | None:
    """Return the lottery over a source's systems; None if this desk cannot have all of them as mixtures."""
    mixtures = [system.mixture for system in source.systems]
    ratings = []
    for vote in votes:
        first, second = mixtures[vote.first], mixtures[vote.second]
        if first is None or second is None:
            return None
        ratings.append(Rating(first, second, LEFT_SHARE.get(outcome_of(vote.choice, vote.swapped), 0.5)))
    return standing_from(ratings, source.others, policies)


def scores_of(votes: Sequence[StoredVote], values: Mapping[int, float]) -> np.ndarray:
    """Return each vote's difference of scores, first response minus second; NaN where one has no score."""
    gaps = [values.get(vote.first_id or 0, math.nan) - values.get(vote.second_id or 0, math.nan) for vote in votes]
    return np.array(gaps, float)


def agreements_of(
    tables: VoteTables, source: VoteSource, wanted: Wanted, votes: Votes, policies: list[str]
) -> list[Agreement]:
    """Return the agreement of people on each question, among the votes that the filters let count."""
    found = []
    for key, text in source.questions.items():
        asked = votes
        if key != source.question:
            other = other_question(tables, source, key, policies)
            asked = votes_of(other, wanted.chosen.apply(other), {})
        if len(asked):
            found.append(Agreement(key, text, krippendorff_alpha(asked)))
    return found


def people_of(reports: Iterable[AnnotatorReport], source: VoteSource) -> list[Person]:
    """Return the annotators, the least reliable first."""
    failed = source.failed
    return [
        Person(
            source.people.get(report.annotator, report.annotator),
            report,
            source.gold.get(report.annotator),
            report.annotator in failed,
        )
        for report in sorted(reports, key=lambda report: report.reliability)
    ]
