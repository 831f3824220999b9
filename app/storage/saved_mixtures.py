"""Mixtures saved under a name in the store, one list for all users of the desk."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timezone

from pydantic import ValidationError

from app.schemas.desk_state import MixtureState
from app.storage.database import Store
from engine import InputError

LONGEST = 100  # characters of a name


class SavedMixtures:
    """The saved mixtures. Thread-safe. Methods raise sqlite3.Error if the database cannot be written."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def names(self) -> list[str]:
        """Return the names, sorted case-insensitively."""
        with self.store.held() as db:
            rows = [row["name"] for row in db.query("select name from saved_mixtures")]
        return sorted(rows, key=lambda name: (name.casefold(), name))

    def save(self, name: str | None, mixture: MixtureState, replace: bool = False) -> str:
        """Save a mixture under a name, and return the name as stored.

        Raises:
            InputError: if the name is invalid.
            TakenError: if it exists and `replace` is false.
        """
        name = clean(name)
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        row = {"name": name, "settings": mixture.model_dump_json(), "saved_at": now}
        with self.store.held(write=True) as db:
            table = db.table("saved_mixtures")
            if not replace and table.count_where("name = ?", [name]):
                raise TakenError(name)
            table.upsert(row, pk="name")
        return name

    def load(self, name: str | None) -> MixtureState:
        """Return the mixture saved under a name.

        Raises:
            InputError: if there are none, or another version of Mixdesk saved them.
        """
        with self.store.held() as db:
            rows = db.query("select settings from saved_mixtures where name = ?", [name or ""])
            row = next(iter(rows), None)
        if row is None:
            raise InputError(unknown(name))
        try:
            return MixtureState.model_validate_json(row["settings"])
        except ValidationError:
            raise InputError(f"“{name}” was saved by another version of Mixdesk, and cannot be read here.") from None

    def delete(self, name: str | None) -> None:
        """Delete a saved mixture.

        Raises:
            InputError: if there is none of this name.
        """
        with self.store.held(write=True) as db:
            found = db.execute("delete from saved_mixtures where name = ?", [name or ""])
            if not found.rowcount:
                raise InputError(unknown(name))


class TakenError(InputError):
    """A mixture of that name exists."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a mixture “{name}” already.")
        self.name = name


def unknown(name: str | None) -> str:
    """Return the message for a missing name."""
    return f"There is no saved mixture “{name}” any more." if name else "Choose a saved mixture first."


def clean(name: str | None) -> str:
    """Return a name as it is stored: trimmed, and composed (NFC), so that names that look the same are the same.

    Raises:
        InputError: if it is empty, too long, or holds control characters.
    """
    name = unicodedata.normalize("NFC", name or "").strip()
    kinds = [unicodedata.category(character) for character in name]
    if not any(kind[0] not in "CZ" for kind in kinds):
        raise InputError("name: it is empty; type 1 to 100 characters")
    if len(name) > LONGEST:
        raise InputError(f"name: it is {len(name):,} characters long; type 1 to {LONGEST}")
    if {"Cc", "Cs", "Zl", "Zp"} & set(kinds):
        raise InputError("name: it holds a control character or a line break; type it again")
    return name
