"""Studies as sources of votes, the desk's own ratings among them: systems, people, votes on a question, and filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np

from app.format import in_short
from app.schemas.study import OVERALL, Choice, Question, StudySettings, verdict_of
from app.services.text_style import style_differences
from app.storage.database import stored_mixture
from app.storage.vote_tables import GoldAnswer, StoredSystem, StoredVote, StudyHead, VoteTables
from engine import InputError, Mixture
from engine.solvers.nash import group
from engine.solvers.ratings import LEFT_WINS, Rating, mixture_of
from engine.votes.table import BOTH_BAD, FIRST, SECOND, TIE, Votes

DESK = "desk"  # id of the study of the desk's own ratings
DESK_NAME = "Desk"
QUESTION = "Which response is better?"
VERDICTS = {"first": FIRST, "second": SECOND, "tie": TIE, "both_bad": BOTH_BAD}
GOLD_ENOUGH = 3  # answers to gold pairs, before a person can fail them
GOLD_SHARE = 0.8  # of right answers, for a study that does not say


@dataclass(frozen=True)
class VotedSystem:
    """A system that votes are about. `mixture` is None where this desk cannot have it, as with imported systems."""

    name: str
    mixture: Mixture | None = None


@dataclass(frozen=True)
class GoldScore:
    """A person's answers to gold pairs."""

    right: int
    answers: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.answers


@dataclass(frozen=True)
class VoteSource:
    """A study and its votes on one question.

    Attributes:
        id: Of the study, or `DESK`.
        blind: Whether annotators saw neither sides' names nor settings.
        questions: {key: text}, the first being the overall one.
        question: Key of the question that the votes are about.
        systems: By their numbers in the votes.
        people: {id: name} of the annotators.
        votes: Oldest first, repeats among them; at the desk a mixture may meet itself.
        model: Name of the desk's configuration.
        gold: {annotator: their answers to gold pairs}.
        gold_share: Share of right answers below which gold is failed.
        others: Number of votes that do not count here, being of another configuration or other policies.
    """

    id: str
    name: str
    state: str
    blind: bool
    questions: dict[str, str]
    question: str
    systems: list[VotedSystem]
    people: dict[str, str]
    votes: list[StoredVote]
    model: str
    gold: dict[str, GoldScore] = field(default_factory=dict)
    gold_share: float = GOLD_SHARE
    others: int = 0

    @property
    def failed(self) -> set[str]:
        """Annotators who gave too few right answers to gold pairs."""
        return {
            person
            for person, score in self.gold.items()
            if score.answers >= GOLD_ENOUGH and score.accuracy < self.gold_share
        }


@dataclass(frozen=True)
class VoteFilter:
    """Which votes count.

    Attributes:
        person: Only this annotator's, if given.
        since: First day, as YYYY-MM-DD in UTC; "" for no bound.
        until: Last day, likewise.
        excluded: Annotators whose votes do not count.
        passed_gold: Whether the votes of those who failed gold do not count.
    """

    person: str = ""
    since: str = ""
    until: str = ""
    excluded: frozenset[str] = frozenset()
    passed_gold: bool = False

    def apply(self, source: VoteSource) -> list[StoredVote]:
        """Return the votes of a source that count."""
        left_out = self.excluded | (source.failed if self.passed_gold else set())
        return [
            vote
            for vote in source.votes
            if vote.annotator not in left_out
            and (not self.person or vote.annotator == self.person)
            and (not self.since or vote.at[:10] >= self.since)
            and (not self.until or vote.at[:10] <= self.until)
        ]


def read_day(typed: str | None, what: str) -> str:
    """Return a typed day as YYYY-MM-DD, "" if nothing was typed.

    Raises:
        InputError: if it is not a day.
    """
    text = (typed or "").strip()
    try:
        return date.fromisoformat(text).isoformat() if text else ""
    except ValueError:
        raise InputError(f"{what}: found '{text[:40]}'; type a day such as 2026-01-31, or leave it empty") from None


