"""Rewards that could not be computed: a failing reward affects neither the response nor the other rewards."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import torch

from engine.errors import InputError

log = logging.getLogger("mixdesk")

T = TypeVar("T")
Outcome: TypeAlias = float | str  # a reward, or why there is none
LONGEST = 200  # characters of a reason


class Rewards(dict[str, float]):
    """{objective: reward} for the rewards that could be computed.

    Attributes:
        missing: {objective: reason} for the other rewards.
    """

    def __init__(self, values: Mapping[str, float] | None = None, missing: Mapping[str, str] | None = None) -> None:
        super().__init__(values or {})
        self.missing: dict[str, str] = dict(missing or {})

    def put(self, objective: str, outcome: Outcome) -> None:
        """Add a reward, or the reason why it is missing."""
        if isinstance(outcome, str):
            self.missing[objective] = outcome
        else:
            self[objective] = outcome

    def add(self, other: Rewards) -> None:
        """Add all rewards and reasons of another row."""
        self.update(other)
        self.missing.update(other.missing)

    def ordered(self, objectives: Sequence[str]) -> Rewards:
        """Return a copy with these objectives only, in this order."""
        return Rewards(
            {name: self[name] for name in objectives if name in self},
            {name: self.missing[name] for name in objectives if name in self.missing},
        )


def outcomes(score: Callable[[list[T]], list[float]], items: list[T]) -> list[Outcome]:
    """Score items so that a failure affects only the failing items: the halves of a failed batch are tried separately.

    Args:
        score: a function that returns the reward of each item.
        items: the items.

    Returns:
        For each item, its reward or the reason why it is missing.
    """
    try:
        return [finite(value) for value in score(items)]
    except (Exception, SystemExit) as error:  # functions are other people's code
        if len(items) == 1:
            log.debug("a reward failed", exc_info=True)
            return [reason_of(error)]
    # Out of the except clause, where the failed batch's tensors are still held.
    middle = len(items) // 2
    return [*outcomes(score, items[:middle]), *outcomes(score, items[middle:])]


def finite(value: float) -> Outcome:
    """Return the value if it is finite, otherwise the reason why the reward is missing."""
    return value if math.isfinite(value) else f"it is {value}, not a finite number"


def reason_of(error: BaseException) -> str:
    """Return the cause of an error as one line of at most LONGEST characters, for a table cell."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return "out of memory"
    text = " ".join(str(error).split())
    named = text if isinstance(error, InputError) else f"{type(error).__name__}: {text}".removesuffix(": ")
    return named if len(named) <= LONGEST else f"{named[: LONGEST - 1]}…"


def missing_counts(rows: Iterable[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """Return {objective: {reason: number of responses}} for many responses, the commonest reason first."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        for objective, reason in row.items():
            found.setdefault(objective, Counter())[reason] += 1
    return {objective: dict(counter.most_common()) for objective, counter in found.items()}


def missing_line(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return the missing rewards with their numbers and reasons in one line: 'helpful 3 (ValueError: ...)'."""
    parts = []
    for objective, reasons in counts.items():
        first, *more = reasons
        others = f"; {len(more)} other reasons" if more else ""
        parts.append(f"{objective} {sum(reasons.values())} ({first}{others})")
    return ", ".join(parts)
