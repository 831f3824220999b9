"""The annotators of a study, as they come in: by an invitation, anonymously, or by a sign-in; and their sessions."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from app.schemas.study import StudySettings, StudyState
from app.storage.database import Store
from app.storage.study_people import check_person
from app.storage.study_rows import Clock, UnknownStudyError, new_id, secret_digest, stamp, study_row, utc_now
from engine import InputError

MAX_ANNOTATORS = 10_000  # of a study
SESSIONS = 20  # browsers in which one annotator can be at once; the oldest is forgotten


@dataclass(frozen=True)
class Annotator:
    """An annotator of a study.

    Attributes:
        id: Random id; a pseudonym in exports.
        study_id: The study.
        name: The name that they gave, or that their invitation has.
        attempts: Attempts at the training that failed.
        read: Whether they have read the guidelines.
        passed: Whether they have passed the training.
        most: Number of pairs that they may rate, by their invitation; None is as many as the settings say.
    """

    id: str
    study_id: str
    name: str
    attempts: int
    read: bool
    passed: bool
    most: int | None


class Annotators:
    """The annotators of a store's studies. Thread-safe, like the store."""

    def __init__(self, store: Store, clock: Clock = utc_now) -> None:
        self.store, self.clock = store, clock

    def join(
        self, study_id: str, *, key: str, name: str = "", joined_by: str, invitation_id: str | None = None
    ) -> Annotator:
        """Return the study's annotator with this key, added if there is none.

        Args:
            study_id: The study.
            key: Names the person within the study, whatever device they use.
            name: Their name; "" is none. Ignored if they have joined before.
            joined_by: "invitation", "anonymous" or "sign-in".
            invitation_id: The invitation that let them in.

        Raises:
            InputError: if there is no such study, it lets nobody in any more, or the name is invalid.
        """
        name, now = check_person(name), stamp(self.clock())
        with self.store.writing() as db:
            study = study_row(db, study_id)
            check_visible(study)
            if study["state"] == StudyState.CLOSED.value:
                raise InputError(f"The study “{study['name']}” is closed: it takes no more answers. Thank you.")
            found = next(iter(db.query(f"{PEOPLE} where p.study_id = ? and p.key = ?", [study_id, key])), None)
            if found is not None:
                return annotator_of(found)
            if db.table("study_annotators").count_where("study_id = ?", [study_id]) >= MAX_ANNOTATORS:
                raise InputError(f"{MAX_ANNOTATORS:,} people take part in this study, which is the most.")
            # Without guidelines there is nothing to read.
            guidelines = StudySettings.model_validate_json(study["settings"]).guidelines.strip()
            annotator_id = new_id()
            row = {
                "id": annotator_id,
                "study_id": study_id,
                "name": name,
                "joined_by": joined_by,
                "invitation_id": invitation_id,
                "key": key,
                "attempts": 0,
                "read_at": None if guidelines else now,
                "passed_at": None,
                "created_at": now,
            }
            db.table("study_annotators").insert(row)
            return annotator_row(db, study_id, annotator_id)

    def join_by_invitation(self, study_id: str, secret: str, name: str = "") -> Annotator | None:
        """Return the annotator whom an invitation's secret lets in; None if it is no secret of this study's.

        Raises:
            InputError: as `join`.
        """
        with self.store.reading() as db:
            check_visible(study_row(db, study_id))
            query = "select id, name from study_invitations where study_id = ? and digest = ? and revoked_at is null"
            found = next(iter(db.query(query, [study_id, secret_digest(secret)])), None)
        if found is None:
            return None
        return self.join(
            study_id,
            key=f"invitation:{found['id']}",
            name=found["name"] or name,
            joined_by="invitation",
            invitation_id=found["id"],
        )

    def join_anonymously(self, study_id: str, name: str = "") -> Annotator:
        """Add an annotator who has no invitation.

        Raises:
            InputError: as `join`, or if the study takes only invited people.
        """
        with self.store.reading() as db:
            study = study_row(db, study_id)
            check_visible(study)
            if not StudySettings.model_validate_json(study["settings"]).anonymous:
                raise InputError("This study takes invited people only: open the whole link of your invitation.")
        return self.join(study_id, key=f"anonymous:{new_id()}", name=name, joined_by="anonymous")

    def join_by_sign_in(self, study_id: str, key: str, name: str) -> Annotator:
        """Return the annotator whom an account is, added if they have not joined before.

        Args:
            study_id: The study.
            key: Names the account for all time, such as "hf:" and its number.
            name: The account's name.

        Raises:
            InputError: as `join`, or if the study does not take people who sign in.
        """
        with self.store.reading() as db:
            study = study_row(db, study_id)
            check_visible(study)
            if not StudySettings.model_validate_json(study["settings"]).sign_in:
                raise InputError("Signing in does not let you into this study: open the whole link of your invitation.")
        return self.join(study_id, key=key, name=name, joined_by="sign-in")

    def open_session(self, annotator_id: str) -> str:
        """Return a new secret by which a browser is an annotator's; only a digest of it is stored."""
        secret = secrets.token_urlsafe(24)
        row = {"digest": secret_digest(secret), "annotator_id": annotator_id, "created_at": stamp(self.clock())}
        with self.store.writing() as db:
            db.table("study_sessions").insert(row)
            newest = "select digest from study_sessions where annotator_id = :id order by created_at desc, rowid desc"
            db.execute(
                f"delete from study_sessions where annotator_id = :id and digest not in ({newest} limit :most)",
                {"id": annotator_id, "most": SESSIONS},
            )
        return secret

    def find(self, study_id: str, secret: str) -> Annotator | None:
        """Return the annotator of a study whose browser has this secret, or None."""
        if not secret:
            return None
        with self.store.reading() as db:
            query = f"{PEOPLE} join study_sessions s on s.annotator_id = p.id where p.study_id = ? and s.digest = ?"
            row = next(iter(db.query(query, [study_id, secret_digest(secret)])), None)
            return None if row is None else annotator_of(row)

    def mark_read(self, study_id: str, annotator_id: str) -> None:
        """Store that an annotator has read the guidelines."""
        with self.store.writing() as db:
            annotator_row(db, study_id, annotator_id)
            db.execute(
                "update study_annotators set read_at = coalesce(read_at, ?) where id = ?",
                [stamp(self.clock()), annotator_id],
            )


PEOPLE = (
    "select p.id, p.study_id, p.name, p.attempts, p.read_at, p.passed_at, i.most from study_annotators p "
    "left join study_invitations i on i.id = p.invitation_id"
)


def annotator_of(row: dict[str, Any]) -> Annotator:
    """Return the annotator of a row of `PEOPLE`."""
    read, passed = row["read_at"] is not None, row["passed_at"] is not None
    kept = ("id", "study_id", "name", "attempts", "most")
    return Annotator(**{key: row[key] for key in kept}, read=read, passed=passed)


def annotator_row(db: Database, study_id: str, annotator_id: str) -> Annotator:
    """Return an annotator of a study.

    Raises:
        InputError: if there is none with this id.
    """
    query = f"{PEOPLE} where p.id = ? and p.study_id = ?"
    row = next(iter(db.query(query, [annotator_id, study_id])), None)
    if row is None:
        raise InputError("You have not joined this study: open the whole link of your invitation.")
    return annotator_of(row)


def check_visible(study: dict[str, Any]) -> None:
    """Raise UnknownStudyError if a study's row is of a draft, which annotators cannot tell from none."""
    if study["state"] == StudyState.DRAFT.value:
        raise UnknownStudyError
