"""Write files that survive a process being killed at any time."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, after a line break if the file ends within a line that was not written completely."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(line.encode() + b"\n")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically: other processes see either the old file or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
