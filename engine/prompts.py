"""Files of prompts: JSON lines, a JSON array, CSV, TSV or Parquet with a column of prompts, or one prompt per line.

The column is `prompt` by default. A cell with a conversation (MT-bench's `turns`, hh-rlhf's `chosen`, a list of
messages) gives the user's first message.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.prompt_files import GZ, Row, decode, file_kind, lines, read_rows, unzipped

# Of an uploaded file.
MAX_BYTES = 20_000_000
MAX_LINE = 100_000  # characters
MAX_PROMPTS = 1_000
KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
COLUMN = "prompt"
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"  # of hh-rlhf
USERS = ("user", "human", "prompter")


class ColumnError(InputError):
    """A file lacks the requested column.

    Attributes:
        columns: the columns of the file.
    """

    def __init__(self, message: str, columns: list[str]) -> None:
        super().__init__(message)
        self.columns = columns


@dataclass(frozen=True)
class PromptSet:
    """The distinct prompts of a file.

    Attributes:
        name: the file's name.
        prompts: the prompts.
        lines: the line of each prompt.
        duplicates: the number of duplicates that were dropped.
        columns: the columns of the file.
        column: the column of the prompts.
    """

    name: str
    prompts: list[str]
    lines: list[int]
    duplicates: int = 0
    columns: tuple[str, ...] = ()
    column: str = ""


def read_prompts(file: str | Path, column: str | None = None) -> list[str]:
    """Return the prompts of a file, in order.

    Args:
        file: the path.
        column: the column of the prompts; `prompt` if None.

    Raises:
        InputError: the file cannot be read, or a row has no prompt; the message names the file and the line.
    """
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; give a file of prompts, JSON lines, CSV or one a line") from None
    columns, rows = read_rows(str(file), data)
    return [prompt for _, prompt in numbered(str(file), columns, rows, column)]


def uploaded(name: str, data: bytes, column: str | None = None) -> PromptSet:
    """Return the prompts of an uploaded file, within MAX_BYTES, MAX_LINE and MAX_PROMPTS.

    Args:
        name: the file's name, whose suffix determines the format.
        data: the file's content.
        column: the column of the prompts; `prompt` if None.

    Raises:
        ColumnError: the file lacks the column.
        InputError: the file is malformed or too large; the message names the file and the line.
    """
    if file_kind(name) not in KINDS:
        raise InputError(f"{name}: give a file of prompts that ends in {', '.join(KINDS)}, or in one of them and {GZ}")
    if len(data) > MAX_BYTES:
        raise InputError(f"{name}: it is {len(data):,} bytes large; give a file of up to {MAX_BYTES:,}")
    if name.lower().endswith(GZ):
        name, data = name[: -len(GZ)], unzipped(name, data, MAX_BYTES)
    if file_kind(name) not in (".json", ".parquet"):  # what may be large there is a prompt, which is looked at below
        for number, line in lines(decode(name, data)):
            check_length(name, f"line {number}", line)
    columns, rows = read_rows(name, data)
    first: dict[str, int] = {}
    count = 0
    for row, prompt in numbered(name, columns, rows, column):
        count += 1
        check_length(name, row.place, prompt)
        if first.setdefault(prompt, row.number) == row.number and len(first) > MAX_PROMPTS:
            raise InputError(f"{name}, {row.place}: more than {MAX_PROMPTS:,} prompts; leave out what is from here on")
    chosen = matching(columns, column or COLUMN) or ""
    return PromptSet(name, list(first), list(first.values()), count - len(first), tuple(columns), chosen)


def check_length(name: str, place: str, text: str) -> None:
    """Raise InputError if a text at a place of a file is longer than MAX_LINE characters."""
    if len(text) > MAX_LINE:
        raise InputError(
            f"{name}, {place}: it is {len(text):,} characters long; a {place.split()[0]} may have up to {MAX_LINE:,}"
        )


def matching(columns: list[str], column: str) -> str | None:
    """Return the column of this name, ignoring case and surrounding white space; None if there is none."""
    alike = [name for name in columns if name.strip().lower() == column.strip().lower()]
    return column if column in columns else next(iter(alike), None)


def numbered(name: str, columns: list[str], rows: Iterator[Row], column: str | None) -> Iterator[tuple[Row, str]]:
    """Yield (row, prompt) for every row.

    Args:
        name: the file's name.
        columns: the columns of the file; empty if it has none.
        rows: the rows.
        column: the column of the prompts; `prompt` if None.

    Raises:
        ColumnError: the file lacks the column; the message names the columns that it has.
        InputError: a row has no prompt, or there are no rows; the message names the file and the line.
    """
    wanted = column or COLUMN
    chosen, found = matching(columns, wanted), False
    as_object = file_kind(name) in (".jsonl", ".json")
    expected = f'an object with a "{wanted}"' if as_object else f"a {wanted}"
    for row in rows:
        found = True
        if columns and chosen is None:
            listed = ", ".join(columns)
            what = f'an object with a "{wanted}"' if as_object else f"a column named {wanted}"
            place = row.place if as_object else f"{row.unit} 1"
            raise ColumnError(
                f"{name}, {place}: expected {what}; found {listed[:120]}; choose the column (--column)", columns
            )
        if not columns and column is not None:
            raise InputError(f"{name}: it has no columns, and so none named {column}; leave the column out")
        # Keys may differ from object to object.
        value = row.value
        if isinstance(value, dict):
            value = value.get(chosen if chosen in value else matching(list(value), wanted) or "")
        elif columns or (as_object and row.unit == "line"):
            value = None
        prompt = prompt_from_row(value)
        if prompt is None or not prompt.strip():
            keys = f"; found {', '.join(map(str, row.value))[:120]}" if isinstance(row.value, dict) else ""
            raise InputError(f"{name}, {row.place}: expected {expected} that is not empty{keys if as_object else ''}")
        yield row, prompt
    if not found:
        raise InputError(f"{name}: it holds no prompts; give one a line")


def prompt_from_row(value: Any) -> str | None:
    """Return the prompt in a cell: its text, or the user's first message of a conversation; None if it has none."""
    if isinstance(value, str):
        if value.startswith(HUMAN) and ASSISTANT in value:
            return value.removeprefix(HUMAN).split(ASSISTANT)[0].strip()
        return value
    if not isinstance(value, list) or not value:
        return None
    if isinstance(value[0], str):
        return value[0]
    for message in value:
        if not isinstance(message, dict):
            return None
        if message.get("role", message.get("from")) in USERS:
            content = message.get("content", message.get("value"))
            if isinstance(content, list):  # of parts, as models with images have them
                content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
            return content if isinstance(content, str) else None
    return None
