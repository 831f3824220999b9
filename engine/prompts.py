"""Files of prompts: JSON lines with a `prompt` each, CSV with a column `prompt`, or plain text, one prompt a line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError

# Of a file that somebody uploads.
MAX_BYTES = 20_000_000
MAX_LINE = 100_000  # characters
MAX_PROMPTS = 1_000
KINDS = (".jsonl", ".json", ".csv", ".txt")


@dataclass(frozen=True)
class PromptSet:
    """Prompts of a file, each once; lines[i] is the line of prompts[i], and duplicates were left out."""

    name: str
    prompts: list[str]
    lines: list[int]
    duplicates: int = 0


def read_prompts(file: str | Path) -> list[str]:
    """The prompts of a file, in order. Raises InputError naming the file and the line."""
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; give a file of prompts, JSON lines, CSV or one a line") from None
    return [prompt for _, prompt in numbered(str(file), decode(str(file), data))]


def uploaded(name: str, data: bytes) -> PromptSet:
    """The prompts of a file from a person who may have meant anything with it, within the limits above.

    name: the file's, of which only the ending counts. Raises InputError naming the file and the line.
    """
    if Path(name).suffix.lower() not in KINDS:
        raise InputError(f"{name}: give a file of prompts that ends in {', '.join(KINDS)}")
    if len(data) > MAX_BYTES:
        raise InputError(f"{name}: it is {len(data):,} bytes large; give a file of up to {MAX_BYTES:,}")
    text = decode(name, data)
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > MAX_LINE:
            raise InputError(
                f"{name}, line {number}: it is {len(line):,} characters long; a line may have up to {MAX_LINE:,}"
            )
    first: dict[str, int] = {}
    count = 0
    for number, prompt in numbered(name, text):
        count += 1
        if first.setdefault(prompt, number) == number and len(first) > MAX_PROMPTS:
            raise InputError(
                f"{name}, line {number}: more than {MAX_PROMPTS:,} prompts; leave out what is from here on"
            )
    return PromptSet(name, list(first), list(first.values()), count - len(first))


def decode(name: str, data: bytes) -> str:
    """UTF-8, with or without a byte order mark. Raises InputError naming the line."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{name}: it is UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # It counts from after the byte order mark, which is on the first line anyway.
        number, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise InputError(f"{name}, line {number}: not UTF-8 (found the byte {byte:#04x}); save it as UTF-8") from None
    if "\0" in text:
        number = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{name}, line {number}: not a text file (found a zero byte); save it as UTF-8 text")
    return text


def numbered(name: str, text: str) -> Iterator[tuple[int, str]]:
    """(line, prompt). Raises InputError naming the file and the line."""
    suffix, found = Path(name).suffix.lower(), False
    rows = csv_rows(name, text) if suffix == ".csv" else line_rows(name, text, suffix in (".jsonl", ".json"))
    for number, prompt in rows:
        if not isinstance(prompt, str) or not prompt.strip():
            wanted = "a prompt" if suffix == ".csv" else 'an object with a "prompt"'
            raise InputError(f"{name}, line {number}: expected {wanted} that is not empty")
        found = True
        yield number, prompt
    if not found:
        raise InputError(f"{name}: it holds no prompts; give one a line")


def line_rows(name: str, text: str, as_json: bool) -> Iterator[tuple[int, object]]:
    # Not splitlines: a JSON text may hold U+2028 and its like as they are.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if not line.strip():
            continue
        if not as_json:
            yield number, line
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}, line {number}: not JSON ({error})") from None
        yield number, row.get("prompt") if isinstance(row, dict) else None


def csv_rows(name: str, text: str) -> Iterator[tuple[int, object]]:
    head = text.split("\n", 1)[0]
    # Spreadsheets write semicolons where the comma is in numbers.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in head and "," not in head else ",")
    column: int | None = None
    try:
        while (row := next(reader, None)) is not None:
            if not any(cell.strip() for cell in row):
                continue
            if column is None:
                names = [cell.strip().lower() for cell in row]
                if "prompt" not in names:
                    found = ", ".join(names)[:80]
                    raise InputError(f"{name}, line 1: expected a column named prompt; found {found}")
                column = names.index("prompt")
            else:
                yield reader.line_num, row[column] if column < len(row) else None
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: not CSV ({error})") from None
