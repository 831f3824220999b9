"""Implied rewards: how much likelier each policy makes a response than the reference does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from app.storage.vote_tables import VoteTables
from engine import Engine, InputError
from engine.config import REFERENCE

BUDGET = 60.0  # seconds of computing at one press of the button


class ImpliedRewards:
    """log π_k(y|x) − log π_ref(y|x) of stored responses, for every policy: computed on demand, then kept in memory."""

    def __init__(self, engine: Engine, tables: VoteTables) -> None:
        self.engine, self.tables = engine, tables
        self.known: dict[int, dict[str, float]] = {}
        self._lock = threading.Lock()

    def compute(self, ids: Iterable[int], budget: float = BUDGET) -> int:
        """Compute the rewards of responses until the budget is used up, and return how many are still missing.

        Args:
            ids: Of completions. Those of other configurations are ignored, as are those that do not fit the models.
            budget: Seconds.

        Raises:
            InputError: if a computation is under way.
        """
        if not self._lock.acquire(blocking=False):
            raise InputError("implied rewards: they are being computed already; wait for that")
        try:
            deadline = time.monotonic() + budget
            wanted = [
                row for row in self.tables.responses(self.missing(ids)) if row["model"] == self.engine.config.name
            ]
            for place, row in enumerate(wanted):
                if time.monotonic() > deadline:
                    return len(wanted) - place
                self.known[row["id"]] = self.reward(row["prompt"], row["tokens"], row["date"])
            return 0
        finally:
            self._lock.release()

    def reward(self, prompt: object, tokens: list[int], date: str) -> dict[str, float]:
        """Return {policy: log-ratio to the reference}, {} for a response that cannot be scored."""
        try:
            found = self.engine.token_log_probs(prompt, tokens, date)  # type: ignore[arg-type]
        except InputError:
            return {}
        base = sum(found[REFERENCE])
        return {name: sum(values) - base for name, values in found.items() if name != REFERENCE}

    def missing(self, ids: Iterable[int]) -> list[int]:
        """Return those of the responses that are not known yet."""
        return [one for one in dict.fromkeys(ids) if one not in self.known]

    def by_policy(self) -> dict[str, dict[int, float]]:
        """Return {policy: {completion id: implied reward}} of what is known."""
        found: dict[str, dict[int, float]] = {}
        for completion, rewards in list(self.known.items()):
            for name, value in rewards.items():
                found.setdefault(name, {})[completion] = value
        return found
