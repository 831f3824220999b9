"""Export of a study: all votes as JSON lines, CSV or Parquet, TRL's formats, or a dataset for the Hugging Face hub."""

from __future__ import annotations

import io
import sqlite3
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from app.schemas.study import OVERALL, AssignmentKind, verdict_of
from app.storage.database import Store, open_to_read
from app.storage.database_file import remedy
from app.storage.dataset_folder import as_parquet_file, check_folder, check_repository, push_folder, write_dataset
from app.storage.export import check_apart, plain_pairs, preference, unpaired, write_lines, write_table
from app.storage.study_votes import find_study, study_votes
from engine import InputError
from engine.files import check_target, filling, replacing
from engine.messages import Message

Rows = list[dict[str, Any]]
FOLDER = "dataset"  # the format that is a folder
FORMATS = ("trl", "kto", "jsonl", "csv", "parquet", FOLDER)
NO_TEXTS = "the texts of its responses are not known, as with imported votes; give jsonl or csv"


@dataclass
class RatedItem:
    """A pair of responses, and the number of annotators with each verdict about it."""

    prompt: list[Message]
    first: str
    second: str
    verdicts: Counter[str] = field(default_factory=Counter)

    @property
    def majority(self) -> str:
        """The verdict that most annotators gave; a tie if two verdicts are equally frequent."""
        ((verdict, count), *others) = self.verdicts.most_common(2)
        return "tie" if others and others[0][1] == count else verdict


def rated_items(rows: Iterable[dict[str, Any]]) -> list[RatedItem]:
    """Return the items of a study's pairs with the verdicts of the question overall, without repeats.

    Raises:
        InputError: if no response's text is known, though there are votes.
    """
    items: dict[str, RatedItem] = {}
    votes = 0
    for row in rows:
        if row["kind"] != AssignmentKind.PAIR.value or row["question"] != OVERALL:
            continue
        votes += 1
        texts = (row["left_response"], row["right_response"])
        if None in texts:
            continue
        first, second = texts[::-1] if row["swapped"] else texts
        prompt = row["messages"] or [{"role": "user", "content": row["prompt"]}]
        item = items.setdefault(row["item"], RatedItem(prompt, first, second))
        item.verdicts[verdict_of(row["choice"], row["swapped"])] += 1
    if votes and not items:
        raise InputError(f"--format: {NO_TEXTS}")
    return list(items.values())


def decisions(rows: Iterable[dict[str, Any]], per_vote: bool) -> Iterator[tuple[RatedItem, str]]:
    """Yield each item with the majority's verdict, or with `per_vote` with the verdict of each vote."""
    for item in rated_items(rows):
        yield from ((item, verdict) for verdict in (item.verdicts.elements() if per_vote else [item.majority]))


def dpo_rows(rows: Iterable[dict[str, Any]], per_vote: bool = False) -> Iterator[dict[str, Any]]:
    """Yield a study's preferences as `preference` does. Ties are left out, and pairs that are both bad."""
    for item, verdict in decisions(rows, per_vote):
        if verdict in ("first", "second"):
            texts = (item.first, item.second)
            yield preference(item.prompt, *(texts if verdict == "first" else texts[::-1]))


def unpaired_rows(rows: Iterable[dict[str, Any]], per_vote: bool = False) -> Iterator[dict[str, Any]]:
    """Yield a study's verdicts as `unpaired` does. Ties are left out."""
    sides = {"first": "left", "second": "right"}
    for item, verdict in decisions(rows, per_vote):
        yield from unpaired(item.prompt, item.first, item.second, sides.get(verdict, verdict))


def flat_votes(rows: Iterable[dict[str, Any]]) -> Rows:
    """Return a study's votes with plain values: lists and objects are JSON."""
    return [{key: plain_pairs(value) for key, value in row.items()} for row in rows]


