"""Import of votes made elsewhere, as a study that is closed."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlite_utils import Database

from app.schemas.study import (
    OVERALL,
    AssignmentKind,
    AssignmentState,
    Choice,
    ItemKind,
    StudySettings,
    StudyState,
)
from app.storage.database import Store, prompt_id
from app.storage.studies import insert_study
from app.storage.study_rows import new_id, stamp, utc_now
from app.storage.vote_file import CastVote, read_votes
from engine import InputError
from engine.messages import Prompt
from engine.names import check_label

MAX_UPLOAD = 24_000_000  # bytes of an uploaded file, gzipped or not
IMPORT = "import"  # how imported annotators joined
SHORT = 100  # characters of a prompt that is its own key
MAX_WANTED = 100  # of StudySettings


@dataclass(frozen=True)
class ImportedStudy:
    """What was imported. `repeats` are votes of annotators who had voted on the same item before."""

    study_id: str
    name: str
    votes: int
    repeats: int
    systems: int
    items: int
    annotators: int


@dataclass
class ImportedItem:
    """An item and who voted on it; the first system is the one on the left of its first vote."""

    id: str
    place: int
    prompt_key: str
    prompt: Prompt | None
    first: int
    second: int
    ratings: Counter[str] = field(default_factory=Counter)  # by annotator


@dataclass(frozen=True)
class ImportedVote:
    """A vote on an item. `attempt` is 0, or for a repeat its number."""

    item: ImportedItem
    annotator: str
    attempt: int
    swapped: bool
    choice: Choice
    seconds: float | None


def import_file(db: str | Path, file: str | Path, name: str, columns: Mapping[str, str] | None = None) -> ImportedStudy:
    """Import a file of votes into a database, which is created if it is missing, as a closed study.

    Args:
        db: The database.
        file: The file of votes.
        name: The study's name.
        columns: The file's columns, as `read_votes` takes them.

    Raises:
        InputError: if a file or a vote is invalid; nothing is stored then.
    """
    file = Path(file).expanduser()
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; give a file of votes, CSV or JSON lines") from None
    votes = list(read_votes(str(file), data, columns))
    check_name(name)
    with closing(Store(db)) as store:
        return store_votes(store, votes, name, file.name)


def import_upload(store: Store, file: str | Path, name: str = "", shown: str = "") -> ImportedStudy:
    """Import an uploaded file of votes of up to `MAX_UPLOAD` bytes, with columns of the common names.

    Args:
        store: The store.
        file: Path of the uploaded file.
        name: The study's name; that of the file if it is blank.
        shown: The file's name in messages, which is that of its path if it is "".

    Raises:
        InputError: if the file or a vote is invalid; nothing is stored then.
    """
    path = Path(file)
    shown = shown or path.name
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_UPLOAD + 1)
    except OSError as error:
        raise InputError(f"{shown}: {error.strerror}; choose the file again") from None
    if len(data) > MAX_UPLOAD:
        raise InputError(f"{shown}: it is larger than {MAX_UPLOAD:,} bytes; import it with python -m app import")
    try:
        return store_votes(store, read_votes(shown, data), name.strip() or shown.partition(".")[0], shown)
    except InputError as error:  # on a page there is a field, not an option of a command
        raise InputError(re.sub("^--name:", "name:", str(error))) from None


def check_name(name: str) -> None:
    """Raise InputError if a study cannot have this name."""
    try:
        check_label(name)
    except ValueError as error:
        raise InputError(f"--name: found {name[:60]!r}, expected {error}") from None


def store_votes(store: Store, votes: Iterable[CastVote], name: str, source: str) -> ImportedStudy:
    """Store votes as a closed study, in one transaction.

    Args:
        store: The store.
        votes: The votes.
        name: The study's name, which no other study has.
        source: Where the votes are from.

    Raises:
        InputError: if the name is invalid or taken.
        ValueError: as the iteration over the votes raises it.
    """
    check_name(name)
    systems: dict[str, int] = {}
    items: dict[tuple[str, frozenset[str]], ImportedItem] = {}
    annotators: dict[str, str] = {}
    cast: list[ImportedVote] = []
    for vote in votes:
        first, second = (systems.setdefault(side, len(systems)) for side in (vote.left, vote.right))
        key = (vote.item, frozenset((vote.left, vote.right)))
        if key not in items:
            prompt_key = key_of(vote.item if vote.prompt is None else vote.prompt)
            items[key] = ImportedItem(new_id(), len(items), prompt_key, vote.prompt, first, second)
        item, annotator = items[key], annotators.setdefault(vote.annotator, new_id())
        attempt = item.ratings[annotator]
        item.ratings[annotator] += 1
        cast.append(ImportedVote(item, annotator, attempt, first != item.first, vote.choice, vote.seconds))
    settings = settings_of(name, cast)
    with store.writing() as db:
        check_new(db, name)
        now = stamp(utc_now())
        study = insert_study(db, now, settings, dict.fromkeys(systems), source=source, state=StudyState.CLOSED)
        insert_votes(db, now, study, list(items.values()), annotators, cast)
    repeats = sum(vote.attempt > 0 for vote in cast)
    return ImportedStudy(study, name, len(cast), repeats, len(systems), len(items), len(annotators))


def settings_of(name: str, cast: list[ImportedVote]) -> StudySettings:
    """Return the settings of a study that would have had these votes."""
    choices = {vote.choice for vote in cast}
    most = max((len(vote.item.ratings) for vote in cast), default=1)
    try:
        return StudySettings(
            name=name, tie="tie" in choices, both_bad="both_bad" in choices, wanted=min(most, MAX_WANTED)
        )
    except ValidationError as error:
        raise InputError(f"--name: {error.errors()[0]['msg']}; give another name") from None


def check_new(db: Database, name: str) -> None:
    """Raise InputError if another study has this name."""
    if db.table("studies").count_where("name = ?", [name]):
        raise InputError(f"--name: there is a study called {name!r}; give another name")


def insert_votes(
    db: Database,
    now: str,
    study: str,
    items: list[ImportedItem],
    annotators: Mapping[str, str],
    cast: list[ImportedVote],
) -> None:
    """Insert a study's votes and what they are about within the caller's transaction.

    Args:
        db: The database.
        now: The time as `stamp` has it.
        study: The study's id.
        items: The items.
        annotators: {name: id}.
        cast: The votes.
    """
    prompts = {item.prompt_key: item.prompt for item in items if item.prompt is not None}
    ids = {key: prompt_id(db, prompt) for key, prompt in prompts.items()}
    insert_rows(
        db,
        "study_items",
        (
            {
                "id": item.id,
                "study_id": study,
                "place": item.place,
                "kind": ItemKind.PAIR.value,
                "prompt_key": item.prompt_key,
                "prompt_id": ids.get(item.prompt_key),
                "first_system": item.first,
                "second_system": item.second,
                "expected": "{}",
                "feedback": "",
                "wanted": len(item.ratings),
            }
            for item in items
        ),
    )
    insert_rows(
        db,
        "study_annotators",
        (
            {
                "id": key,
                "study_id": study,
                "name": name,
                "joined_by": IMPORT,
                "key": f"{IMPORT}:{name}",
                "attempts": 0,
                "created_at": now,
            }
            for name, key in annotators.items()
        ),
    )
    made = [(new_id(), vote) for vote in cast]
    insert_rows(
        db,
        "study_assignments",
        (
            {
                "id": assignment,
                "study_id": study,
                "item_id": vote.item.id,
                "annotator_id": vote.annotator,
                "kind": (AssignmentKind.REPEAT if vote.attempt else AssignmentKind.PAIR).value,
                "attempt": vote.attempt,
                "swapped": int(vote.swapped),
                "probability": 1.0,
                "state": AssignmentState.ANSWERED.value,
                "leased_at": now,
                "expires_at": now,
                "answered_at": now,
                "seconds": vote.seconds,
                "comment": "",
                "flagged": 0,
            }
            for assignment, vote in made
        ),
    )
    insert_rows(
        db,
        "study_answers",
        ({"assignment_id": assignment, "question": OVERALL, "choice": vote.choice} for assignment, vote in made),
    )


def insert_rows(db: Database, table: str, rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows with the same columns into a table."""
    rows = list(rows)
    if not rows:
        return
    columns, places = ", ".join(rows[0]), ", ".join("?" for _ in rows[0])
    db.conn.executemany(f"insert into {table} ({columns}) values ({places})", [tuple(row.values()) for row in rows])


def key_of(prompt: Prompt) -> str:
    """Return the key of a prompt's items: a short text itself, else a digest."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= SHORT else hashlib.sha256(text.encode()).hexdigest()


def describe_import(imported: ImportedStudy) -> str:
    """Return one line about an import."""
    repeats = f", of which {imported.repeats} repeat one of the same annotator" if imported.repeats else ""
    return (
        f"{imported.votes} votes{repeats} by {imported.annotators} annotators on {imported.items} pairs of responses "
        f"by {imported.systems} systems are the study {imported.name!r} ({imported.study_id})"
    )
