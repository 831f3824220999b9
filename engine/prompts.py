"""Files of prompts: JSON lines with a `prompt` each, or plain text with one prompt a line."""

from __future__ import annotations

import json
from pathlib import Path

from engine.errors import InputError


def read_prompts(file: str | Path) -> list[str]:
    """The prompts of a file, in order. Raises InputError naming the file and the line."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"{file}: {reason}; give a file of prompts, JSON lines or one a line") from None
    prompts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        prompt: object = line
        if Path(file).suffix in (".jsonl", ".json"):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{file}, line {number}: not JSON ({error})") from None
            prompt = row.get("prompt") if isinstance(row, dict) else None
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError(f'{file}, line {number}: expected an object with a "prompt" that is not empty')
        prompts.append(prompt)
    if not prompts:
        raise InputError(f"{file}: it holds no prompts; give one a line")
    return prompts
