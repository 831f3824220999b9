"""A study: what annotators are asked, about which pairs of responses, and how often each pair is rated.

A *study* compares two to six *systems* (mixtures; in imported votes, any names). An *item* is a pair of responses to
one prompt, by two systems, the first and the second. An *assignment* gives an item to an annotator, with the sides
swapped or not; its *answers* are one choice for each question.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.names import Label

OVERALL = "overall"  # key of the first question
MAX_SYSTEMS = 6
LONGEST_TEXT = 20_000  # characters of guidelines, and of an example's texts


class StudyState(str, Enum):
    """The state of a study. Only an open one gives out items; a closed one is not opened again."""

    DRAFT = "draft"  # its responses are being generated, or can be read
    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


class ItemKind(str, Enum):
    """The kind of an item."""

    PAIR = "pair"
    TRAINING = "training"  # with feedback, before the work
    GOLD = "gold"  # with a known answer, among the pairs


class AssignmentKind(str, Enum):
    """The kind of an assignment; only PAIR counts towards the ratings that an item needs."""

    PAIR = "pair"
    TRAINING = "training"
    GOLD = "gold"
    REPEAT = "repeat"  # a pair that the annotator has rated before, with its sides swapped


class AssignmentState(str, Enum):
    """The state of an assignment."""

    LEASED = "leased"
    ANSWERED = "answered"
    SKIPPED = "skipped"  # gives the place back; the annotator does not get this item again
    EXPIRED = "expired"  # gives the place back


Choice = Literal["left", "right", "tie", "both_bad"]  # as the annotator saw the sides
Verdict = Literal["first", "second", "tie", "both_bad"]  # about an item, whatever the sides were
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]


def verdict_of(choice: Choice, swapped: bool) -> Verdict:
    """Return what a choice says about an item. swapped: whether the second response was on the left."""
    if choice == "left":
        return "second" if swapped else "first"
    if choice == "right":
        return "first" if swapped else "second"
    return choice


class Question(BaseModel):
    """A question about each pair. `key` is "overall" or an objective."""

    model_config = ConfigDict(extra="forbid")

    key: Label
    text: Annotated[str, Field(min_length=1, max_length=300)]


class Example(BaseModel):
    """A pair with known verdicts, for training or as gold. `expected`: {question: accepted verdicts}."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
    first: Text
    second: Text
    expected: Annotated[dict[str, list[Verdict]], Field(min_length=1)]
    feedback: Text = ""  # shown after the answer, in training


class StudySettings(BaseModel):
    """The settings of a study, apart from its systems and prompts.

    Attributes:
        name: Shown to owners and annotators.
        guidelines: Markdown.
        questions: The first is about the pair overall.
        tie: Whether "equally good" may be chosen.
        both_bad: Whether "both are bad" may be chosen.
        wanted: Number of ratings that each pair needs.
        most: Number of pairs that one annotator may rate; None is any number.
        pairing: Which systems meet: all pairs, each against the first, or a prompt's pairs drawn by how unsure their
            ranking is.
        budget: Number of ratings of the whole study, with `pairing` "uncertain".
        training: Pairs before the work; an annotator has two attempts.
        training_share: Share of right answers that passes.
        gold: Pairs with known verdicts among the others.
        gold_every: One of so many assignments is gold; 0 is none.
        repeat_every: One of so many assignments is a repeat with swapped sides; 0 is none.
        sign_in: Whether annotators may join by Hugging Face sign-in.
        anonymous: Whether they may join without an invitation.
        seed: Of the responses, the sides, and the draws of pairs.
    """

    model_config = ConfigDict(extra="forbid")

    name: Label
    guidelines: Text = ""
    questions: Annotated[list[Question], Field(min_length=1, max_length=9)] = [
        Question(key=OVERALL, text="Which response is better?")
    ]
    tie: bool = True
    both_bad: bool = True
    wanted: Annotated[int, Field(ge=1, le=100)] = 1
    most: Annotated[int, Field(ge=1)] | None = None
    pairing: Literal["all", "first", "uncertain"] = "all"
    budget: Annotated[int, Field(ge=1)] | None = None
    training: Annotated[list[Example], Field(max_length=50)] = []
    training_share: Annotated[float, Field(ge=0, le=1)] = 0.8
    gold: Annotated[list[Example], Field(max_length=500)] = []
    gold_every: Annotated[int, Field(ge=0, le=1000)] = 0
    repeat_every: Annotated[int, Field(ge=0, le=1000)] = 0
    sign_in: bool = False
    anonymous: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _check_questions(self) -> StudySettings:
        keys = [question.key for question in self.questions]
        if keys[0] != OVERALL or len(set(keys)) < len(keys):
            raise ValueError("questions: the first one's key is overall, and no key is there twice")
        for example in (*self.training, *self.gold):
            if unknown := sorted(example.expected.keys() - set(keys)):
                raise ValueError(f"an example expects an answer to {unknown[0]}, which is no question of the study")
        if self.pairing == "uncertain" and self.budget is None:
            raise ValueError("budget: give the number of ratings, as pairs are drawn by how unsure the ranking is")
        return self
