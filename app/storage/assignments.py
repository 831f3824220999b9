"""Assignments: which annotator rates which pair, and the answers.

An assignment *leases* a place of its item for a while. A pair is given out while the ratings that it has and the leases
under way are fewer than it needs, so that in the end it has exactly as many as it needs. Each method is one transaction
that holds the database's write lock from its beginning, so that no two of them see the same place free.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlite_utils import Database

from app.schemas.study import AssignmentKind, AssignmentState, StudySettings, StudyState
from app.storage.annotators import Annotators, annotator_row, check_visible
from app.storage.answer_checks import Feedback, check_answers, check_comment, feedback_of, seconds_of
from app.storage.database import Store
from app.storage.next_item import Chooser, Draw, StudyCache, has_training
from app.storage.study_items import read_item
from app.storage.study_progress import ATTEMPTS, AnnotatorProgress, Phase, phase_before_work, read_progress
from app.storage.study_rows import Clock, end_leases, new_id, stamp, study_row, utc_now
from engine import InputError
from engine.messages import Message, messages_of

LEASE = timedelta(minutes=15)


class RefusedError(InputError):
    """An answer, a skip or an undo comes too late, or twice. Sending it again does not help."""


@dataclass(frozen=True)
class Assignment:
    """A pair as its annotator sees it.

    Attributes:
        id: Random id; an answer is stored once for it.
        prompt: Messages of the prompt.
        a: The response on the left.
        b: The response on the right.
        training: Whether feedback follows.
        answers: {question: choice}, the answers before `undo`.
        comment: The comment so far.
        flagged: Whether the annotator has flagged it.
        kind: What no annotator may learn, so it is not for their page.
    """

    id: str
    prompt: list[Message]
    a: str
    b: str
    training: bool
    answers: dict[str, str] = field(default_factory=dict)
    comment: str = ""
    flagged: bool = False
    kind: AssignmentKind = AssignmentKind.PAIR


class Assignments(Annotators):
    """The assignments of a store's studies. Thread-safe, like the store.

    Args:
        store: The store.
        clock: Returns the current UTC time, by which leases end.
        chance: Draws the systems of uncertain pairing.
    """

    def __init__(self, store: Store, clock: Clock = utc_now, chance: random.Random | None = None) -> None:
        super().__init__(store, clock)
        self.chance = chance or random.SystemRandom()
        self.cache = StudyCache()

    def next(self, study_id: str, annotator_id: str) -> Assignment | None:
        """Return the pair that the annotator is to rate, leased for 15 minutes; None if there is none for them now.

        A pair that is leased to them is returned again, and first of all one that `undo` has brought back.

        Raises:
            InputError: if there is no such study or annotator.
        """
        with self.store.writing() as db:
            chooser, state = self._chooser(db, study_id, annotator_id)
            return self._next(chooser, state)

    def answer(
        self,
        study_id: str,
        annotator_id: str,
        assignment_id: str,
        answers: Mapping[str, str],
        comment: str = "",
        flagged: bool = False,
        seconds: float | None = None,
    ) -> Feedback | None:
        """Store an answer, committed on return; the same one twice is stored once.

        An answer to an expired lease is stored if the pair still needs it.

        Args:
            study_id: The study.
            annotator_id: The annotator.
            assignment_id: The assignment.
            answers: {question: choice} for every question of the study.
            comment: A comment; "" keeps an earlier one.
            flagged: Whether to flag the pair for the owner; it stays flagged if it was before.
            seconds: The time that the answer took, if known.

        Returns:
            Feedback if this is a training pair, else None.

        Raises:
            RefusedError: if the pair is no longer needed, or was answered otherwise before.
            InputError: if an argument is invalid.
        """
        with self.store.writing() as db:
            chooser, state = self._chooser(db, study_id, annotator_id)
            row = own_row(chooser, assignment_id)
            check_answers(answers, chooser.settings)
            check_comment(comment)
            item = read_item(db, row["item_id"])
            given = answers_of(db, assignment_id)
            feedback = feedback_of(item, answers, bool(row["swapped"])) if row["kind"] == "training" else None
            # A lease by undo that has expired is answered, and yet open to another answer.
            if row["state"] == AssignmentState.ANSWERED.value and not row["expires_at"]:
                if given != dict(answers):
                    raise RefusedError("You have answered this pair already: undo that answer to change it.")
                return feedback
            check_open(state, chooser, "it takes no more answers")
            self._check_place(chooser, row)
            if given:
                db.execute("delete from study_answers where assignment_id = ?", [assignment_id])
            db.table("study_answers").insert_all(
                {"assignment_id": assignment_id, "question": question, "choice": choice}
                for question, choice in answers.items()
            )
            values = {
                "state": AssignmentState.ANSWERED.value,
                "answered_at": chooser.now,
                "expires_at": "",
                "seconds": seconds_of(seconds),
                "comment": comment or row["comment"],
                "flagged": int(flagged or row["flagged"]),
            }
            db.table("study_assignments").update(assignment_id, values)
            if feedback is not None:
                end_attempt(chooser)
            return feedback

    def skip(self, study_id: str, annotator_id: str, assignment_id: str, comment: str = "") -> None:
        """Give a pair back, which the annotator does not get again; an answer that was undone is withdrawn.

        Raises:
            RefusedError: if it has been answered.
            InputError: if it is a training pair, or an argument is invalid.
        """
        with self.store.writing() as db:
            chooser, state = self._chooser(db, study_id, annotator_id)
            row = own_row(chooser, assignment_id)
            check_comment(comment)
            if row["kind"] == AssignmentKind.TRAINING.value:
                raise InputError("A training pair cannot be skipped: choose an answer.")
            if row["state"] == AssignmentState.SKIPPED.value:
                return
            if row["state"] == AssignmentState.ANSWERED.value:
                raise RefusedError("You have answered this pair: undo that answer first, then skip.")
            check_open(state, chooser, "nothing can be skipped any more")
            db.execute("delete from study_answers where assignment_id = ?", [assignment_id])
            values = {"state": AssignmentState.SKIPPED.value, "answered_at": None, "expires_at": "", "seconds": None}
            db.table("study_assignments").update(assignment_id, {**values, "comment": comment or row["comment"]})

    def flag(self, study_id: str, annotator_id: str, assignment_id: str, comment: str = "") -> None:
        """Flag a pair for the owner, with a comment; it stays the annotator's to answer.

        Raises:
            InputError: if an argument is invalid.
        """
        with self.store.writing() as db:
            chooser, state = self._chooser(db, study_id, annotator_id)
            row = own_row(chooser, assignment_id)
            check_comment(comment)
            check_open(state, chooser, "nothing can be flagged any more")
            db.table("study_assignments").update(assignment_id, {"flagged": 1, "comment": comment or row["comment"]})

    def undo(self, study_id: str, annotator_id: str) -> Assignment:
        """Lease the annotator's last answered pair again and return it with its answers.

        They stay until others replace them, and count again if the lease expires. A second undo before that changes
        nothing. Training is not undone.

        Raises:
            RefusedError: if there is no answer to undo.
            InputError: if the study is not open.
        """
        with self.store.writing() as db:
            chooser, state = self._chooser(db, study_id, annotator_id)
            check_open(state, chooser, "nothing can be undone now", paused=True)
            if (row := live_lease(chooser)) is None or row["answered_at"] is None:
                query = (
                    "select * from study_assignments where annotator_id = ? and state = 'answered' and "
                    "kind != 'training' order by answered_at desc, rowid desc limit 1"
                )
                row = next(iter(db.query(query, [annotator_id])), None)
                if row is None:
                    raise RefusedError("There is no answer to undo.")
            return self._lease(chooser, row)

    def progress(self, study_id: str, annotator_id: str) -> AnnotatorProgress:
        """Return how far an annotator is.

        Raises:
            InputError: if there is no such study or annotator.
        """
        with self.store.reading() as db:
            chooser, state = self._read_chooser(db, study_id, annotator_id)
            return read_progress(chooser, state)

    def overview(self, study_id: str, annotator_id: str | None) -> tuple[StudySettings, AnnotatorProgress]:
        """Return a study's settings and how far an annotator is; None has not joined yet.

        Raises:
            InputError: if there is no such study or annotator.
        """
        with self.store.reading() as db:
            if annotator_id is not None:
                chooser, state = self._read_chooser(db, study_id, annotator_id)
                return chooser.settings, read_progress(chooser, state)
            study = study_row(db, study_id)
            check_visible(study)
            phase = phase_before_work(StudyState(study["state"]), None, False)
            return self.cache.parse(study_id, study["settings"]), AnnotatorProgress(phase or Phase.JOIN)

    # ----------------------------------------------------------------------------------------------- in a transaction

    def _read_chooser(self, db: Database, study_id: str, annotator_id: str) -> tuple[Chooser, StudyState]:
        study = study_row(db, study_id)
        check_visible(study)
        settings = self.cache.parse(study_id, study["settings"])
        annotator = annotator_row(db, study_id, annotator_id)
        chooser = Chooser(db, study_id, settings, annotator, stamp(self.clock()), self.cache)
        return chooser, StudyState(study["state"])

    def _chooser(self, db: Database, study_id: str, annotator_id: str) -> tuple[Chooser, StudyState]:
        """As `_read_chooser`, where one may write: leases of the study that have expired are ended."""
        chooser, state = self._read_chooser(db, study_id, annotator_id)
        end_leases(db, "study_id = :study and expires_at <= :now", {"study": study_id, "now": chooser.now})
        return chooser, state

    def _next(self, chooser: Chooser, state: StudyState) -> Assignment | None:
        trained = chooser.annotator.passed or not has_training(chooser.db, chooser.study_id)
        phase = phase_before_work(state, chooser.annotator, trained)
        if phase not in (None, Phase.TRAINING):
            return None
        if row := live_lease(chooser):
            return self._lease(chooser, row)
        draw = chooser.training() if phase is Phase.TRAINING else chooser.work(self.chance)
        return None if draw is None else self._lease(chooser, self._insert(chooser, draw))

    def _insert(self, chooser: Chooser, draw: Draw) -> dict[str, Any]:
        """Return the assignment's row, inserted unless the annotator had it before."""
        table = chooser.db.table("study_assignments")
        if draw.assignment_id is None:
            row = {
                "id": new_id(),
                "study_id": chooser.study_id,
                "item_id": draw.item_id,
                "annotator_id": chooser.annotator.id,
                "kind": draw.kind.value,
                "attempt": draw.attempt,
                "swapped": int(draw.swapped),
                "probability": draw.probability,
                "state": AssignmentState.LEASED.value,
                "leased_at": chooser.now,
                "expires_at": chooser.now,
                "answered_at": None,
                "seconds": None,
                "comment": "",
                "flagged": 0,
            }
            table.insert(row)
            return row
        return dict(next(iter(table.rows_where("id = ?", [draw.assignment_id]))))

    def _lease(self, chooser: Chooser, row: dict[str, Any]) -> Assignment:
        """Begin or prolong the lease of a row, and return the assignment."""
        expires = stamp(self.clock() + LEASE)
        values = {"state": AssignmentState.LEASED.value, "leased_at": chooser.now, "expires_at": expires}
        chooser.db.table("study_assignments").update(row["id"], values)
        item = read_item(chooser.db, row["item_id"])
        left, right = (item.second, item.first) if row["swapped"] else (item.first, item.second)
        return Assignment(
            id=row["id"],
            prompt=[] if item.prompt is None else messages_of(item.prompt),
            a=left,
            b=right,
            training=row["kind"] == AssignmentKind.TRAINING.value,
            answers=answers_of(chooser.db, row["id"]),
            comment=row["comment"],
            flagged=bool(row["flagged"]),
            kind=AssignmentKind(row["kind"]),
        )

    def _check_place(self, chooser: Chooser, row: dict[str, Any]) -> None:
        if row["state"] == AssignmentState.SKIPPED.value:
            raise RefusedError("You have skipped this pair: go on with the next one.")
        expired = row["state"] == AssignmentState.EXPIRED.value
        if expired and row["kind"] == AssignmentKind.PAIR.value and not chooser.has_room(row["item_id"]):
            minutes = int(LEASE.total_seconds() / 60)
            raise RefusedError(
                f"This pair was open for more than {minutes} minutes, and others have rated it since: go on with the "
                "next one."
            )


