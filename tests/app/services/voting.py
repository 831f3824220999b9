"""Studies with votes, written row by row into a store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.storage.database import Store
from engine import Completion, Mixture
from tests.app.conftest import make_completion

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
    asked = [{"key": key, "text": "Which is better?" if key == "overall" else f"Which is {key}?"} for key in questions]
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


WORDS = "Rinse it with cold water first, then rub a little soap into the cloth and wait for it."
STAINS, CLOTHS = ["red wine", "coffee", "grass", "ink"], ["a shirt", "a carpet", "a tablecloth", "a sofa", "some jeans"]
SIMULATED = {
    "Careful": (Mixture({"helpful": 0.5, "harmless": 0.5}), 1.2),
    "Uniform": (Mixture(dict.fromkeys(("helpful", "harmless", "humorous", "concise"), 0.25)), 0.7),
    "Concise": (Mixture({"concise": 1.0}), 0.3),
    "Funny": (Mixture({"humorous": 0.8, "helpful": 0.2}), 0.1),
    "Reference": (Mixture({"reference": 1.0}), -0.8),
}


def simulate_study(store: Store, name: str = "Stains, blind") -> str:
    """Write a study of mixtures of the bundled policies with simulated votes, some of them careless; return its id."""
    rng = np.random.default_rng(3)
    mixtures, strengths = zip(*SIMULATED.values(), strict=True)
    people = ["Ada", "Björn", "Chen", "Dolores", "Emil"]
    ballots = []
    for number in range(20):
        prompt = f"How do I get {STAINS[number % 4]} out of {CLOTHS[number % 5]}?"
        made, appeal = [], rng.normal(size=len(mixtures)) + strengths
        for mixture, liking in zip(mixtures, appeal, strict=True):
            text = " ".join(WORDS.split()[: int(rng.integers(6, 19))]) + (
                "\n- soap\n- water" if rng.random() < 0.4 else ""
            )
            rewards = {"helpful": float(liking + rng.normal()), "concise": -len(text.split()) / 10}
            made.append(make_completion(text, prompt, mixture=mixture, seed=number, rewards=rewards))
        ids = [add_completion(store, completion, "demo") for completion in made]
        for second in range(len(mixtures)):
            for first in range(second):
                for person in rng.choice(people, 3, replace=False):
                    swapped = int(rng.random() < 0.5)
                    better = rng.random() < 1 / (1 + np.exp(3 * (appeal[second] - appeal[first])))
                    choice = "left" if better != bool(swapped) else "right"
                    if person == "Emil":  # looks at the left side mostly
                        choice = "left" if rng.random() < 0.75 else "right"
                    elif rng.random() < 0.15:
                        choice = "tie"
                    comment = "The other one forgets to rinse." if rng.random() < 0.06 else ""
                    ballots.append(
                        Ballot(
                            f"{number}-{first}-{second}", first, second, str(person), choice, swapped=swapped,
                            prompt=prompt, completions=(ids[first], ids[second]), seconds=float(rng.gamma(4, 6)),
                            comment=comment, day=1 + number,
                        )
                    )  # fmt: skip
    for person in people:
        for gold in range(4):
            right = person != "Emil" or gold % 2
            choice = "left" if right else "right"
            ballots.append(Ballot(f"gold-{gold}", 0, 0, person, choice, kind="gold", expected={"overall": ["first"]}))
    return add_study(store, ballots, list(SIMULATED), mixtures, name=name, model="demo", state="open")
