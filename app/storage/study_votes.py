"""The votes of a study, one row per answered question, with everything that is known about the two responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from sqlite_utils import Database

from app.storage.database import read_completion, stored_mixture
from app.storage.study_rows import COUNTS
from engine import InputError
from engine.messages import last_of, messages_of

NO_STUDIES = "it holds no studies; start the app with it once, or give --db another"
VOTES = f"""
    select s.name as study, i.id as item, i.place, i.prompt_key, i.prompt_id, i.first_system, i.second_system,
        i.first_id, i.second_id, i.first_text, i.second_text, i.expected, a.id as assignment, a.annotator_id, a.kind,
        a.attempt, a.swapped, a.probability, a.leased_at, a.answered_at, a.seconds, a.comment, a.flagged, w.question,
        w.choice
    from study_assignments a
    join study_items i on i.id = a.item_id
    join studies s on s.id = a.study_id
    join study_answers w on w.assignment_id = a.id
    where a.study_id = ? and {COUNTS}
    order by a.answered_at, a.rowid, w.rowid
"""


def find_study(db: Database, wanted: str) -> str:
    """Return the id of a study.

    Args:
        db: The database.
        wanted: Its id or its name.

    Raises:
        InputError: if there is none, or several have this name.
    """
    if not db.table("studies").exists():
        raise InputError(f"--study: {NO_STUDIES}")
    rows = list(db.query("select id, name from studies order by created_at, rowid"))
    if any(row["id"] == wanted for row in rows):
        return wanted
    found = [row["id"] for row in rows if row["name"] == wanted]
    if len(found) > 1:
        raise InputError(f"--study: {len(found)} are called {wanted!r}; give the id of one: {', '.join(found)}"[:500])
    if not found:
        names = ", ".join(repr(row["name"]) for row in rows)[:300]
        known = f"give one of {names}" if rows else "the database holds no study"
        raise InputError(f"--study: there is none called {wanted[:100]!r}; {known}")
    return str(found[0])


def pseudonyms_of(db: Database, study: str) -> dict[str, str]:
    """Return {annotator's id: pseudonym} of a study, numbered in the order in which they joined."""
    rows = db.query("select id from study_annotators where study_id = ? order by created_at, rowid", [study])
    return {row["id"]: f"annotator-{number}" for number, row in enumerate(rows, 1)}


def study_votes(db: Database, study: str, names: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the answers of a study as rows with the same keys, oldest first.

    Sides are those that the annotator saw: `swapped` is whether the item's second response was on the left. `expected`
    is what was expected of a training or gold item, about the sides too.

    Args:
        db: The database.
        study: The study's id.
        names: Whether annotators have their names instead of pseudonyms.
    """
    annotators = pseudonyms_of(db, study)
    if names:
        annotators = {row["id"]: row["name"] for row in db.query("select * from study_annotators")}
    systems = {
        row["place"]: row for row in db.query("select * from study_systems where study_id = ? order by place", [study])
    }

    @cache
    def completion(completion_id: int) -> dict[str, Any]:
        return read_completion(db, completion_id)

    @cache
    def prompt(prompt_id: int) -> list[dict[str, str]]:
        row = next(iter(db.query("select * from prompts where id = ?", [prompt_id])))
        return messages_of(json.loads(row["messages"]) or row["text"])

    @cache
    def mixture(mixture_id: int) -> dict[str, Any]:
        row = next(iter(db.query("select * from mixtures where id = ?", [mixture_id])))
        return stored_mixture(row)

    def response(row: dict[str, Any], which: str) -> dict[str, Any]:
        system = systems.get(row[f"{which}_system"])
        made = completion(row[f"{which}_id"]) if row[f"{which}_id"] is not None else None
        mixed = made["mixture"] if made else mixture(system["mixture_id"]) if system and system["mixture_id"] else {}
        sampling = made["sampling"] if made else {}
        return {
            "": system["name"] if system else "",
            "response": made["text"] if made else row[f"{which}_text"],
            **{key: mixed.get(key) for key in ("weights", "rule", "gain", "exponent")},
            **{key: made[key] if made else None for key in ("model", "seed")},
            **{key: sampling.get(key) for key in ("max_new_tokens", "temperature", "top_k", "top_p", "min_p")},
            **{key: sampling.get(key) for key in ("repetition_penalty", "particles")},
            **{key: made[key] if made else None for key in ("date", "finish_reason", "rewards")},
        }

    for row in db.query(VOTES, [study]):
        messages = prompt(row["prompt_id"]) if row["prompt_id"] is not None else []
        sides = ("second", "first") if row["swapped"] else ("first", "second")
        expected = json.loads(row["expected"]).get(row["question"], [])
        yield {
            "study": row["study"],
            "item": row["item"],
            "kind": row["kind"],
            "prompt": last_of(messages) if messages else row["prompt_key"],
            "messages": messages,
            **{
                f"{side}_{key}" if key else side: value
                for side, which in zip(("left", "right"), sides, strict=True)
                for key, value in response(row, which).items()
            },
            "annotator": annotators[row["annotator_id"]],
            "question": row["question"],
            "choice": row["choice"],
            "swapped": bool(row["swapped"]),
            "expected": [about_sides(verdict, sides) for verdict in expected],
            "probability": row["probability"],
            "attempt": row["attempt"],
            "seconds": row["seconds"],
            "comment": row["comment"],
            "flagged": bool(row["flagged"]),
            "leased_at": row["leased_at"],
            "answered_at": row["answered_at"],
            "assignment": row["assignment"],
        }


def about_sides(verdict: str, sides: tuple[str, str]) -> str:
    """Return a verdict about the first and second response as one about the sides, which show these in turn."""
    return dict(zip(sides, ("left", "right"), strict=True)).get(verdict, verdict)
