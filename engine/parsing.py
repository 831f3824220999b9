"""Parse numbers by name from the command line."""

from __future__ import annotations

from engine.errors import InputError


def parse_numbers(text: str, what: str) -> dict[str, float]:
    """Parse 'a=0.6,b=0.4' into {"a": 0.6, "b": 0.4}. Raises InputError, whose message begins with `what`."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        name = name.strip()
        try:
            value: float | None = float(number)
        except ValueError:
            value = None
        if not name or value is None:
            raise InputError(f"{what}: found '{part.strip()}', expected name=number, such as helpful=0.6,humorous=0.4")
        if name in found:
            raise InputError(f"{what}: {name} is given twice; give each once")
        found[name] = value
    return found
