"""Checks of the store's file: it is a database that this version can use, and is still the one that was opened."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from sqlite_utils import Database, Migrations

from app.storage.migrations import SCHEMAS, schema
from engine import InputError

log = logging.getLogger("mixdesk")

TIMEOUT = 10.0  # seconds that a connection waits for another's lock
COMPANIONS = ("-wal", "-shm", "-journal")  # the suffixes of the files that SQLite keeps beside a database
MIGRATIONS = Migrations.migrations_table
FIRST = {schema.name: {"m001_first"}}  # what every version's database has
# What to do about an error of SQLite, by a part of its message.
REMEDIES = {
    "locked": "another program is writing to it; try again",
    "is full": "make room on its disk, then try again",
    "readonly": "make the file and its folder writable, then try again",
    "malformed": "it is damaged: stop the app, copy the file, and recover it with the sqlite3 program's .recover",
    "not a database": "it is damaged: stop the app, and put a copy in its place",
    "disk I/O error": "check its disk, then try again",
    "unable to open": "check that its folder is there and writable, then try again",
}

Identity = tuple[tuple[int, int] | None, ...]
Applied = Mapping[str, set[str]]  # {name of a set of migrations: names of its migrations}


class StoreError(InputError, sqlite3.OperationalError):
    """The database cannot be read or written at the moment. The message is one line with the problem and its remedy."""


def unusable(path: Path, reason: str) -> InputError:
    """Return the error for a file that cannot be opened as the database."""
    return InputError(f"{path}: cannot use it as the database: {reason}; give another --db")


def remedy(error: sqlite3.Error) -> str:
    """Return how to mend an error of SQLite."""
    return next((text for part, text in REMEDIES.items() if part in str(error)), "try again; the log has the details")


@contextmanager
def clear_errors(path: Path, consequence: str) -> Iterator[None]:
    """Turn errors of the disk, the file and its locks into a StoreError; errors of a statement pass as they are.

    Args:
        path: The database.
        consequence: The beginning of the message, such as "Not saved".
    """
    try:
        yield
    except StoreError:
        raise
    except sqlite3.DatabaseError as error:
        if type(error) not in (sqlite3.DatabaseError, sqlite3.OperationalError):
            raise
        log.exception("%s: the database failed", path)
        raise StoreError(f"{consequence}: the database {path.name} says “{error}”; {remedy(error)}.") from error


def identity(path: Path) -> Identity:
    """Return (device, inode) of the database, its -wal and its -shm file; None for a file that is not there."""
    real = os.path.realpath(path)
    found: list[tuple[int, int] | None] = []
    for suffix in ("", "-wal", "-shm"):
        try:
            status = os.stat(real + suffix)
            found.append((status.st_dev, status.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)


def check_identity(path: Path, opened: Identity, consequence: str) -> None:
    """Raise StoreError unless the files are those that were opened: SQLite writes into a deleted file without an error.

    Args:
        path: The database.
        opened: `identity` of it when it was opened.
        consequence: The beginning of the message, such as "Not saved".
    """
    found = identity(path)
    if found == opened:
        return
    name = path.name if found[0] != opened[0] else f"a file beside {path.name} (-wal or -shm)"
    log.error("%s: it is no longer the file that was opened", path)
    raise StoreError(
        f"{consequence}: {name} was deleted, moved or replaced while the app was running; put it back, or restart the "
        "app to use the file that is there now."
    )


def connect(path: Path, options: str = "") -> Database:
    """Connect to a database file, for use by any thread. Raises sqlite3.Error.

    Args:
        path: The file.
        options: Those of an SQLite URI, such as "mode=ro".
    """
    uri = f"{path.as_uri()}?{options}"
    return Database(sqlite3.connect(uri, uri=True, timeout=TIMEOUT, check_same_thread=False))


def enable_wal(db: Database) -> None:
    """Turn the write-ahead log on, so that readers and a writer do not wait for each other. Raises sqlite3.Error."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            db.enable_wal()
            return
        except sqlite3.OperationalError as error:
            # Here SQLite itself does not wait for another process.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.01, 0.05))


