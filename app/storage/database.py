"""The store: ratings and the rated completions, in one SQLite file."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from app.storage.database_file import (
    FIRST,
    check_file,
    check_identity,
    check_schema,
    clear_errors,
    connect,
    enable_wal,
    identity,
    in_use,
    unusable,
)
from app.storage.migrations import SCHEMAS
from app.storage.sampling_columns import sampling_columns, stored_sampling
from engine import Completion, InputError, Mixture
from engine.messages import Prompt, last_of, messages_of
from engine.rewards.missing import Rewards, finite

CHOICES = ("left", "right", "tie", "both_bad")
IDLE = 4  # reading connections that are kept for later


class Store:
    """The ratings in an SQLite file, created if it is missing.

    Thread-safe: one connection and one lock for writing, and a connection for each reading at a time, so that reading
    does not wait for a write.

    Raises:
        InputError: if the file cannot be opened or written, or is not a database of this version or an older one; it is
            left as it was then.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self._lock = threading.Lock()
        self._idle: list[Database] = []  # reading connections
        self._open = True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path}: cannot make its folder: {error.strerror}; give another --db") from None
        check_file(self.path)
        try:
            self.db = connect(self.path)
        except sqlite3.Error as error:
            raise unusable(self.path, str(error)) from None
        try:
            enable_wal(self.db)
            # With FULL every commit is on the disk before it returns: a confirmed rating survives a power cut.
            self.db.execute("PRAGMA synchronous = FULL")
            self.db.execute("PRAGMA foreign_keys = ON")
            if any(migrations.pending(self.db) for migrations in SCHEMAS):
                self._migrate()
        except sqlite3.Error as error:
            self.db.close()
            raise unusable(self.path, str(error)) from None
        except BaseException:
            self.db.close()
            raise
        self._identity = identity(self.path)

    def _migrate(self) -> None:
        # One transaction: another process that opens the file at the same time waits, and then has nothing to do.
        with Transaction(self.db.conn):
            check_schema(self.db, self.path)
            for migrations in SCHEMAS:
                migrations.apply(self.db)

    def rate(
        self,
        rating_id: str,
        left: Completion,
        right: Completion,
        choice: str,
        annotator: str,
        objective: str | None = None,
        model: str = "",
        run: str = "",
    ) -> bool:
        """Store a rating with both completions and their rewards in one transaction, committed on return.

        Args:
            rating_id: Made by the client, so that a rating sent twice is stored once.
            left: The left completion.
            right: The right completion, of the same prompt.
            choice: One of `CHOICES`.
            annotator: The annotator's id.
            objective: The rated objective; None is overall.
            model: Name of the configuration that generated the completions.
            run: Id of the run whose kept pair is removed (app/storage/unrated.py).

        Returns:
            Whether the rating is new.

        Raises:
            InputError: if an argument is invalid.
        """
        if choice not in CHOICES:
            raise InputError(f"choice: found '{choice}'; give one of {', '.join(CHOICES)}")
        for what, value in (("rating id", rating_id), ("annotator", annotator)):
            if not isinstance(value, str) or not re.fullmatch(r"[\w.@-]{1,100}", value):
                raise InputError(f"{what}: found {str(value)[:40]!r}; give 1 to 100 letters, digits, or any of _ . @ -")
        if left.prompt != right.prompt:
            raise InputError("rating: the two responses answer different prompts; rate two of one prompt")
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with self.writing():
            if self.db.table("ratings").count_where("id = ?", [rating_id]):
                return False
            self.db.execute("delete from unrated where run = ?", [run])
            self.db.table("annotators").insert({"id": annotator, "created_at": now}, ignore=True)
            self.db.table("ratings").insert(
                {
                    "id": rating_id,
                    "left_id": self.insert(left, model, now),
                    "right_id": self.insert(right, model, now),
                    "choice": choice,
                    "objective": objective,
                    "annotator_id": annotator,
                    "created_at": now,
                }
            )
            return True

    def completion(self, completion_id: int) -> dict[str, Any]:
        """Return a completion like its `as_dict()` without log_normaliser, plus id, model and created_at.

        Raises:
            InputError: if there is none with this id.
        """
        with self.reading() as db:
            return read_completion(db, completion_id)

    def pairs(self) -> Iterator[dict[str, Any]]:
        """Yield every rating, oldest first, with both completions in full."""
        with self.reading() as db:
            rows = list(read_pairs(db))
        yield from rows

    def pair(self, rating_id: str) -> dict[str, Any]:
        """Return a rating with both completions in full.

        Raises:
            InputError: if there is none with this id.
        """
        with self.reading() as db:
            found = next(read_pairs(db, rating_id), None)
        if found is None:
            raise InputError(f"rating: there is none with id {rating_id}")
        return found

    @contextmanager
    def held(self, write: bool = False) -> Iterator[Database]:
        """Hold a connection for reading; with `write`, the one for writing, within a transaction."""
        with self.writing() if write else self.reading() as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[Database]:
        """Hold the database within a transaction, for modules with their own tables in this file.

        Raises:
            StoreError: if the file cannot be written, or is no longer the one that was opened.
        """
        with self._lock, clear_errors(self.path, "Not saved"):
            check_identity(self.path, self._identity, "Not saved")
            with Transaction(self.db.conn):
                yield self.db
            # A file that was replaced meanwhile has not what was committed.
            check_identity(self.path, self._identity, "Not saved")

    @contextmanager
    def reading(self) -> Iterator[Database]:
        """Hold a connection for reading that sees the database as it is now, whatever is written meanwhile.

        Raises:
            StoreError: if the file cannot be read, or is no longer the one that was opened.
        """
        with clear_errors(self.path, "Not read"):
            check_identity(self.path, self._identity, "Not read")
            db = self._reader()
            try:
                db.execute("BEGIN")
                yield db
                db.execute("COMMIT")
            except BaseException:
                db.close()
                raise
            self._put_back(db)

    def _reader(self) -> Database:
        if not self._open:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self.path, "mode=ro")

    def _put_back(self, db: Database) -> None:
        if self._open and len(self._idle) < IDLE:
            self._idle.append(db)
        else:
            db.close()

    def close(self) -> None:
        """Close the connections."""
        self._open = False
        with self._lock:
            # The writing connection last, since only it can remove the files beside the database.
            while self._idle:
                self._idle.pop().close()
            self.db.close()

    def insert(self, completion: Completion, model: str, now: str) -> int:
        """Insert a completion and its rewards within the caller's transaction, and return its id."""
        row = {
            "prompt_id": prompt_id(self.db, completion.prompt),
            "mixture_id": mixture_id(self.db, completion.mixture),
            "model": model,
            "seed": completion.seed,
            **sampling_columns(completion.sampling),
            "tokens": json.dumps(completion.tokens),
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "steered": json.dumps(completion.as_dict()["steered"], ensure_ascii=False),
            "begins_with": completion.prefix_length,
            "date": completion.date,
            "created_at": now,
        }
        completion_id: Any = self.db.table("completions").insert(row).last_pk
        put_rewards(self.db, int(completion_id), completion.rewards, completion.missing_rewards)
        return int(completion_id)


