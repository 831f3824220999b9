"""The people of studies, as an owner sees them: invitations and annotators."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from app.storage.database import Store
from app.storage.study_rows import COUNTS, Clock, end_leases, new_id, secret_digest, stamp, study_row, utc_now
from engine import InputError
from engine.names import check_label


@dataclass(frozen=True)
class InvitationEntry:
    """One invitation. `annotator`: the id of who joined by it, or None; `most`: their most pairs, None as all have."""

    id: str
    name: str
    most: int | None
    annotator: str | None
    created_at: str
    revoked_at: str | None


@dataclass(frozen=True)
class AnnotatorEntry:
    """One annotator. `answered` counts pairs, not training, gold or repeats; `attempts`, failed ones at training."""

    id: str
    name: str
    joined_by: str
    invitation_id: str | None
    attempts: int
    passed_at: str | None
    created_at: str
    answered: int
    skipped: int
    flagged: int
    last_at: str | None


class StudyPeople:
    """Invitations and annotators of a store's studies. Thread-safe, like the store."""

    def __init__(self, store: Store, clock: Clock = utc_now) -> None:
        self.store, self.clock = store, clock

    def invite(self, study_id: str, name: str, most: int | None = None) -> tuple[str, str]:
        """Make an invitation for one person, and return its id and its secret, of which only a digest is stored.

        Whoever opens the link is the same annotator, on any device.

        Args:
            study_id: The study.
            name: The person's name; "" lets them give it.
            most: Number of pairs that this person may rate; None is as many as the settings say.

        Raises:
            InputError: if the name or the number is invalid.
        """
        name = check_person(name)
        if most is not None and most < 1:
            raise InputError(f"invitation: found {most}; give 1 or more pairs, or none for as many as the settings say")
        invitation, secret = new_id(), secrets.token_urlsafe(18)
        row = {
            "id": invitation,
            "study_id": study_id,
            "digest": secret_digest(secret),
            "name": name,
            "most": most,
            "created_at": stamp(self.clock()),
            "revoked_at": None,
        }
        with self.store.writing() as db:
            study_row(db, study_id)
            db.table("study_invitations").insert(row)
        return invitation, secret

    def invitations(self, study_id: str) -> list[InvitationEntry]:
        """Return a study's invitations, the oldest first."""
        with self.store.reading() as db:
            study_row(db, study_id)
            rows = db.query(
                "select i.id, i.name, i.most, i.created_at, i.revoked_at, (select id from study_annotators "
                "where invitation_id = i.id) as annotator from study_invitations i where study_id = ? "
                "order by i.created_at, i.rowid",
                [study_id],
            )
            return [InvitationEntry(**row) for row in rows]

    def revoke(self, invitation_id: str) -> None:
        """Revoke an invitation: its annotator is let in no more and gives a leased pair back. Answers stay.

        Raises:
            InputError: if there is no such invitation.
        """
        with self.store.writing() as db:
            if not db.table("study_invitations").count_where("id = ?", [invitation_id]):
                raise InputError("This invitation was deleted. Choose another.")
            now = stamp(self.clock())
            values = [now, invitation_id]
            db.execute("update study_invitations set revoked_at = coalesce(revoked_at, ?) where id = ?", values)
            people = "annotator_id in (select id from study_annotators where invitation_id = :invitation)"
            end_leases(db, people, {"invitation": invitation_id})
            db.execute(f"delete from study_sessions where {people}", {"invitation": invitation_id})

    def annotators(self, study_id: str) -> list[AnnotatorEntry]:
        """Return a study's annotators, the oldest first."""
        with self.store.reading() as db:
            study_row(db, study_id)
            rows = db.query(
                "select p.id, p.name, p.joined_by, p.invitation_id, p.attempts, p.passed_at, p.created_at, "
                f"count(case when a.kind = 'pair' and {COUNTS} then 1 end) as answered, "
                "count(case when a.state = 'skipped' then 1 end) as skipped, coalesce(sum(a.flagged), 0) as flagged, "
                "max(a.answered_at) as last_at from study_annotators p "
                "left join study_assignments a on a.annotator_id = p.id where p.study_id = ? "
                "group by p.id order by p.created_at, p.rowid",
                [study_id],
            )
            return [AnnotatorEntry(**row) for row in rows]


def check_person(name: str) -> str:
    """Return a person's name without spaces around it; "" is a name, too.

    Raises:
        InputError: if it is too long, or has characters that cannot be seen.
    """
    try:
        return check_label(name.strip()) if name.strip() else ""
    except ValueError as error:
        raise InputError(f"name: give {error}") from None
