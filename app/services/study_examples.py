"""Training and gold pairs from an uploaded file: JSON lines, a JSON array, CSV, TSV or Parquet."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, get_args

from pydantic import ValidationError

from app.schemas.study import OVERALL, Example, Verdict
from engine import InputError
from engine.prompt_files import Row, file_kind, read_rows

MAX_EXAMPLE_BYTES = 5_000_000
EXAMPLE_KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
VERDICTS: tuple[str, ...] = get_args(Verdict)
BETWEEN_VERDICTS = re.compile(r"[|;,/]|\bor\b")
EXPECTED = "expected"  # column of the overall question; "expected_harmless" is that of the question "harmless"
NEEDED = ("prompt", "first", "second", EXPECTED)


def read_examples(name: str, data: bytes, questions: Collection[str], most: int) -> list[Example]:
    """Return the examples of an uploaded file.

    Each row has a prompt, the first and the second response, the expected verdict ("first", or several that are right,
    "first|tie"), and optionally feedback. In JSON, `expected` may also be a list, or an object {question: verdicts}.
    The expected verdict of another question is in the column "expected_" and its key.

    Args:
        name: The file's name, whose suffix determines the format.
        data: The file's content.
        questions: Keys of the study's questions.
        most: The number of examples that there may be.

    Raises:
        InputError: naming the file and the line.
    """
    if file_kind(name) not in EXAMPLE_KINDS:
        raise InputError(f"{name}: give a file that ends in {', '.join(EXAMPLE_KINDS)}, or in one of them and .gz")
    if len(data) > MAX_EXAMPLE_BYTES:
        raise InputError(f"{name}: it is {len(data):,} bytes large; give a file of up to {MAX_EXAMPLE_BYTES:,}")
    columns, rows = read_rows(name, data, MAX_EXAMPLE_BYTES)
    found: list[Example] = []
    for row in rows:
        place = f"{name}, {row.place}"
        found.append(example_of(place, example_cells(row, columns, place), questions))
        if len(found) > most:
            raise InputError(f"{place}: more than {most} pairs; leave out what is from here on")
    if not found:
        raise InputError(f"{name}: it holds no pairs; give one a line, with {', '.join(NEEDED)}")
    return found


def example_cells(row: Row, columns: list[str], place: str) -> dict[str, Any]:
    """Return {column in lower case: cell} of a row.

    Raises:
        InputError: if it is not an object, or lacks a column.
    """
    if not isinstance(row.value, Mapping):
        raise InputError(f"{place}: expected columns or an object with {', '.join(NEEDED)}")
    cells = {str(column).strip().lower(): cell for column, cell in row.value.items()}
    if missing := [column for column in NEEDED if cells.get(column) is None]:
        listed = ", ".join(map(str, row.value if row.unit == "row" or not columns else columns))
        raise InputError(f"{place}: there is no “{missing[0]}”; found {listed[:120] or 'nothing'}")
    return cells


def example_of(place: str, cells: Mapping[str, Any], questions: Collection[str]) -> Example:
    """Return the example in a row's cells.

    Raises:
        InputError: naming the place and the column.
    """
    expected: dict[str, list[str]] = {}
    whole = cells[EXPECTED]
    given = dict(whole) if isinstance(whole, Mapping) else {OVERALL: whole}
    given |= {
        column.removeprefix(f"{EXPECTED}_"): cell
        for column, cell in cells.items()
        if column.startswith(f"{EXPECTED}_") and cell not in (None, "")
    }
    by_name = {key.lower(): key for key in questions}
    for key, cell in given.items():
        question = by_name.get(str(key).strip().lower())
        if question is None:
            raise InputError(
                f"{place}: it expects an answer to “{str(key)[:40]}”, and the study asks {', '.join(questions)}"
            )
        expected[question] = verdicts_of(place, cell)
    texts = {}
    for column in ("prompt", "first", "second", "feedback"):
        cell = cells.get(column) or ""
        if not isinstance(cell, str):
            raise InputError(f"{place}: its {column} is {type(cell).__name__}; give a text")
        texts[column] = cell
    if not texts["prompt"].strip():
        raise InputError(f"{place}: its prompt is empty; give it one")
    try:
        return Example.model_validate({**texts, EXPECTED: expected})
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(f"{place}: its {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None


def verdicts_of(place: str, cell: Any) -> list[str]:
    """Return the accepted verdicts in a cell.

    Raises:
        InputError: if there are none, or one of them is unknown.
    """
    parts = cell if isinstance(cell, list) else BETWEEN_VERDICTS.split(str(cell))
    found = ["_".join(str(part).strip().lower().split()) for part in parts if str(part).strip()]
    if not found or not set(found) <= set(VERDICTS):
        wrong = next((one for one in found if one not in VERDICTS), "nothing")
        raise InputError(f"{place}: expected is '{wrong[:40]}'; give {', '.join(VERDICTS[:-1])} or {VERDICTS[-1]}")
    return list(dict.fromkeys(found))