def outcome_of(choice: Choice, swapped: int) -> int:
    """Return the outcome of a choice about the sides as they were seen."""
    return VERDICTS[verdict_of(choice, swapped == 1)]


# ---------------------------------------------------------------------------------------------------- reading a source


def read_source(tables: VoteTables, study: str, question: str, model: str, policies: list[str]) -> VoteSource:
    """Return a study with its votes on a question; an unknown question is taken as the first.

    Args:
        tables: The store's votes.
        study: A study's id, or `DESK`.
        question: A question's key.
        model: Name of the desk's configuration.
        policies: Names of its policies.

    Raises:
        InputError: if there is no such study.
    """
    if study == DESK:
        return desk_source(tables, question, model, policies)
    head = next((head for head in tables.heads() if head.id == study), None)
    if head is None:
        raise InputError("study: it is not there any more; choose another one")
    questions = questions_of(tables, head)
    question = question if question in questions else next(iter(questions))
    return VoteSource(
        id=head.id,
        name=head.name,
        state=head.state,
        blind=True,
        questions=questions,
        question=question,
        systems=[voted_system(system, head.model == model, policies) for system in tables.systems(study)],
        people=tables.people(study),
        votes=tables.votes(study, question),
        model=model,
        gold=gold_scores(tables.gold(study)),
        gold_share=float(head.settings.get("training_share", GOLD_SHARE)),
    )


def other_question(tables: VoteTables, source: VoteSource, question: str, policies: list[str]) -> VoteSource:
    """Return a source with the votes on another of its questions."""
    if source.id == DESK:  # whose systems are those that were rated by this question
        return desk_source(tables, question, source.model, policies)
    return replace(source, question=question, votes=tables.votes(source.id, question))


def questions_of(tables: VoteTables, head: StudyHead) -> dict[str, str]:
    """Return {key: text} of a study's questions: those of its settings, then others that have answers."""
    try:
        asked = StudySettings.model_validate(head.settings).questions
    except ValueError:  # of an import, or of another version
        asked = [Question(key=OVERALL, text=QUESTION)]
    known = {question.key: question.text for question in asked}
    return known | {key: key for key in tables.questions(head.id) if key not in known}


def voted_system(system: StoredSystem, same_model: bool, policies: list[str]) -> VotedSystem:
    """Return a stored system, with its mixture if this desk can have it."""
    if system.mixture is None or not same_model:
        return VotedSystem(system.name)
    try:
        return VotedSystem(system.name, mixture_of(system.mixture, policies))
    except InputError:
        return VotedSystem(system.name)


def gold_scores(answers: Iterable[GoldAnswer]) -> dict[str, GoldScore]:
    """Return {annotator: their answers to gold pairs}, of the questions for which a verdict is known."""
    right: Counter[str] = Counter()
    all_answers: Counter[str] = Counter()
    for answer in answers:
        if answer.question not in answer.expected:
            continue
        accepted = {VERDICTS[verdict] for verdict in answer.expected[answer.question] if verdict in VERDICTS}
        all_answers[answer.annotator] += 1
        right[answer.annotator] += outcome_of(answer.choice, answer.swapped) in accepted
    return {person: GoldScore(right[person], count) for person, count in all_answers.items()}


