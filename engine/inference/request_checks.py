"""Checks of what a caller gives with a request."""

from __future__ import annotations

from datetime import datetime

from engine.errors import InputError
from engine.models.policy_set import PolicySet

TokenIds = list[int] | tuple[int, ...]


def check_tokens(policy_set: PolicySet, tokens: TokenIds) -> list[int]:
    """Return the tokens as a list. Raises InputError unless a response can begin with them."""
    size = len(policy_set.tokenizer)
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < size:
            raise InputError(f"tokens: found {token}; give token ids from 0 to {size - 1}")
        if token in policy_set.stop_ids:
            raise InputError(f"tokens: {token} ends a response; give those before it")
    return list(tokens)


def check_date(date: str) -> str:
    """Return an ISO date to the second, or "" unchanged. Raises InputError for any other text."""
    try:
        return date and datetime.fromisoformat(date).isoformat(timespec="seconds")
    except (TypeError, ValueError):
        raise InputError(f"date: found {str(date)[:40]!r}; give one such as 2026-01-31T12:00:00") from None
