"""Snapshots of the database in a folder that stays, such as a storage bucket that is mounted in a Hugging Face Space.

SQLite needs locks and memory maps that a mounted bucket does not have, so the database itself is on the local disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from engine import InputError

log = logging.getLogger("mixdesk")

# Its number, and a digest of its content: a part of one, which a process that was killed left behind, is recognised.
NAME = re.compile(r"mixdesk-(\d{8})-([0-9a-f]{16})\.db")
KEPT = 3  # the newest; the others are deleted
LOOK = 2.0  # seconds between two looks whether the database has changed
SHARE = 20  # a snapshot that takes a second is followed by 20 without one
STOP = 20.0  # seconds that the end waits for the last one


class Snapshots:
    """Writes a snapshot of a database a few seconds after it has changed, and the last one at the end."""

    def __init__(self, db: Path, folder: Path, look: float = LOOK) -> None:
        """Begin to look for changes.

        Args:
            db: The database, which is there.
            folder: Where the snapshots are.
            look: Seconds between two looks.
        """
        self.db, self.folder, self.look = db, folder, look
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._saved: object = None  # `state` of what the newest snapshot has
        self._thread = threading.Thread(target=self._work, name="mixdesk-snapshots", daemon=True)
        self._thread.start()

    def save(self) -> Path | None:
        """Write a snapshot if the database has changed since the last one, and return its path.

        Raises:
            OSError, sqlite3.Error: if it cannot be written.
        """
        with self._lock:
            # First: what changes meanwhile is for the next one.
            state = state_of(self.db)
            if state == self._saved:
                return None
            with tempfile.TemporaryDirectory(prefix="mixdesk-snapshot-") as place:
                copy = Path(place) / "snapshot.db"
                back_up(self.db, copy)
                found, digest = snapshots_in(self.folder), digest_of_file(copy)
                if found and named_digest(found[-1][1]) == digest:
                    self._saved = state
                    return None
                number = 1 + max((number for number, _ in found), default=0)
                target = self.folder / f"mixdesk-{number:08d}-{digest}.db"
                shutil.copyfile(copy, target)
            self._saved = state
            for _, old in found[: max(0, len(found) + 1 - KEPT)]:
                old.unlink(missing_ok=True)
            return target

    def close(self) -> None:
        """Write what has changed, and stop."""
        self._closed.set()
        self._thread.join(STOP)
        self._try()

    def _work(self) -> None:
        pause = self.look
        while not self._closed.wait(pause):
            began = time.monotonic()
            self._try()
            pause = max(self.look, SHARE * (time.monotonic() - began))

    def _try(self) -> None:
        try:
            self.save()
        except (OSError, sqlite3.Error):
            log.exception("a snapshot of %s could not be written to %s; another is tried soon", self.db, self.folder)


def restore(db: Path, folder: Path) -> Path | None:
    """Put the newest whole snapshot in the place of a database that is missing or empty, and return its path.

    Without snapshots, a database `mixdesk.db` in the folder is taken, where earlier versions had it.

    Raises:
        InputError: if there are snapshots, but none is whole: to start without would replace them.
    """
    if db.exists() and db.stat().st_size:
        return None
    found = snapshots_in(folder)
    for _, snapshot in reversed(found):
        with partial_file(db) as part:
            try:
                shutil.copyfile(snapshot, part)
            except OSError as error:
                log.warning("%s cannot be read: %s; an older snapshot is tried", snapshot, error)
                continue
            if digest_of_file(part) == named_digest(snapshot):
                os.replace(part, db)
                return snapshot
            log.warning("%s is not whole; an older snapshot is tried", snapshot)
    if found:
        raise InputError(
            f"{folder}: none of its {len(found)} snapshots of the database is whole; move them to another folder to "
            "start without them"
        )
    if (earlier := folder / "mixdesk.db").is_file():
        with partial_file(db) as part:
            try:
                back_up(earlier, part)
            except sqlite3.Error as error:
                raise InputError(f"{earlier}: cannot copy the database: {error}; move it to start without it") from None
            os.replace(part, db)
        return earlier
    return None


def snapshots_in(folder: Path) -> list[tuple[int, Path]]:
    """Return (number, path) of the snapshots in a folder, the newest last."""
    return sorted((int(named[1]), path) for path in folder.iterdir() if (named := NAME.fullmatch(path.name)))


def named_digest(snapshot: Path) -> str:
    """Return the digest in a snapshot's name."""
    named = NAME.fullmatch(snapshot.name)
    return named[2] if named else ""


def digest_of_file(path: Path) -> str:
    """Return the digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def back_up(db: Path, target: Path) -> None:
    """Copy a database as it is at one moment, with its log, while it is in use. Raises sqlite3.Error."""
    uri = f"{db.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file


def state_of(db: Path) -> object:
    """Return something that changes with every commit to a database: the sizes and times of its files."""
    found: list[tuple[int, int] | None] = []
    for path in (db, Path(f"{db}-wal")):
        try:
            status = path.stat()
            found.append((status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            found.append(None)
    return found


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Yield the path of a file beside another, which is deleted at the end if it is still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)
