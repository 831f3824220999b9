"""Export of ratings: preference pairs for TRL, or all fields of every rating."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TextIO

from app.storage.database import open_to_read, read_pairs
from app.storage.database_file import COMPANIONS, remedy
from engine import InputError
from engine.files import check_target, replacing
from engine.messages import Prompt, last_of, messages_of

Pair = dict[str, Any]
MAGIC = b"SQLite format 3\0"  # the first bytes of every database
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def trl_rows(pairs: Iterable[Pair]) -> Iterator[dict[str, Any]]:
    """Yield prompt, chosen and rejected of the overall ratings that prefer one response."""
    for pair in pairs:
        if pair["choice"] not in ("left", "right") or pair["objective"] is not None:
            continue
        texts = [pair[side]["text"] for side in ("left", "right")]
        chosen, rejected = texts if pair["choice"] == "left" else texts[::-1]
        yield preference(pair["prompt"], chosen, rejected)


def kto_rows(pairs: Iterable[Pair]) -> Iterator[dict[str, Any]]:
    """Yield prompt, completion and label of the overall ratings, two rows each, in TRL's conversational format.

    The label is true for the preferred response, and false for the other one or if both are bad. Ties are left out.
    """
    for pair in pairs:
        if pair["objective"] is None:
            yield from unpaired(pair["prompt"], pair["left"]["text"], pair["right"]["text"], pair["choice"])


def unpaired(prompt: Prompt, left: str, right: str, choice: str) -> Iterator[dict[str, Any]]:
    """Yield a choice between two responses as rows for KTO and BCO; none for a tie."""
    if choice == "tie":
        return
    for side, text in (("left", left), ("right", right)):
        completion = [{"role": "assistant", "content": text}]
        yield {"prompt": messages_of(prompt), "completion": completion, "label": choice == side}


def preference(prompt: Prompt, chosen: str, rejected: str) -> dict[str, Any]:
    """Return a preference as a row for DPO and reward models.

    Each value is a list of messages, TRL's conversational format; plain texts would be joined without the chat
    template.
    """
    return {
        "prompt": messages_of(prompt),
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def uniform_weights(pair: Pair) -> dict[str, Any]:
    """Return a rating with the same columns whether or not its prompt is a conversation.

    `prompt` is the last user message; `messages` is the whole conversation.
    """
    last = last_of(pair["prompt"])
    sides = {side: {**pair[side], "prompt": last} for side in ("left", "right")}
    return {**pair, **sides, "prompt": last, "messages": messages_of(pair["prompt"])}


def flat_pairs(pair: Pair) -> dict[str, Any]:
    """Return a rating as one row of plain values; the completions' keys are prefixed with left_ or right_."""
    row = {key: plain_pairs(value) for key, value in pair.items() if key not in ("left", "right")}
    for side in ("left", "right"):
        for key, value in pair[side].items():
            if key in ("mixture", "sampling"):
                row |= {f"{side}_{name}": plain_pairs(inner) for name, inner in value.items()}
            elif key != "prompt":
                row[f"{side}_{key}"] = plain_pairs(value)
    return row


def plain_pairs(value: Any) -> Any:
    """Return lists and dicts as JSON, other values unchanged."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def harmless(value: Any) -> Any:
    """Return a cell that no spreadsheet evaluates: text that begins like a formula gets a leading apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def write_lines(rows: Iterable[dict[str, Any]], file: TextIO) -> int:
    """Write rows as JSON lines and return their number."""
    count = 0
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        count += 1
    return count


def write_table(rows: list[dict[str, Any]], file: TextIO) -> int:
    """Write rows as CSV, with the columns of all rows, and return their number."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if rows:
        writer = csv.writer(file)
        writer.writerow([harmless(name) for name in columns])
        writer.writerows([harmless(row.get(name)) for name in columns] for row in rows)
    return len(rows)


FORMATS: dict[str, Callable[[Iterable[Pair], TextIO], int]] = {
    "trl": lambda pairs, file: write_lines(trl_rows(pairs), file),
    "kto": lambda pairs, file: write_lines(kto_rows(pairs), file),
    "jsonl": lambda pairs, file: write_lines(map(uniform_weights, pairs), file),
    "csv": lambda pairs, file: write_table([flat_pairs(uniform_weights(pair)) for pair in pairs], file),
}


def export_pairs(db: str | Path, form: str, out: str | Path) -> dict[str, Any]:
    """Write the ratings of a database to a file, in one of `FORMATS`, and return a summary of the export.

    Raises:
        InputError: if the format, the database or the output file is unusable.
    """
    if form not in FORMATS:
        raise InputError(f"--format: found '{form}'; give one of {', '.join(FORMATS)}")
    db, out = Path(db).expanduser().absolute(), Path(out).expanduser().absolute()
    try:
        check_target(out)
        check_apart(out, db)
        with closing(open_to_read(db)) as source:
            pairs = list(read_pairs(source))
        with replacing(out) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            rows = FORMATS[form](pairs, file)
    except sqlite3.Error as error:
        raise InputError(f"{db}: the database says “{error}”; {remedy(error)}") from None
    except OSError as error:
        raise InputError(f"--out: cannot write {out}: {error.strerror}; give another file") from None
    return {"ratings": len(pairs), "rows": rows, "format": form, "out": str(out)}


def check_apart(out: Path, db: Path) -> None:
    """Check that an export does not replace its database, a file that SQLite keeps beside it, or another database.

    Raises:
        InputError: if it does.
        OSError: if the existing output file cannot be read.
    """
    real = os.path.realpath(db)
    for suffix in ("", *COMPANIONS):
        own = Path(f"{real}{suffix}")
        # The same file by another name: a symbolic or a hard link.
        if Path(os.path.realpath(out)) == own or (out.exists() and own.exists() and out.samefile(own)):
            what = "belongs to the database of --db" if suffix else "is the database itself"
            raise InputError(f"--out: {out} {what}; give another file")
    if not out.exists():
        return
    with out.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            raise InputError(f"--out: {out} is an SQLite database, which an export does not replace; give another file")