def own_row(chooser: Chooser, assignment_id: str) -> dict[str, Any]:
    """Return the row of an assignment of this annotator.

    Raises:
        InputError: if it is another's, or there is none.
    """
    query = "select * from study_assignments where id = ? and annotator_id = ?"
    row = next(iter(chooser.db.query(query, [assignment_id, chooser.annotator.id])), None)
    if row is None:
        raise InputError("This pair was not given to you: go on with the next one.")
    return dict(row)


def live_lease(chooser: Chooser) -> dict[str, Any] | None:
    """Return the row of what is leased to the annotator, first of all what `undo` has brought back."""
    query = (
        "select * from study_assignments where annotator_id = ? and state = 'leased' "
        "order by answered_at is null, leased_at, rowid limit 1"
    )
    row = next(iter(chooser.db.query(query, [chooser.annotator.id])), None)
    return None if row is None else dict(row)


def answers_of(db: Database, assignment_id: str) -> dict[str, str]:
    """Return {question: choice} of an assignment."""
    rows = db.execute("select question, choice from study_answers where assignment_id = ?", [assignment_id])
    return dict(rows.fetchall())


def check_open(state: StudyState, chooser: Chooser, consequence: str, paused: bool = False) -> None:
    """Raise RefusedError if a study is closed, or with `paused` if it is not open.

    What an annotator had when the study was paused is stored.
    """
    if state is StudyState.CLOSED or (paused and state is not StudyState.OPEN):
        raise RefusedError(f"The study “{chooser.settings.name}” is {state.value}: {consequence}.")


def end_attempt(chooser: Chooser) -> None:
    """Store whether the annotator has passed the training, if all its pairs are answered."""
    if chooser.training() is not None:
        return
    rows = chooser.db.query(
        "select id, item_id, swapped from study_assignments where annotator_id = :annotator and kind = 'training' "
        "and attempt = :attempt",
        {**chooser.values, "attempt": chooser.annotator.attempts},
    )
    right = [
        feedback_of(
            read_item(chooser.db, row["item_id"]), answers_of(chooser.db, row["id"]), bool(row["swapped"])
        ).right
        for row in list(rows)
    ]
    # Rounding must not fail somebody who has just enough.
    passed = sum(right) + 1e-9 >= chooser.settings.training_share * len(right)
    values = {"passed_at": chooser.now} if passed else {"attempts": min(chooser.annotator.attempts + 1, ATTEMPTS)}
    chooser.db.table("study_annotators").update(chooser.annotator.id, values)