def put_rewards(db: Database, completion_id: int, rewards: Mapping[str, float], missing: Mapping[str, str]) -> None:
    """Add rewards and reasons to a completion within the caller's transaction; a new reward removes its reason.

    A reward that is not a finite number is missing, for that reason.
    """
    stored = Rewards(missing=missing)
    for objective, value in rewards.items():
        stored.put(objective, finite(value))
    db.conn.executemany(
        "insert or replace into rewards (completion_id, objective, value) values (?, ?, ?)",
        [(completion_id, objective, value) for objective, value in stored.items()],
    )
    db.conn.executemany(
        "delete from missing_rewards where completion_id = ? and objective = ?",
        [(completion_id, objective) for objective in stored],
    )
    db.conn.executemany(
        "insert or replace into missing_rewards (completion_id, objective, reason) values (?, ?, ?)",
        [(completion_id, objective, reason) for objective, reason in stored.missing.items()],
    )


def prompt_id(db: Database, prompt: Prompt) -> int:
    """Return the id of the prompt's row, inserted if it is missing."""
    messages = [] if isinstance(prompt, str) else messages_of(prompt)
    row = {"text": last_of(prompt), "messages": json.dumps(messages, sort_keys=True, ensure_ascii=False)}
    found: Any = db.table("prompts").lookup(row)
    return int(found)


