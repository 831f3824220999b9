"""Studies for tests: their systems, pairs and annotators, and a clock that is set by hand."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from itertools import combinations
from typing import Any

from app.schemas.study import Example, StudySettings, StudyState
from app.storage.annotators import Annotator
from app.storage.assignments import Assignments
from app.storage.database import Store
from app.storage.studies import StudyTables
from app.storage.study_items import NewItem
from engine import Mixture


class HandClock:
    """A clock that stands still until it is set forward."""

    def __init__(self) -> None:
        self.moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.moment

    def pass_by(self, minutes: float) -> None:
        self.moment += timedelta(minutes=minutes)


class StudyScene:
    """A study of a store: `prompts` pairs of each two systems, opened unless `state` says otherwise."""

    def __init__(
        self, store: Store, prompts: int = 4, systems: int = 2, state: StudyState = StudyState.OPEN, **settings: Any
    ) -> None:
        self.store, self.clock = store, HandClock()
        self.tables = StudyTables(store, self.clock)
        self.assignments = Assignments(store, self.clock, random.Random(1))
        self.settings = StudySettings(name=settings.pop("name", "Soup"), **settings)
        mixtures = {f"Mix {i}": Mixture({"helpful": 0.25 + i / 10, "terse": 0.75 - i / 10}) for i in range(systems)}
        self.id = self.tables.add(self.settings, mixtures, model="demo", source="prompts.txt")
        pairs = list(combinations(range(systems), 2))
        if self.settings.pairing == "first":
            pairs = [pair for pair in pairs if pair[0] == 0]
        self.tables.add_items(
            self.id,
            [
                NewItem(f"Prompt {i}?", *pair, first_text=f"{i} by {pair[0]}", second_text=f"{i} by {pair[1]}")
                for i in range(prompts)
                for pair in pairs
            ],
        )
        if state is not StudyState.DRAFT:
            self.tables.set_state(self.id, StudyState.OPEN)

    def join(self, name: str = "anna", read: bool = True) -> str:
        """Return the id of an annotator."""
        annotator: Annotator = self.assignments.join(self.id, key=name, name=name, joined_by="sign-in")
        if read:
            self.assignments.mark_read(self.id, annotator.id)
        return annotator.id

    def next(self, annotator: str) -> Any:
        return self.assignments.next(self.id, annotator)

    def answer(self, annotator: str, assignment: Any, choice: str = "left", **more: Any) -> Any:
        answers = {question.key: choice for question in self.settings.questions}
        return self.assignments.answer(self.id, annotator, assignment.id, answers, **more)

    def work(self, annotator: str, choice: str = "left", most: int = 10_000) -> list[Any]:
        """Answer until there is nothing left, and return the assignments."""
        done = []
        while len(done) < most and (assignment := self.next(annotator)):
            self.answer(annotator, assignment, choice)
            self.clock.pass_by(0.1)
            done.append(assignment)
        return done

    def rows(self, where: str = "1", table: str = "study_assignments") -> list[dict[str, Any]]:
        with self.store.reading() as db:
            return list(db.query(f"select * from {table} where {where} order by rowid"))

    def counts(self) -> list[int]:
        """The number of answered ratings of each pair, in order."""
        with self.store.reading() as db:
            rows = db.query(
                "select (select count(*) from study_assignments a where a.item_id = i.id and a.kind = 'pair' "
                "and a.state = 'answered') as number from study_items i where kind = 'pair' order by place"
            )
            return [row["number"] for row in rows]


def example(number: int, right: str = "first", **more: Any) -> Example:
    return Example(
        prompt=f"Example {number}?",
        first=f"example {number} first",
        second=f"example {number} second",
        expected={"overall": [right]},
        **more,
    )
