"""The one error that is the caller's to mend, and what to say of others."""

from __future__ import annotations


class InputError(ValueError):
    """A mistake in what the caller gave: one line that says what is wrong and how to mend it."""


def first_line(error: BaseException) -> str:
    """The first line of an error, with the next where it only announces that one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