def mixture_id(db: Database, mixture: Mixture) -> int:
    """Return the id of the mixture's row, inserted if it is missing."""
    weights = json.dumps(mixture.weights, sort_keys=True, ensure_ascii=False)
    found: Any = db.table("mixtures").lookup({**mixture.as_dict(), "weights": weights})
    return int(found)


def stored_mixture(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a mixture as plain values from a row that has the columns of its own, after this prefix."""
    rest = {name: row[f"{prefix}{name}"] for name in ("rule", "gain", "exponent")}
    return {"weights": json.loads(row[f"{prefix}weights"]), **rest}


class Transaction:
    """A transaction that takes the write lock at its start (BEGIN IMMEDIATE), where it can wait for other processes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __enter__(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self.connection.execute("COMMIT")
                return
            except BaseException:
                self._rollback()
                raise
        self._rollback()

    def _rollback(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")


def open_to_read(path: str | Path) -> Database:
    """Open an existing store for reading, even while an app writes to it. Older versions' databases stay as they are.

    Raises:
        InputError: if the file is missing, or not a database of this version of Mixdesk's or an older one.
    """
    path = Path(path).expanduser().absolute()
    if not path.is_file():
        raise InputError(f"{path}: no such database; give --db the file that the app was started with")
    check_file(path, FIRST)
    try:
        db = connect(path, reading_options(path))
        db.execute("PRAGMA query_only = ON")
        if not db.table("ratings").exists():
            raise InputError(f"{path}: it holds no ratings table; give --db a database that Mixdesk made")
    except sqlite3.Error as error:
        raise InputError(f"{path}: cannot read it as a database: {error}") from None
    return db


def reading_options(path: Path) -> str:
    """Return how to connect to a database for reading, as options of an SQLite URI."""
    if os.access(Path(os.path.realpath(path)).parent, os.W_OK):
        # With mode=ro, SQLite would leave its -wal and -shm files behind.
        return "mode=rw"
    # In a folder that cannot be written SQLite cannot make these files, and without them it refuses to read.
    return "mode=ro" if in_use(path) else "immutable=1"


def read_pairs(db: Database, rating_id: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the ratings, oldest first, with both completions in full; or only the one with this id."""
    where, arguments = (None, []) if rating_id is None else ("id = ?", [rating_id])
    for row in db.table("ratings").rows_where(where, arguments, order_by="created_at, rowid"):
        left, right = read_completion(db, row["left_id"]), read_completion(db, row["right_id"])
        yield {
            "id": row["id"],
            "prompt": left["prompt"],
            "choice": row["choice"],
            "objective": row["objective"],
            "annotator": row["annotator_id"],
            "created_at": row["created_at"],
            "left": left,
            "right": right,
        }


def read_completion(db: Database, completion_id: int) -> dict[str, Any]:
    """Return a completion in full, as `Store.completion` does.

    Raises:
        InputError: if there is none with this id.
    """
    rows = db.query(
        "select c.*, m.weights, m.rule, m.gain, m.exponent from completions c "
        "join mixtures m on m.id = c.mixture_id where c.id = ?",
        [completion_id],
    )
    row = next(iter(rows), None)
    if row is None:
        raise InputError(f"completion: there is none with id {completion_id}")
    prompt = next(iter(db.query("select * from prompts where id = ?", [row["prompt_id"]])))
    rewards = db.table("rewards").rows_where("completion_id = ?", [completion_id], order_by="rowid")
    missing = db.table("missing_rewards")
    reasons = missing.rows_where("completion_id = ?", [completion_id], order_by="rowid") if missing.exists() else []
    return {
        "id": row["id"],
        "model": row["model"],
        "prompt": json.loads(prompt.get("messages", "[]")) or prompt["text"],
        "text": row["text"],
        "tokens": json.loads(row["tokens"]),
        "mixture": stored_mixture(row),
        "sampling": stored_sampling(row),
        "seed": row["seed"],
        "finish_reason": row["finish_reason"],
        "rewards": {reward["objective"]: reward["value"] for reward in rewards},
        "missing_rewards": {row["objective"]: row["reason"] for row in reasons},
        "steered": json.loads(row.get("steered", "{}")),
        "begins_with": row.get("begins_with", 0),
        "date": row.get("date", ""),
        "created_at": row["created_at"],
    }
