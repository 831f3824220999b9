"""Parts of the studies' tables that several modules use: ids, times, a study's row, and the end of leases."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from sqlite_utils import Database

from app.schemas.study import AssignmentState
from engine import InputError

Clock = Callable[[], datetime]

# Of an assignment `a`, whether its answers count: it is answered, or `undo` has leased it and that lease has expired,
# which is written down only when somebody next acts in the study. The format of the time is that of `stamp`.
COUNTS = (
    "(a.state = 'answered' or a.state = 'leased' and a.answered_at is not null "
    "and a.expires_at <= strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))"
)
# The systems of a study in order, with their mixtures, whose columns are null for imported systems.
SYSTEMS = (
    "select s.name, m.weights, m.rule, m.gain, m.exponent from study_systems s "
    "left join mixtures m on m.id = s.mixture_id where s.study_id = ? order by s.place"
)


class UnknownStudyError(InputError):
    """There is no study with this id, or none that annotators may see."""

    def __init__(self) -> None:
        super().__init__("There is no such study here: check the link, or ask whoever sent it for another.")


def utc_now() -> datetime:
    """Return the current UTC time."""
    return datetime.now(timezone.utc)


def stamp(moment: datetime) -> str:
    """Return a UTC time as the tables have it: of two, the later one is the greater text."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")


def new_id() -> str:
    """Return an id that cannot be guessed."""
    return secrets.token_urlsafe(12)


def secret_digest(secret: str) -> str:
    """Return what is stored of a secret, so that a copy of the database lets nobody in."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def study_row(db: Database, study_id: str) -> dict[str, Any]:
    """Return a study's row.

    Raises:
        UnknownStudyError: if there is none with this id.
    """
    row = next(iter(db.query("select * from studies where id = ?", [study_id])), None)
    if row is None:
        raise UnknownStudyError
    return row


def end_leases(db: Database, condition: str, values: dict[str, Any]) -> None:
    """End the leases for which a condition holds, within the caller's transaction.

    A lease that `undo` began ends with the answer that was there before; any other one gives the place back.

    Args:
        db: The database.
        condition: SQL on the columns of study_assignments.
        values: Its named values.
    """
    values = {"leased": AssignmentState.LEASED.value, **values}
    if (
        db.execute(f"select 1 from study_assignments where state = :leased and {condition} limit 1", values).fetchone()
        is None
    ):
        return
    db.execute(
        "update study_assignments set state = case when answered_at is null then :expired else :answered end "
        f"where state = :leased and {condition}",
        {
            "expired": AssignmentState.EXPIRED.value,
            "answered": AssignmentState.ANSWERED.value,
            **values,
        },
    )