def desk_source(tables: VoteTables, question: str, model: str, policies: list[str]) -> VoteSource:
    """Return the desk's own ratings as a study that is not blind.

    Mixtures whose weights agree are one system, as in the lottery. The system that appeared first is a pair's first.
    """
    objectives = tables.rated_objectives()
    questions = {OVERALL: QUESTION} | {objective: f"Which is more {objective}?" for objective in objectives}
    question = question if question in questions else OVERALL
    rows = tables.ratings(None if question == OVERALL else question)
    counted, ratings = [], []
    for row in rows:
        try:
            if row["model"] != model:
                continue
            left, right = (mixture_of(stored_mixture(row, f"{side}_"), policies) for side in ("left", "right"))
        except InputError:  # of policies that this configuration had once
            continue
        counted.append(row)
        ratings.append(Rating(left, right, LEFT_WINS[row["choice"]]))
    mixtures, places = group(ratings)
    votes, seen = [], set()
    for row, (left_place, right_place) in zip(counted, places.tolist(), strict=True):
        swapped = left_place > right_place
        sides = ("right", "left") if swapped else ("left", "right")
        texts = [row[f"{side}_text"] for side in sides]
        places_of_pair = sorted((left_place, right_place))
        item = f"{row['prompt_id']}:{places_of_pair}:{hash(tuple(texts)):x}"
        person = row["annotator_id"]
        if (person, item) in seen:  # the desk never asks for a repeat: it is a rating like any other
            item = f"{item}:{row['id']}"
        seen.add((person, item))
        votes.append(
            StoredVote(
                item=item,
                prompt=str(row["prompt_id"]),
                first=places_of_pair[0],
                second=places_of_pair[1],
                first_id=row[f"{sides[0]}_id"],
                second_id=row[f"{sides[1]}_id"],
                first_text=texts[0],
                second_text=texts[1],
                choice=row["choice"],
                swapped=int(swapped),
                kind="pair",
                probability=1.0,
                annotator=person,
                seconds=None,
                at=row["created_at"],
            )
        )
    return VoteSource(
        id=DESK,
        name=DESK_NAME,
        state="open",
        blind=False,
        questions=questions,
        question=question,
        systems=[VotedSystem(name, mixture) for name, mixture in zip(unique(mixtures), mixtures, strict=True)],
        people={vote.annotator: vote.annotator for vote in votes},
        votes=votes,
        model=model,
        others=len(rows) - len(counted),
    )


def unique(mixtures: Sequence[Mixture]) -> list[str]:
    """Return the mixtures in short, numbered where two read the same."""
    names: list[str] = []
    for mixture in mixtures:
        name, number = in_short(mixture), 2
        while name in names:
            name, number = f"{in_short(mixture)} ({number})", number + 1
        names.append(name)
    return names


# ---------------------------------------------------------------------------------------------------- votes as columns


def numbers_of(values: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Return the distinct values in order of appearance, and the number of each value among them."""
    places: dict[str, int] = {}
    numbers = [places.setdefault(value, len(places)) for value in values]
    return list(places), np.array(numbers, int)


def votes_of(source: VoteSource, votes: Sequence[StoredVote], texts: dict[int, str]) -> Votes:
    """Return votes as the columns that statistics read; annotators are named by their ids.

    Args:
        source: Where the votes are from.
        votes: Those of them that count.
        texts: {completion id: text}, for votes whose rows have no texts of their own.
    """
    annotators, annotator = numbers_of(vote.annotator for vote in votes)
    prompts, prompt = numbers_of(vote.prompt for vote in votes)
    items, item = numbers_of(vote.item for vote in votes)
    inverse = np.array([1 / vote.probability if vote.probability > 0 else 1.0 for vote in votes])
    return Votes(
        systems=[system.name for system in source.systems],
        annotators=annotators,
        prompts=prompts,
        items=items,
        first=np.array([vote.first for vote in votes], int),
        second=np.array([vote.second for vote in votes], int),
        outcome=np.array([outcome_of(vote.choice, vote.swapped) for vote in votes], int),
        annotator=annotator,
        prompt=prompt,
        item=item,
        swapped=np.array([vote.swapped for vote in votes], int),
        repeat=np.array([vote.kind == "repeat" for vote in votes], bool),
        weight=inverse / inverse.mean() if len(votes) else inverse,
        seconds=np.array([np.nan if vote.seconds is None else vote.seconds for vote in votes], float),
        features=style_of(votes, texts),
    )


def style_of(votes: Sequence[StoredVote], texts: dict[int, str]) -> dict[str, np.ndarray]:
    """Return the differences in style of the votes' responses; {} if a response has no text here."""
    pairs = []
    for vote in votes:
        first = texts.get(vote.first_id or 0, vote.first_text)
        second = texts.get(vote.second_id or 0, vote.second_text)
        if first is None or second is None:
            return {}
        pairs.append((first, second))
    return style_differences(pairs)
