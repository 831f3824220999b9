"""Studies with votes, written row by row into a store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from app.storage.database import Store
from engine import Completion, Mixture

CLOCK = "2026-03-{:02d}T10:00:00.000+00:00"


@dataclass(frozen=True)
class Ballot:
    """One answer: `choice` is about the sides as they were seen."""

    item: str
    first: int
    second: int
    person: str
    choice: str
    question: str = "overall"
    swapped: int = 0
    kind: str = "pair"
    prompt: str = ""
    day: int = 1
    seconds: float | None = None
    comment: str = ""
    probability: float = 1.0
    texts: tuple[str, str] | None = None
    completions: tuple[int, int] | None = None
    expected: dict[str, list[str]] = field(default_factory=dict)


def add_study(
    store: Store,
    ballots: Iterable[Ballot],
    systems: Sequence[str] = ("A", "B"),
    mixtures: Sequence[Mixture] = (),
    study: str = "study",
    name: str = "Study",
    state: str = "closed",
    model: str = "here",
    questions: Sequence[str] = ("overall",),
) -> str:
    """Write a study with its answers, and return its id."""
    ballots = list(ballots)
    asked = [{"key": key, "text": f"Which is {key}?"} for key in questions]
    settings = {"name": name, "questions": asked}
    with store.writing() as db:
        db.table("studies").insert(
            {
                "id": study, "name": name, "state": state, "model": model, "source": "test",
                "settings": json.dumps(settings), "comparison_id": None, "owns_comparison": 0,
                "created_at": CLOCK.format(1), "opened_at": None, "closed_at": None,
            }
        )  # fmt: skip
        for place, system in enumerate(systems):
            mixture = None
            if mixtures:
                values = mixtures[place].as_dict()
                mixture = db.table("mixtures").lookup(
                    {**values, "weights": json.dumps(values["weights"], sort_keys=True)}
                )
            db.table("study_systems").insert({"study_id": study, "place": place, "name": system, "mixture_id": mixture})
        people = list(dict.fromkeys(ballot.person for ballot in ballots))
        db.table("study_annotators").insert_all(
            {
                "id": f"{study}-{person}", "study_id": study, "name": person, "joined_by": "test",
                "invitation_id": None, "key": person, "attempts": 0, "read_at": None, "passed_at": None,
                "created_at": CLOCK.format(1),
            }
            for person in people
        )  # fmt: skip
        items: dict[str, dict] = {}
        assignments: dict[tuple, dict] = {}
        answers = []
        for ballot in ballots:
            first_text, second_text = ballot.texts or (None, None)
            first_id, second_id = ballot.completions or (None, None)
            gold = ballot.kind == "gold"
            items.setdefault(
                ballot.item,
                {
                    "id": f"{study}-{ballot.item}", "study_id": study, "place": len(items),
                    "kind": "gold" if gold else "pair", "prompt_key": ballot.prompt or ballot.item, "prompt_id": None,
                    "first_system": None if gold else ballot.first, "second_system": None if gold else ballot.second,
                    "first_id": first_id, "second_id": second_id, "first_text": first_text, "second_text": second_text,
                    "expected": json.dumps(ballot.expected), "feedback": "", "wanted": 1,
                },
            )  # fmt: skip
            one = assignments.setdefault(
                (ballot.item, ballot.person, ballot.kind),
                {
                    "id": f"{study}-a{len(assignments)}", "study_id": study, "item_id": f"{study}-{ballot.item}",
                    "annotator_id": f"{study}-{ballot.person}", "kind": ballot.kind, "attempt": 0,
                    "swapped": ballot.swapped, "probability": ballot.probability, "state": "answered",
                    "leased_at": CLOCK.format(ballot.day), "expires_at": CLOCK.format(ballot.day),
                    "answered_at": CLOCK.format(ballot.day), "seconds": ballot.seconds, "comment": ballot.comment,
                    "flagged": 0,
                },
            )  # fmt: skip
            answers.append({"assignment_id": one["id"], "question": ballot.question, "choice": ballot.choice})
        db.table("study_items").insert_all(items.values())
        db.table("study_assignments").insert_all(assignments.values())
        db.table("study_answers").insert_all(answers)
    return study


def add_completion(store: Store, completion: Completion, model: str = "here") -> int:
    """Write a completion with its rewards, and return its id."""
    with store.writing():
        return store.insert(completion, model, CLOCK.format(1))
