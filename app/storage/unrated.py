"""The store's pairs that may still be rated, so that a rating which comes after a restart of the app is not lost."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

from pydantic import TypeAdapter, ValidationError

from app.storage.database import Store
from app.storage.owners import browser_digest
from engine import Completion

KEPT = 500  # pairs
KEPT_FOR = timedelta(days=1)
COMPLETION = TypeAdapter(Completion)


class Unrated:
    """The pairs. Thread-safe. Methods raise sqlite3.Error if the database cannot be read or written."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def keep(self, run: str, browser: str, left: Completion, right: Completion, model: str) -> None:
        """Store the pair of a run until it is rated, and remove those that are old or too many.

        Args:
            run: The run's id.
            browser: Id of the browser that may rate it.
            left: The left completion.
            right: The right completion.
            model: Name of the configuration.
        """
        now = datetime.now(timezone.utc)
        row = {
            "run": run,
            "browser": browser_digest(browser),
            "model": model,
            "pair": json.dumps([COMPLETION.dump_python(one, exclude={"trace"}) for one in (left, right)]),
            "created_at": now.isoformat(timespec="milliseconds"),
        }
        with self.store.writing() as db:
            db.table("unrated").upsert(row, pk="run")
            oldest = (now - KEPT_FOR).isoformat(timespec="milliseconds")
            db.execute("delete from unrated where created_at < ?", [oldest])
            newest = "select run from unrated order by created_at desc, rowid desc limit ?"
            db.execute(f"delete from unrated where run not in ({newest})", [KEPT])

    def find(self, run: str, browser: str) -> tuple[Completion, Completion, str] | None:
        """Return (left, right, model) of a run that this browser may rate; None if there is none."""
        with self.store.reading() as db:
            values = [run, browser_digest(browser)]
            row = next(iter(db.query("select model, pair from unrated where run = ? and browser = ?", values)), None)
        if row is None:
            return None
        try:
            left, right = (COMPLETION.validate_python({**one, "trace": []}) for one in json.loads(row["pair"]))
        except (TypeError, ValueError, ValidationError):  # another version stored it
            return None
        return left, right, row["model"]
