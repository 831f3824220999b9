"""A study's settings from its form and back, and what is said of a form that is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.schemas.study import Example, StudySettings
from app.services.study_form import StudyForm, form_of, objective_question, read_study_form
from engine import InputError

EXAMPLE = Example(prompt="p", first="a", second="b", expected={"overall": ["first"]})
FULL = StudyForm(
    name="  Round 1 ",
    overall="Which one would you send?",
    objectives={"harmless": objective_question("harmless")},
    guidelines="# Read",
    choices=["tie"],
    pairing="uncertain",
    joining=["anonymous"],
    numbers={
        "wanted": "3", "most": "40", "budget": "900", "training_percent": "75", "gold_every": "8", "repeat_every": "12"
    },
    training=[EXAMPLE],
    gold=[EXAMPLE, EXAMPLE],
    seed=5,
)  # fmt: skip


def test_every_field_arrives() -> None:
    settings = read_study_form(FULL)
    assert settings == StudySettings.model_validate(
        {
            "name": "Round 1",
            "guidelines": "# Read",
            "questions": [
                {"key": "overall", "text": "Which one would you send?"},
                {"key": "harmless", "text": "Which response is more harmless?"},
            ],
            "tie": True,
            "both_bad": False,
            "wanted": 3,
            "most": 40,
            "pairing": "uncertain",
            "budget": 900,
            "training": [EXAMPLE],
            "training_share": 0.75,
            "gold": [EXAMPLE, EXAMPLE],
            "gold_every": 8,
            "repeat_every": 12,
            "sign_in": False,
            "anonymous": True,
            "seed": 5,
        }
    )
    assert read_study_form(form_of(settings)) == settings


def test_a_name_is_enough() -> None:
    settings = read_study_form(StudyForm("Round 1"))
    assert settings == StudySettings(name="Round 1", gold_every=10)
    assert read_study_form(form_of(settings)) == settings
    # A budget that was typed before another way of pairing was chosen is none.
    assert read_study_form(StudyForm("Round 1", numbers={"budget": "9"})).budget is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "  "}, "name: give a name that is not empty"),
        ({"name": "x" * 101}, "name: give a name of up to 100 characters"),
        ({"overall": " "}, "question “overall”: it is empty"),
        ({"objectives": {"harmless": ""}}, "question “harmless”: it is empty"),
        ({"overall": "?" * 301}, "questions: String should have at most 300 characters"),
        ({"guidelines": "x" * 20_001}, "guidelines: they are 20,001 characters long; up to 20,000 fit"),
        ({"numbers": {"wanted": "0"}}, "ratings per pair: found 0; type a whole number from 1 to 100"),
        ({"numbers": {"wanted": "many"}}, "ratings per pair: found 'many'; type a whole number from 1 to 100"),
        ({"numbers": {"most": "-1"}}, "pairs per person: found -1"),
        ({"numbers": {"training_percent": "101"}}, "share that passes: found 101"),
        ({"numbers": {}}, "budget: type how many ratings"),
        ({"pairing": "some"}, "pairing: "),
        ({"objectives": {}, "gold": [Example(**{**EXAMPLE.model_dump(), "expected": {"harmless": ["tie"]}})]},
         "gold pair 1: it expects an answer to “harmless”; ask that, or leave it out"),
        ({"choices": [], "training": [Example(**{**EXAMPLE.model_dump(), "expected": {"overall": ["tie"]}})]},
         "training pair 1: it expects tie, which nobody may choose; allow it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(changes: dict, says: str) -> None:
    with pytest.raises(InputError) as raised:
        read_study_form(replace(FULL, **changes))
    assert says in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
