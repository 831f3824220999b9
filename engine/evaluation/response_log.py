"""Store results in a JSON Lines file, so that a long computation can be resumed after an interruption."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.files import append_line

START = '{"key": '  # of every line


class Memo:
    """JSON values by key, in a file, or only in memory without a path. Only one process may write a file at a time.

    Raises:
        InputError: if there is a file that no Memo wrote; nothing is appended to it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._values: dict[str, Any] = {}
        if path is None or not path.exists():
            return
        try:
            text = path.read_text(encoding="utf-8") if path.is_file() else "a folder or a device"
        except UnicodeDecodeError:
            text = "no text"
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; give a file that --responses wrote, or a new file") from None
        # A first line that was not written completely is a beginning of START, or begins with it.
        first = text.partition("\n")[0]
        if first[: len(START)] != START[: len(first)]:
            raise InputError(f"{path}: not a file that --responses wrote; give one that it wrote, or a new file")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self._values[row["key"]] = row["value"]
            except (ValueError, KeyError, TypeError):
                continue  # the line that was being written when the process was killed

    @staticmethod
    def key(*parts: Any) -> str:
        """Return the key for the JSON values in `parts`: 32 hex digits of a hash."""
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value
        if self.path is not None:
            append_line(self.path, json.dumps({"key": key, "value": value}))
