"""Checks of what an annotator answers: against a study's questions, and against the verdicts that are expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.schemas.study import Choice, StudySettings, verdict_of
from app.storage.study_items import StudyItem
from engine import InputError

LONGEST_COMMENT = 2000  # characters
LONGEST_TIME = 86_400.0  # seconds of one answer


@dataclass(frozen=True)
class Feedback:
    """What follows an answer to a training pair."""

    right: bool
    text: str


def check_answers(answers: Mapping[str, str], settings: StudySettings) -> None:
    """Raise InputError unless each question of the study has one of the allowed choices, and nothing else has."""
    choices = allowed_choices(settings)
    for question in settings.questions:
        if (choice := answers.get(question.key)) not in choices:
            said = "nothing" if choice is None else repr(str(choice)[:40])
            raise InputError(f"answers: found {said} for {question.key}; give one of {', '.join(choices)}")
    if unknown := sorted(answers.keys() - {question.key for question in settings.questions}):
        raise InputError(f"answers: {unknown[0][:40]!r} is no question of this study; leave it out")


def allowed_choices(settings: StudySettings) -> list[Choice]:
    """Return the choices that a study allows."""
    choices: list[Choice] = ["left", "right"]
    if settings.tie:
        choices.append("tie")
    if settings.both_bad:
        choices.append("both_bad")
    return choices


def check_comment(comment: str) -> None:
    """Raise InputError if a comment is too long."""
    if len(comment) > LONGEST_COMMENT:
        raise InputError(f"comment: it has {len(comment):,} characters; give {LONGEST_COMMENT:,} at most")


def seconds_of(seconds: float | None) -> float | None:
    """Return a time as it is stored: none if it is no time, a day at most."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return None
    return min(float(seconds), LONGEST_TIME)


def feedback_of(item: StudyItem, answers: Mapping[str, Any], swapped: bool) -> Feedback:
    """Return whether answers to an item with known verdicts are right, and what to say about it."""
    right = all(
        question in answers and verdict_of(answers[question], swapped) in verdicts
        for question, verdicts in item.expected.items()
    )
    return Feedback(right, item.feedback)
