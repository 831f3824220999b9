"""Mixtures kept under a name, in the store: one list for all who use this desk."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timezone

from pydantic import ValidationError

from app.schemas.desk_state import MixtureSettings
from app.storage.database import Store
from engine import InputError

LONGEST = 100  # characters of a name


class SavedMixtures:
    """Save, load, delete. Thread-safe. Raises sqlite3.Error where the database cannot be written."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def names(self) -> list[str]:
        """In the order of the alphabet, as far as Unicode has one."""
        with self.store.held() as db:
            rows = [row["name"] for row in db.query("select name from saved_mixtures")]
        return sorted(rows, key=lambda name: (name.casefold(), name))

    def save(self, name: str | None, settings: MixtureSettings, replace: bool = False) -> str:
        """The name as it is kept. Raises InputError for a bad name, TakenError for that of another."""
        name = clean(name)
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        row = {"name": name, "settings": settings.model_dump_json(), "saved_at": now}
        with self.store.held(write=True) as db:
            table = db.table("saved_mixtures")
            if not replace and table.count_where("name = ?", [name]):
                raise TakenError(name)
            table.upsert(row, pk="name")
        return name

    def load(self, name: str | None) -> MixtureSettings:
        """Raises InputError."""
        with self.store.held() as db:
            rows = db.query("select settings from saved_mixtures where name = ?", [name or ""])
            row = next(iter(rows), None)
        if row is None:
            raise InputError(unknown(name))
        try:
            return MixtureSettings.model_validate_json(row["settings"])
        except ValidationError:
            raise InputError(f"“{name}” was saved by another version of Mixdesk, and cannot be read here.") from None

    def delete(self, name: str | None) -> None:
        """Raises InputError if there is none."""
        with self.store.held(write=True) as db:
            found = db.execute("delete from saved_mixtures where name = ?", [name or ""])
            if not found.rowcount:
                raise InputError(unknown(name))


class TakenError(InputError):
    """There is a mixture of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a mixture “{name}” already.")
        self.name = name


def unknown(name: str | None) -> str:
    """Return the message for a name without a saved mixture."""
    return f"There is no saved mixture “{name}” any more." if name else "Choose a saved mixture first."


def clean(name: str | None) -> str:
    """A name as it is kept: trimmed, and composed, so that what looks the same is the same. Raises InputError."""
    name = unicodedata.normalize("NFC", name or "").strip()
    kinds = [unicodedata.category(character) for character in name]
    if not any(kind[0] not in "CZ" for kind in kinds):
        raise InputError("name: it is empty; type 1 to 100 characters")
    if len(name) > LONGEST:
        raise InputError(f"name: it is {len(name):,} characters long; type 1 to {LONGEST}")
    if {"Cc", "Cs", "Zl", "Zp"} & set(kinds):
        raise InputError("name: it holds a control character or a line break; type it again")
    return name
