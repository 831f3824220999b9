"""The keyboard shortcuts, from static/shortcuts.json: what the buttons, Help and the page's scripts all read."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "static" / "shortcuts.json"


@lru_cache
def load_shortcuts() -> dict[str, list[dict[str, Any]]]:
    """Return the shortcuts by the place where they work; static/js/shortcuts.js says what their fields are."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def shown_keys(elem_id: str) -> str:
    """Return the keys that press a button, as they are shown.

    Raises:
        KeyError: No shortcut names this button.
    """
    for shortcuts in load_shortcuts().values():
        for shortcut in shortcuts:
            if elem_id in (*shortcut.get("press", ()), *shortcut.get("buttons", ()), shortcut.get("id")):
                return shortcut["shown"]
    raise KeyError(elem_id)


def labelled(text: str, elem_id: str) -> str:
    """Return a button's label with its shortcut: "Balance (B)"."""
    return f"{text} ({shown_keys(elem_id)})"
