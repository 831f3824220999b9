"""Read rows of files in the formats of benchmarks: JSON lines, JSON arrays, CSV, TSV, Parquet or text, also gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from engine.errors import InputError

GZ = ".gz"
UTF_32, UTF_16 = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff"), (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
        unit: "line" for a text file, "row" for a file without lines.
        number: the number of the line or row, from 1.
        value: {column: cell} of a table, or the text itself if the file has no columns.
    """

    unit: str
    number: int
    value: Any

    @property
    def place(self) -> str:
        """The place in the file, such as "line 3"."""
        return f"{self.unit} {self.number}"


def file_kind(name: str) -> str:
    """Return the lower-case suffix that determines a file's format: .jsonl for questions.jsonl.gz."""
    path = PurePath(name.lower())
    return PurePath(path.stem).suffix if path.suffix == GZ else path.suffix


def read_rows(name: str, data: bytes, most: int | None = None) -> tuple[list[str], Iterator[Row]]:
    """Read a file's rows.

    Args:
        name: The file's name, whose suffix determines the format.
        data: The file's content.
        most: The most bytes of a gzipped file's uncompressed content; without limit if None.

    Returns:
        The columns, empty for a file without any, and the rows in order.

    Raises:
        InputError: Naming the file, and the line or row.
    """
    if name.lower().endswith(GZ):
        data = unzipped(name, data, most)
    kind = file_kind(name)
    if kind == ".parquet":
        return parquet_rows(name, data)
    text = decode(name, data)
    if kind in (".csv", ".tsv"):
        return table_rows(name, text, "\t" if kind == ".tsv" else None)
    if kind == ".json" and (found := whole_json(name, text)) is not None:
        return columns_of(found), iter(found)
    if kind in (".jsonl", ".json"):
        rows = json_lines(name, text)
        first = next(rows, None)
        return ([], rows) if first is None else (columns_of([first]), chained(first, rows))
    return [], (Row("line", number, line) for number, line in lines(text))


def decode(name: str, data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark. Raises InputError naming the encoding or the line."""
    for encoding, marks in (("UTF-32", UTF_32), ("UTF-16", UTF_16)):
        if data.startswith(marks):
            raise InputError(f"{name}: it is {encoding}; save it as UTF-8")
    if b"\0" in data:
        number = data[: data.index(b"\0")].count(b"\n") + 1
        raise InputError(
            f"{name}, line {number}: not a text file (found a zero byte, as in UTF-16 without its byte order mark); "
            "save it as UTF-8 text"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # It counts from after the byte order mark, which is on the first line anyway.
        number, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise InputError(
            f"{name}, line {number}: not UTF-8 (found the byte {byte:#04x}, as in Latin-1 or Windows-1252); "
            "save it as UTF-8"
        ) from None


def unzipped(name: str, data: bytes, most: int | None) -> bytes:
    """Return the content of gzipped data. Raises InputError if it is damaged, or has more than `most` bytes."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            whole = file.read() if most is None else file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name}: not a whole gzip file ({error}); give the file as it was written") from None
    if most is not None and len(whole) > most:
        raise InputError(f"{name}: it holds more than {most:,} bytes; give a file of up to {most:,}")
    return whole


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank with their numbers."""
    # Not splitlines: a JSON text may hold U+2028 and its like as they are.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if line.strip():
            yield number, line


def json_lines(name: str, text: str) -> Iterator[Row]:
    """Yield the rows of JSON lines. Raises InputError naming the file and the line."""
    for number, line in lines(text):
        try:
            yield Row("line", number, json.loads(line))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}, line {number}: not JSON ({error}); mend that line") from None


def whole_json(name: str, text: str) -> list[Row] | None:
    """Return the rows of a file that is one JSON array, or an object with one; None for JSON lines."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise InputError(f"{name}: not JSON ({error}); give an array of objects") from None
    except ValueError as error:
        if text.lstrip().startswith("[") and "Extra data" not in str(error):
            raise InputError(f"{name}: not JSON ({error}); mend that place") from None
        return None
    if isinstance(found, dict):
        arrays = [value for value in found.values() if isinstance(value, list)]
        if len(arrays) != 1 or not all(isinstance(one, dict) and "role" not in one for one in arrays[0]):
            return [Row("row", 1, found)]
        found = arrays[0]
    return [Row("row", number, one) for number, one in enumerate(found if isinstance(found, list) else [found], 1)]


def columns_of(rows: list[Row]) -> list[str]:
    """Return the keys of the first row; empty if there is none, or it is not an object."""
    return [str(name) for name in rows[0].value] if rows and isinstance(rows[0].value, dict) else []


def chained(first: Row, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the first row, then the others."""
    yield first
    yield from rows


def table_rows(name: str, text: str, delimiter: str | None) -> tuple[list[str], Iterator[Row]]:
    """Read CSV or TSV, and return its columns and rows.

    Args:
        name: The file's name.
        text: The file's content.
        delimiter: If None, a semicolon if the first line has one and no comma, otherwise a comma.
    """
    head = text.split("\n", 1)[0]
    # Spreadsheets write semicolons where the comma is in numbers.
    delimiter = delimiter or (";" if ";" in head and "," not in head else ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    filled = filled_rows(name, reader)
    names = [cell.strip() for cell in next(filled, (0, []))[1]]
    # A row that is too short lacks its last cells.
    return names, (Row("line", number, dict(zip(names, cells, strict=False))) for number, cells in filled)


def filled_rows(name: str, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank with the numbers of their last lines. Raises InputError."""
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: not CSV ({error}); mend that line") from None


def parquet_rows(name: str, data: bytes) -> tuple[list[str], Iterator[Row]]:
    """Read Parquet, and return its columns and rows. Raises InputError if it is damaged or pyarrow is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{name}: Parquet needs pyarrow; install it, or save the file as JSONL or CSV") from None
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError) as error:
        said = str(error).strip().splitlines()[0][:120]
        raise InputError(f"{name}: not a Parquet file ({said}); give the file as it was written") from None
    rows = (one for batch in table.to_batches(1000) for one in batch.to_pylist())
    return table.column_names, (Row("row", number, value) for number, value in enumerate(rows, 1))
