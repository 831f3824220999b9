"""A study with votes of every kind, written into the tables by hand."""

from __future__ import annotations

import json
from typing import Any

from app.schemas.study import Question, StudySettings
from app.storage.database import Store, prompt_id
from engine import Mixture
from tests.app.conftest import make_completion

TIME = "2026-01-01T00:00:{:02}.000+00:00"
TURNS = [
    {"role": "user", "content": "mix the policies"},
    {"role": "assistant", "content": "the lazy dog"},
    {"role": "user", "content": "and move"},
]
FIRST, SECOND = Mixture({"helpful": 1.0}), Mixture({"helpful": 0.25, "terse": 0.75}, "power", 1.5, -0.5)
SETTINGS = StudySettings(
    name="Helpful or terse",
    guidelines="# Be fair\n\n- read both\n---\n<script>alert(1)</script>",
    questions=[Question(key="overall", text="Which is better?"), Question(key="terse", text="Which is terser?")],
    wanted=3,
)
PROMPTS: list[Any] = ["mix", TURNS, "the quick brown fox", "move the faders"]
# (item, annotator, kind, swapped, overall, terse)
VOTES = [
    (0, "anna", "pair", 0, "left", "right"),
    (0, "bert", "pair", 1, "right", "left"),  # the first, too
    (0, "carl", "pair", 0, "right", "tie"),
    (1, "anna", "pair", 1, "left", "left"),  # the second
    (1, "bert", "pair", 0, "tie", "tie"),
    (1, "carl", "pair", 1, "left", "tie"),
    (2, "anna", "pair", 0, "left", "left"),  # one each way
    (2, "bert", "pair", 0, "right", "left"),
    (3, "anna", "pair", 0, "both_bad", "both_bad"),
    (0, "anna", "repeat", 1, "right", "right"),
    (4, "anna", "gold", 1, "right", "tie"),
    (5, "anna", "training", 0, "left", "left"),
]


def write_study(store: Store, study: str = "study-of-two-systems", name: str = SETTINGS.name) -> str:
    """Store a study of four pairs, a gold one and a training one, with `VOTES`, and return its id."""
    with store.writing() as db:
        values = {"id": study, "name": name, "state": "closed", "model": "tiny", "source": "prompts.txt"}
        settings = SETTINGS.model_copy(update={"name": name}).model_dump_json()
        db["studies"].insert({**values, "settings": settings, "owns_comparison": 0, "created_at": TIME.format(0)})
        for place, (system, mixture) in enumerate((("=one", FIRST), ("two", SECOND))):
            weights = json.dumps(mixture.weights, sort_keys=True, ensure_ascii=False)
            mixed = db["mixtures"].lookup({**mixture.as_dict(), "weights": weights})
            db["study_systems"].insert({"study_id": study, "place": place, "name": system, "mixture_id": mixed})
        for place, prompt in enumerate(PROMPTS):
            ids = [
                store.insert(
                    make_completion(f"{word} {place}", prompt, mixture=mixture, seed=place), "tiny", TIME.format(0)
                )
                for word, mixture in (("good", FIRST), ("bad dog", SECOND))
            ]
            add_item(
                db, study, place, "pair", prompt, first_system=0, second_system=1, first_id=ids[0], second_id=ids[1]
            )
        texts = {"first_text": "yes", "second_text": "no"}
        add_item(db, study, 4, "gold", "gold?", **texts, expected={"overall": ["first", "tie"]})
        add_item(db, study, 5, "training", "train?", **texts, expected={"overall": ["second"]})
        for number, annotator in enumerate(("anna", "bert", "carl")):
            values = {"id": f"{study}-{annotator}", "study_id": study, "name": annotator, "joined_by": "invitation"}
            db["study_annotators"].insert(
                {**values, "key": annotator, "attempts": 0, "created_at": TIME.format(number)}
            )
        for number, (item, annotator, kind, swapped, *choices) in enumerate(VOTES):
            assignment = {
                "id": f"{study}-{number}",
                "study_id": study,
                "item_id": f"{study}-item-{item}",
                "annotator_id": f"{study}-{annotator}",
                "kind": kind,
                "attempt": 0,
                "swapped": swapped,
                "probability": 0.5,
                "state": "answered",
                "leased_at": TIME.format(number),
                "expires_at": TIME.format(number),
                "answered_at": TIME.format(number + 1),
                "seconds": 1.5,
                "comment": "=cmd()" if number == 0 else "",
                "flagged": int(number == 1),
            }
            db["study_assignments"].insert(assignment)
            for question, choice in zip(("overall", "terse"), choices, strict=True):
                db["study_answers"].insert({"assignment_id": assignment["id"], "question": question, "choice": choice})
        # One that is not answered, and one that was skipped.
        for state, item in (("leased", 2), ("skipped", 3)):
            left = {**assignment, "id": f"{study}-{state}", "item_id": f"{study}-item-{item}", "kind": "pair"}
            left |= {"annotator_id": f"{study}-carl", "state": state, "answered_at": None, "seconds": None}
            db["study_assignments"].insert(left)
    return study


def add_item(db: Any, study: str, place: int, kind: str, prompt: Any, expected: Any = None, **columns: Any) -> None:
    db["study_items"].insert(
        {
            "id": f"{study}-item-{place}",
            "study_id": study,
            "place": place,
            "kind": kind,
            "prompt_key": str(place),
            "prompt_id": prompt_id(db, prompt),
            "expected": json.dumps(expected or {}),
            "feedback": "",
            "wanted": 3,
            **columns,
        }
    )
