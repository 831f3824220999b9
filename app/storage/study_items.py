"""The items of a study: pairs of responses to one prompt."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlite_utils import Database

from app.schemas.study import Example, ItemKind, Verdict
from app.storage.database import prompt_id
from app.storage.study_rows import new_id
from engine import InputError
from engine.messages import Prompt

PRIME = 2**31 - 1  # what the random numbers of items are below


@dataclass(frozen=True)
class NewItem:
    """An item to add to a study.

    Attributes:
        prompt: The prompt or the conversation; None if imported votes do not have it.
        first_system: Place of the first response's system; None of an example.
        second_system: Place of the second's.
        first_id: Id of the first response's completion; None if there is only a text, or nothing.
        second_id: Id of the second's.
        first_text: The first response, if it is no completion.
        second_text: The second one.
        prompt_key: What the items of one prompt have in common; the prompt's number if it is "".
        kind: The kind of the item.
        expected: {question: accepted verdicts} of an example.
        feedback: Shown after an answer to a training pair.
        wanted: How many ratings it needs; None is as many as the study's settings say.
    """

    prompt: Prompt | None
    first_system: int | None = None
    second_system: int | None = None
    first_id: int | None = None
    second_id: int | None = None
    first_text: str | None = None
    second_text: str | None = None
    prompt_key: str = ""
    kind: ItemKind = ItemKind.PAIR
    expected: dict[str, list[Verdict]] = field(default_factory=dict)
    feedback: str = ""
    wanted: int | None = None


@dataclass(frozen=True)
class StudyItem:
    """An item as it is stored, with its texts. See `NewItem` for the attributes."""

    id: str
    place: int
    kind: ItemKind
    prompt_key: str
    prompt: Prompt | None
    first_system: int | None
    second_system: int | None
    first_id: int | None
    second_id: int | None
    first: str
    second: str
    expected: dict[str, list[Verdict]]
    feedback: str
    wanted: int


def example_item(example: Example, kind: ItemKind) -> NewItem:
    """Return the item of a training or a gold pair."""
    return NewItem(
        example.prompt,
        first_text=example.first,
        second_text=example.second,
        kind=kind,
        expected=example.expected,
        feedback=example.feedback,
        wanted=0,
    )


def insert_items(db: Database, study_id: str, items: Iterable[NewItem], wanted: int) -> int:
    """Insert items behind those that a study has, within the caller's transaction, and return their number.

    Args:
        db: The database.
        study_id: The study.
        items: The items.
        wanted: How many ratings a pair needs that does not say it itself.
    """
    (first,) = db.execute(
        "select coalesce(max(place) + 1, 0) from study_items where study_id = ?", [study_id]
    ).fetchone()
    rows = []
    for place, item in enumerate(items, first):
        prompt = None if item.prompt is None else prompt_id(db, item.prompt)
        rows.append(
            {
                "id": new_id(),
                "study_id": study_id,
                "place": place,
                "kind": item.kind.value,
                "prompt_key": item.prompt_key or ("" if prompt is None else str(prompt)),
                "prompt_id": prompt,
                "first_system": item.first_system,
                "second_system": item.second_system,
                "first_id": item.first_id,
                "second_id": item.second_id,
                "first_text": item.first_text,
                "second_text": item.second_text,
                "expected": json.dumps(item.expected, ensure_ascii=False),
                "feedback": item.feedback,
                "wanted": wanted if item.wanted is None else item.wanted,
                "shuffle": secrets.randbelow(PRIME),
            }
        )
    db.table("study_items").insert_all(rows)
    return len(rows)


ITEMS = (
    "select i.*, p.text, p.messages, coalesce(a.text, i.first_text, '') as first, "
    "coalesce(b.text, i.second_text, '') as second from study_items i left join prompts p on p.id = i.prompt_id "
    "left join completions a on a.id = i.first_id left join completions b on b.id = i.second_id "
)


def read_items(db: Database, study_id: str, kind: ItemKind | None = None) -> list[StudyItem]:
    """Return a study's items in order, of one kind or of all."""
    where = "" if kind is None else "and i.kind = :kind "
    values = {"study": study_id, "kind": kind.value if kind else ""}
    return [item_of(row) for row in db.query(f"{ITEMS} where i.study_id = :study {where} order by i.place", values)]


def read_item(db: Database, item_id: str) -> StudyItem:
    """Return an item.

    Raises:
        InputError: if there is none with this id.
    """
    row = next(iter(db.query(f"{ITEMS} where i.id = ?", [item_id])), None)
    if row is None:
        raise InputError("This pair was deleted. Go on with the next one.")
    return item_of(row)


def item_of(row: dict[str, Any]) -> StudyItem:
    """Return the item of a row of `ITEMS`."""
    prompt = None if row["text"] is None else json.loads(row["messages"]) or row["text"]
    kept = ("id", "place", "prompt_key", "first_system", "second_system", "first_id", "second_id", "first", "second")
    return StudyItem(
        **{key: row[key] for key in (*kept, "feedback", "wanted")},
        kind=ItemKind(row["kind"]),
        prompt=prompt,
        expected=json.loads(row["expected"]),
    )
