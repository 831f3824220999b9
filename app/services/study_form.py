"""The settings of a study as its form has them, and as they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from app.schemas.study import LONGEST_TEXT, OVERALL, Example, StudySettings
from engine import InputError

GOLD_EVERY = 10  # unless the form says otherwise
OVERALL_TEXT = "Which response is better?"
OPTIONAL_CHOICES = ("tie", "both_bad")  # as the form has them
JOINING = ("anonymous", "sign_in")
# {field: (its label, the least and the largest number)}
NUMBERS: dict[str, tuple[str, int, int]] = {
    "wanted": ("ratings per pair", 1, 100),
    "most": ("pairs per person", 1, 1_000_000),
    "budget": ("budget", 1, 10_000_000),
    "training_percent": ("share that passes", 0, 100),
    "gold_every": ("gold", 0, 1000),
    "repeat_every": ("repeats", 0, 1000),
}


@dataclass(frozen=True)
class StudyForm:
    """What is typed and chosen in the form.

    Attributes:
        name: The study's name.
        overall: The text of the first question.
        objectives: {objective: text of its question}, of those that are asked about.
        guidelines: Markdown.
        choices: Which of `OPTIONAL_CHOICES` an annotator may choose.
        pairing: As in `StudySettings`.
        joining: Which of `JOINING` lets in people without an invitation.
        numbers: {field: typed number}, of `NUMBERS`; an empty one is the default, or no limit.
        training: Training pairs.
        gold: Gold pairs.
        seed: The study's seed.
    """

    name: str
    overall: str = OVERALL_TEXT
    objectives: Mapping[str, str] = field(default_factory=dict)
    guidelines: str = ""
    choices: Sequence[str] = OPTIONAL_CHOICES
    pairing: str = "all"
    joining: Sequence[str] = ()
    numbers: Mapping[str, str] = field(default_factory=dict)
    training: Sequence[Example] = ()
    gold: Sequence[Example] = ()
    seed: int = 0


def objective_question(objective: str) -> str:
    """Return the text of an objective's question, unless the form says otherwise."""
    return f"Which response is more {objective}?"


def read_study_form(form: StudyForm) -> StudySettings:
    """Return the settings that a form describes.

    Raises:
        InputError: naming the field.
    """
    numbers = {name: parse_whole(form.numbers.get(name), *NUMBERS[name]) for name in NUMBERS}
    if form.pairing == "uncertain" and numbers["budget"] is None:
        raise InputError(
            "budget: type how many ratings the study gets in all, as pairs are drawn where the ranking is least sure"
        )
    if len(form.guidelines) > LONGEST_TEXT:
        raise InputError(f"guidelines: they are {len(form.guidelines):,} characters long; up to {LONGEST_TEXT:,} fit")
    questions = [(OVERALL, form.overall), *form.objectives.items()]
    for key, text in questions:
        if not text.strip():
            raise InputError(f"question “{key}”: it is empty; type what annotators are asked")
    check_expected(form)
    percent, gold_every = numbers["training_percent"], numbers["gold_every"]
    values: dict[str, Any] = {
        "name": form.name.strip(),
        "guidelines": form.guidelines,
        "questions": [{"key": key, "text": text.strip()} for key, text in questions],
        **{choice: choice in form.choices for choice in OPTIONAL_CHOICES},
        **{way: way in form.joining for way in JOINING},
        "pairing": form.pairing,
        "wanted": numbers["wanted"] or 1,
        "most": numbers["most"],
        "budget": numbers["budget"] if form.pairing == "uncertain" else None,
        "training": [example.model_dump() for example in form.training],
        "training_share": 0.8 if percent is None else percent / 100,
        "gold": [example.model_dump() for example in form.gold],
        "gold_every": GOLD_EVERY if gold_every is None else gold_every,
        "repeat_every": numbers["repeat_every"] or 0,
        "seed": form.seed,
    }
    try:
        return StudySettings.model_validate(values)
    except ValidationError as error:
        raise InputError(first_problem(error)) from None


def form_of(settings: StudySettings) -> StudyForm:
    """Return the form that describes these settings."""
    numbers = {
        "wanted": settings.wanted,
        "most": settings.most,
        "budget": settings.budget,
        "training_percent": round(100 * settings.training_share),
        "gold_every": settings.gold_every,
        "repeat_every": settings.repeat_every,
    }
    return StudyForm(
        name=settings.name,
        overall=settings.questions[0].text,
        objectives={question.key: question.text for question in settings.questions[1:]},
        guidelines=settings.guidelines,
        choices=[choice for choice in OPTIONAL_CHOICES if getattr(settings, choice)],
        pairing=settings.pairing,
        joining=[way for way in JOINING if getattr(settings, way)],
        numbers={name: "" if number is None else str(number) for name, number in numbers.items()},
        training=settings.training,
        gold=settings.gold,
        seed=settings.seed,
    )


def parse_whole(text: str | None, what: str, least: int, most: int) -> int | None:
    """Parse a typed whole number; None if nothing is typed.

    Raises:
        InputError: if it is no whole number, or out of range.
    """
    typed = (text or "").strip()
    if not typed:
        return None
    try:
        number = int(typed)
    except ValueError:
        raise InputError(f"{what}: found '{typed[:40]}'; type a whole number from {least:,} to {most:,}") from None
    if not least <= number <= most:
        raise InputError(f"{what}: found {typed[:40]}; type a whole number from {least:,} to {most:,}")
    return number


def check_expected(form: StudyForm) -> None:
    """Raise InputError if a training or gold pair cannot be answered rightly with these questions and choices."""
    asked, open_choices = {OVERALL, *form.objectives}, {"first", "second", *form.choices}
    for kind, examples in (("training", form.training), ("gold", form.gold)):
        for number, example in enumerate(examples, 1):
            for key, verdicts in example.expected.items():
                if key not in asked:
                    raise InputError(
                        f"{kind} pair {number}: it expects an answer to “{key}”; ask that, or leave it out"
                    )
                if not open_choices & set(verdicts):
                    raise InputError(
                        f"{kind} pair {number}: it expects {' or '.join(verdicts)}, which nobody may choose; allow it"
                    )


def first_problem(error: ValidationError) -> str:
    """Return the first problem of settings in one line: the field, and what is wrong with it."""
    problem = error.errors()[0]
    place = [str(part) for part in problem["loc"] if not isinstance(part, int)]
    says = problem["msg"].removeprefix("Value error, ")
    where = place[0].replace("_", " ") if place else ""
    # A name's problem is put as what to give instead (engine/names.py).
    return f"{where}: give {says}" if where == "name" else f"{where}: {says}" if where else says