def write_votes(rows: Rows, form: str, per_vote: bool) -> tuple[bytes, int]:
    """Return a study's votes in one of `FORMATS` except for a folder, and the number of rows."""
    if form == "parquet":
        return as_parquet_file(rows), len(rows)
    file = io.StringIO(newline="")
    writers: dict[str, Callable[[], int]] = {
        "trl": lambda: write_lines(dpo_rows(rows, per_vote), file),
        "kto": lambda: write_lines(unpaired_rows(rows, per_vote), file),
        "jsonl": lambda: write_lines(rows, file),
        "csv": lambda: write_table(flat_votes(rows), file),
    }
    count = writers[form]()
    return file.getvalue().encode(), count


def export_study(
    db: str | Path,
    study: str,
    form: str,
    out: str | Path,
    names: bool = False,
    per_vote: bool = False,
    push: str = "",
) -> dict[str, Any]:
    """Write a study's votes to a file or folder, and return a summary of the export.

    Args:
        db: The database.
        study: The study's id or name.
        form: One of `FORMATS`.
        out: The file, or the folder of a dataset.
        names: Whether annotators have their names instead of pseudonyms.
        per_vote: Whether TRL's formats have a row for each vote, not for each pair's majority.
        push: A dataset on the hub, such as me/votes, to which the folder is pushed; "" for none.

    Raises:
        InputError: if an argument is unusable, or the hub refuses the dataset.
    """
    if form not in FORMATS:
        raise InputError(f"--format: found '{form}'; give one of {', '.join(FORMATS)}")
    if push and form != FOLDER:
        raise InputError(f"--push: it is for --format {FOLDER}, found {form}; leave one of them out")
    if push:
        check_repository(push)
    db, out = Path(db).expanduser().absolute(), Path(out).expanduser().absolute()
    try:
        if form == FOLDER:
            check_folder(out)
        else:
            check_target(out)
            check_apart(out, db)
        with closing(open_to_read(db)) as source:
            study_id = find_study(source, study)
            rows = list(study_votes(source, study_id, names))
            if form == FOLDER:
                with filling(out) as folder:
                    write_dataset(source, study_id, rows, folder)
                count = len(rows)
            else:
                content, count = write_votes(rows, form, per_vote)
                with replacing(out) as partial:
                    partial.write_bytes(content)
    except sqlite3.Error as error:
        raise InputError(f"{db}: the database says “{error}”; {remedy(error)}") from None
    except OSError as error:
        raise InputError(f"--out: cannot write {out}: {error.strerror}; give another") from None
    summary = {"study": study_id, "votes": len(rows), "rows": count, "format": form, "out": str(out)}
    return {**summary, "url": push_folder(out, push)} if push else summary


def study_download(store: Store, study: str, form: str, names: bool = False, per_vote: bool = False) -> bytes:
    """Return a study's votes as a file, in one of `FORMATS`; a dataset's folder is a ZIP archive.

    Args:
        store: The store.
        study: The study's id.
        form: The format.
        names: Whether annotators have their names instead of pseudonyms.
        per_vote: As for `export_study`.

    Raises:
        InputError: if there is no such study, or it has no texts for the format.
    """
    with store.reading() as db:
        if not db.table("studies").count_where("id = ?", [study]):
            raise InputError("There is no such study; it may have been deleted.")
        rows = list(study_votes(db, study, names))
        return zipped_folder(db, study, rows) if form == FOLDER else write_votes(rows, form, per_vote)[0]


def zipped_folder(db: Database, study: str, rows: Rows) -> bytes:
    """Return the folder of a study's dataset as a ZIP archive."""
    file = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="mixdesk-") as made, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
        folder = Path(made)
        write_dataset(db, study, rows, folder)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                z.write(path, path.relative_to(folder))
    return file.getvalue()


def describe_export(written: dict[str, Any]) -> str:
    """Return the summary of an export of a study as one line."""
    where = f" and at {written['url']}" if written.get("url") else ""
    return f"{written['rows']} rows from {written['votes']} votes in {written['out']}{where}"
