"""The store's table of who made what: browsers, by a digest of their ids."""

from __future__ import annotations

import hashlib

from app.storage.database import Store


class Owners:
    """The browsers that made the things of one kind, such as comparisons. Thread-safe."""

    def __init__(self, store: Store, kind: str) -> None:
        self.store, self.kind = store, kind

    def record(self, key: object, browser: str) -> None:
        """Store which browser made a thing; a client without an id ("") makes things that only the owner changes."""
        with self.store.writing() as db:
            row = {"kind": self.kind, "key": str(key), "browser": browser_digest(browser)}
            db.table("owners").upsert(row, pk=("kind", "key"))

    def made(self, key: object, browser: str) -> bool:
        """Return whether this browser made the thing. Nobody is known to have made those of earlier versions."""
        if not browser:
            return False
        with self.store.reading() as db:
            values = [self.kind, str(key), browser_digest(browser)]
            return bool(db.table("owners").count_where("kind = ? and key = ? and browser = ?", values))

    def forget(self, key: object) -> None:
        """Remove a deleted thing."""
        with self.store.writing() as db:
            db.execute("delete from owners where kind = ? and key = ?", [self.kind, str(key)])


def browser_digest(browser: str) -> str:
    """Return what is stored of a browser's id, so that a copy of the database opens nobody's session."""
    return hashlib.sha256(browser.encode()).hexdigest() if browser else ""