def check_file(path: Path, needed: Applied | None = None) -> None:
    """Check that a file is a database of this version or an older one, without writing to it or beside it.

    A missing or an empty file passes, since it becomes a new database, unless the log of another one is beside it.

    Args:
        path: The file.
        needed: The migrations whose tables it must have; all that it records unless given.

    Raises:
        InputError: if it is not.
    """
    # The log first: where another process makes the database just now, its file is there before its log.
    log_size = bytes_in(Path(f"{os.path.realpath(path)}-wal"))
    if log_size and not bytes_in(path):
        # SQLite would delete it, with ratings that are only there.
        reason = f"it is missing or empty, but {path.name}-wal has its newest data; put it back, or move that file away"
        raise unusable(path, reason)
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from None
    if stat.S_ISDIR(status.st_mode):
        raise unusable(path, "it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise unusable(path, "it is a device or a pipe, not a file")
    if not status.st_size:
        return
    was_in_use = in_use(path)
    # Opened as immutable, a database in WAL mode is read without making files beside it.
    problem = look(path, "immutable=1", needed)
    if was_in_use or in_use(path):
        # A connection that takes part in locking sees what the log adds, and waits while another process commits.
        seen = look(path, "mode=ro", needed)
        problem = problem if isinstance(seen, sqlite3.OperationalError) else seen
    if isinstance(problem, sqlite3.Error):
        raise unusable(path, f"{problem}: it is not an SQLite database, or damaged")
    if problem:
        raise problem


def bytes_in(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it cannot be found."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def in_use(path: Path) -> bool:
    """Return whether there are files beside a database that SQLite keeps while it is used, or after a crash."""
    real = os.path.realpath(path)
    return any(os.path.exists(real + suffix) for suffix in COMPANIONS)


def look(path: Path, options: str, needed: Applied | None) -> InputError | sqlite3.Error | None:
    """Return what is wrong with a database as a connection with these options sees it, or None."""
    try:
        with closing(connect(path, options)) as db:
            check_schema(db, path, needed)
    except (InputError, sqlite3.Error) as error:
        return error
    return None


def foreign(path: Path, holds: str) -> InputError:
    """Return the error for another program's database."""
    return InputError(
        f"{path}: cannot use it as the database: it is another program's, with {holds} and no ratings of Mixdesk; give "
        "--db a database that Mixdesk made, or a new file"
    )


def check_schema(db: Database, path: Path, needed: Applied | None = None) -> None:
    """Check that a database is empty, or has the tables and columns of the migrations that it records.

    Args:
        db: A connection.
        path: The file, for messages.
        needed: The migrations whose tables it must have; all that it records unless given.

    Raises:
        InputError: if another program or a newer version made it, or a table or a column is missing or has another
            type.
    """
    tables = [name for name in db.table_names() if not name.startswith("sqlite_")]
    recorded = applied_of(db) if MIGRATIONS in tables else {}
    if not recorded.get(schema.name):
        if others := [name for name in tables if name != MIGRATIONS] or sorted(recorded):
            raise foreign(path, f"the tables {', '.join(others[:5])}")
        if number := db.execute("PRAGMA application_id").fetchone()[0]:
            raise foreign(path, f"the application id {number}")
        return
    for migrations in SCHEMAS:
        if newer := recorded.get(migrations.name, set()) - names_of(migrations):
            raise InputError(
                f"{path}: cannot use it as the database: a newer version of Mixdesk changed it ({min(newer)}); "
                "update Mixdesk, or give another --db"
            )
    for table, columns in columns_after(recorded if needed is None else needed).items():
        found = column_types(db, table) if table in tables else {}
        if wrong := [name for name, kind in columns.items() if found.get(name) != kind]:
            what = f"its table {table} " + (
                f"lacks the column {wrong[0]}, or has it with another type" if found else "is missing"
            )
            raise InputError(
                f"{path}: cannot use it as the database: {what}, so another program changed it; put a copy in its "
                "place, or give another --db"
            )


def applied_of(db: Database) -> Applied:
    """Return the migrations that a database records; nothing if its list of them is another program's."""
    if not {"migration_set", "name"} <= column_types(db, MIGRATIONS).keys():
        return {}
    found: dict[str, set[str]] = {}
    for row in db.query(f"select migration_set, name from {MIGRATIONS}"):
        found.setdefault(row["migration_set"], set()).add(row["name"])
    return found


def columns_after(applied: Applied) -> dict[str, dict[str, str]]:
    """Return {table: {column: type}} of a database with these migrations."""
    with closing(Database(memory=True)) as db:
        for migrations in SCHEMAS:
            migrations.ensure_migrations_table(db)
            skipped = names_of(migrations) - applied.get(migrations.name, set())
            rows = [{"migration_set": migrations.name, "name": name, "applied_at": ""} for name in skipped]
            db.table(MIGRATIONS).insert_all(rows)
            migrations.apply(db)
        return {name: column_types(db, name) for name in db.table_names() if name != MIGRATIONS}


def names_of(migrations: Migrations) -> set[str]:
    """Return the names of all migrations of a set."""
    with closing(Database(memory=True)) as db:
        return {migration.name for migration in migrations.pending(db)}


def column_types(db: Database, table: str) -> dict[str, str]:
    """Return {column: type} of a table of a database."""
    return {column.name: column.type for column in db.table(table).columns}
