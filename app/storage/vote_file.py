"""Files of votes made elsewhere: CSV, JSON lines and their like, with one vote a row.

The columns are found by their common names, or by those that are given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.schemas.study import Choice
from engine import InputError
from engine.messages import Prompt, check_messages
from engine.names import check_label
from engine.prompt_files import GZ, Row, file_kind, read_rows
from engine.prompts import check_length, matching

KINDS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
MOST_BYTES = 200_000_000  # of an uncompressed file
MOST_VOTES = 500_000
ITEM, PROMPT, LEFT, RIGHT, WINNER, ANNOTATOR, SECONDS = (
    *("item", "prompt", "left", "right", "winner", "annotator", "seconds"),
)
# What columns are called elsewhere. The first that a file has counts.
ALIASES: dict[str, tuple[str, ...]] = {
    ITEM: ("item", "item_id", "pair_id", "question_id", "task_id"),
    PROMPT: ("prompt", "question", "instruction", "prompt_id"),
    WINNER: ("winner", "choice", "vote", "preference"),
    ANNOTATOR: ("annotator", "annotator_id", "worker", "worker_id", "judge", "rater", "user", "user_id"),
    SECONDS: ("seconds", "duration"),
}
SIDES = (
    ("left", "right"),
    ("left_model", "right_model"),
    ("model_left", "model_right"),
    ("left_system", "right_system"),
    ("model_a", "model_b"),
    ("system_a", "system_b"),
    ("model_x", "model_y"),
    ("model_1", "model_2"),
)
LEFT_WORDS = ("left", "a", "1", "model_a", "model_x", "model_1", "system_a", "model_left", "left_model")
RIGHT_WORDS = ("right", "b", "2", "model_b", "model_y", "model_2", "system_b", "model_right", "right_model")
TIE_WORDS = ("tie", "draw", "equal", "both_good", "tie_(both_good)")
BAD_WORDS = ("both_bad", "bothbad", "tie_(bothbad)", "tie_(both_bad)", "tie_bothbad", "neither")
MEANINGS: dict[Choice, tuple[str, ...]] = {
    "left": LEFT_WORDS,
    "right": RIGHT_WORDS,
    "tie": TIE_WORDS,
    "both_bad": BAD_WORDS,
}


@dataclass(frozen=True)
class CastVote:
    """One row of a file of votes.

    Attributes:
        place: Its place in the file, such as "line 3".
        item: Key of the item; with the two systems it identifies a pair of responses.
        prompt: The prompt; None if the file has none.
        left: Name of the system on the left.
        right: Name of the system on the right.
        choice: The annotator's choice.
        annotator: The annotator's name.
        seconds: Time that the vote took, None if it is not known.
    """

    place: str
    item: str
    prompt: Prompt | None
    left: str
    right: str
    choice: Choice
    annotator: str
    seconds: float | None


def read_votes(name: str, data: bytes, columns: Mapping[str, str] | None = None) -> Iterator[CastVote]:
    """Yield the votes of a file.

    Args:
        name: The file's name, whose suffix determines the format.
        data: The file's content.
        columns: {item, prompt, left, right, winner, annotator or seconds: the file's name for it}; the others are found
            by their common names.

    Raises:
        InputError: naming the file, and the line of the first vote that cannot be read.
    """
    if file_kind(name) not in KINDS:
        raise InputError(f"{name}: give a file of votes that ends in {', '.join(KINDS)}, or in one of them and {GZ}")
    found, rows = read_rows(name, data, MOST_BYTES)
    chosen = choose_columns(name, found, columns or {})
    prompts: dict[str, tuple[Any, str]] = {}
    number = 0
    for number, row in enumerate(rows, 1):
        if number > MOST_VOTES:
            raise InputError(f"{name}, {row.place}: more than {MOST_VOTES:,} votes; divide the file")
        try:
            vote = read_vote(row, chosen)
        except ValueError as error:
            raise InputError(f"{name}, {row.place}: {error}") from None
        known, place = prompts.setdefault(vote.item, (vote.prompt, row.place))
        if known != vote.prompt:
            raise InputError(f"{name}, {row.place}: item {quoted_cell(vote.item)} has another prompt than on {place}")
        yield vote
    if not number:
        raise InputError(f"{name}: it holds no votes; give one a line")


def named_columns(given: Iterable[str]) -> dict[str, str]:
    """Return {what: column} of texts such as "annotator=worker". Raises InputError if one is of another form."""
    columns = {}
    for text in given:
        what, equals, column = text.partition("=")
        if not equals or not column.strip():
            raise InputError(f"--column: found '{text[:80]}', expected what=column, such as annotator=worker")
        columns[what.strip()] = column
    return columns


def choose_columns(name: str, found: list[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return {what: the file's column}.

    Args:
        name: The file's name.
        found: Its columns.
        given: As `columns` of `read_votes`.

    Raises:
        InputError: if a column is missing.
    """
    wanted = (ITEM, PROMPT, LEFT, RIGHT, WINNER, ANNOTATOR, SECONDS)
    listed = ", ".join(found)[:200] or "none"
    chosen: dict[str, str] = {}
    for what, column in given.items():
        if what not in wanted:
            raise InputError(f"--column: found '{what}={column}'; give one of {', '.join(wanted)}, = and its column")
        if (known := matching(found, column)) is None:
            raise InputError(f"{name}: it has no column {column}; found {listed}; give --column {what}=NAME another")
        chosen[what] = known
    pairs = ((matching(found, left), matching(found, right)) for left, right in SIDES)
    sides = next((pair for pair in pairs if None not in pair), (None, None))
    common: dict[str, str | None] = dict(zip((LEFT, RIGHT), sides, strict=True))
    for what, aliases in ALIASES.items():
        common[what] = next(filter(None, (matching(found, one) for one in aliases)), None)
    for what, usual in common.items():
        if usual is not None:
            chosen.setdefault(what, usual)
    if ITEM not in chosen and PROMPT in chosen:
        chosen[ITEM] = chosen[PROMPT]  # with its two systems, a prompt is an item
    for what in wanted:
        if what not in chosen and what not in (PROMPT, SECONDS):
            raise InputError(f"{name}: it has no column for the {what}; found {listed}; name it: --column {what}=NAME")
    return chosen


def read_vote(row: Row, chosen: Mapping[str, str]) -> CastVote:
    """Return a row as a vote; `chosen` is what `choose_columns` returns. Raises ValueError with what is wrong."""
    if not isinstance(row.value, dict):
        raise ValueError("expected an object with a vote's columns")
    cells = {what: row.value.get(column) for what, column in chosen.items()}
    left, right = (cell_label(cells[side], side) for side in (LEFT, RIGHT))
    if left == right:
        raise ValueError(f"left and right: both are {quoted_cell(left)}; a vote is between two systems")
    prompt = None
    if PROMPT in chosen:
        cell = cells[PROMPT]
        prompt = check_messages(cell if isinstance(cell, list) else cell_text(cell, PROMPT))
        check_length("prompt", "line", prompt if isinstance(prompt, str) else json.dumps(prompt))
    item = cells[ITEM]
    return CastVote(
        place=row.place,
        item=json.dumps(item) if isinstance(item, list) else cell_text(item, ITEM),
        prompt=prompt,
        left=left,
        right=right,
        choice=read_choice(cell_text(cells[WINNER], WINNER), left, right),
        annotator=cell_label(cells[ANNOTATOR], ANNOTATOR),
        seconds=read_seconds(cells.get(SECONDS)),
    )


def cell_text(cell: Any, what: str) -> str:
    """Return a cell as text. Raises ValueError if it is empty, or neither text nor a number."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # what pandas makes of whole numbers where some are missing
    if cell is None or not str(cell).strip():
        raise ValueError(f"{what}: it is empty")
    if not isinstance(cell, (str, int, float)) or isinstance(cell, bool):
        raise ValueError(f"{what}: found {quoted_cell(json.dumps(cell, default=str))}; give a text")
    return str(cell)


def cell_label(cell: Any, what: str) -> str:
    """Return a cell with a name. Raises ValueError if it is none."""
    text = cell_text(cell, what).strip()
    try:
        return check_label(text)
    except ValueError as error:
        raise ValueError(f"{what}: found {quoted_cell(text)}, expected {error}") from None


def read_choice(winner: str, left: str, right: str) -> Choice:
    """Return the choice that a cell means: a side, a tie, both bad, or one of the two systems by its name.

    Raises:
        ValueError: if it is none of them, or could be both sides.
    """
    winner = winner.strip()
    word = "_".join(winner.lower().split())
    by_side = next((choice for choice, words in MEANINGS.items() if word in words), None)
    by_name: Choice | None = "left" if winner == left else "right" if winner == right else None
    if by_side and by_name and by_side != by_name:
        raise ValueError(
            f"winner: {quoted_cell(winner)} is also the name of the system on the {by_name}; write left or right"
        )
    choice = by_name or by_side
    if choice is None:
        raise ValueError(
            f"winner: found {quoted_cell(winner)}; give left, right, tie, both_bad or the name of a system"
        )
    return choice


def read_seconds(cell: Any) -> float | None:
    """Return a cell with a duration, None if it is empty. Raises ValueError if it is no number from 0."""
    if cell is None or not str(cell).strip():
        return None
    try:
        seconds = float(cell)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds: found {quoted_cell(str(cell))}; give a number from 0")
    return seconds


def quoted_cell(text: str) -> str:
    """Return a text as a message shows it: in quotes, on one line, not too long."""
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
