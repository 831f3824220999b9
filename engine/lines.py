"""Append-only files of lines that survive a process being killed at any time."""

from __future__ import annotations

from pathlib import Path


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, after a line break if the file ends within a line that was not written completely."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(line.encode() + b"\n")
