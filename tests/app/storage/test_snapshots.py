"""Snapshots of the database in a folder that stays, also when the process is killed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.storage.database import Store
from app.storage.snapshots import KEPT, Snapshots, back_up, restore, snapshots_in
from engine import Completion, InputError
from tests import copies

ROOT = Path(__file__).parents[3]
Make = Callable[..., Completion]

# Rates without an end, and prints each rating once it is confirmed.
WRITER = """
import sys
from pathlib import Path
from app.storage.database import Store
from app.storage.snapshots import Snapshots
from tests.app.conftest import make_completion

store = Store(sys.argv[1])
snapshots = Snapshots(store.path, Path(sys.argv[2]), look=0.05)
number = 0
while True:
    store.rate(f"r-{number}", make_completion(), make_completion("b"), "left", "anna")
    print(number, flush=True)
    number += 1
"""


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


def ids_in(db: Path) -> set[str]:
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in connection.execute("select id from ratings")}


def restored(bucket: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    db = folder / "restored.db"
    assert restore(db, bucket) is not None
    assert [path.name for path in folder.iterdir()] == ["restored.db"]
    return db


def until(true: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rate(store: Store, completion: Make, *ids: str) -> None:
    for name in ids:
        store.rate(name, completion(), completion("b"), "left", "anna")


def test_a_snapshot_has_what_was_confirmed_before_it(store: Store, bucket: Path, completion: Make, tmp_path) -> None:
    snapshots = Snapshots(store.path, bucket, look=60)
    rate(store, completion, "a")
    first = snapshots.save()
    assert first is not None and ids_in(first) == {"a"}
    assert snapshots.save() is None, "nothing has changed"
    rate(store, completion, "b", "c")
    assert snapshots.save() is not None
    assert ids_in(restored(bucket, tmp_path / "new")) == {"a", "b", "c"}
    rate(store, completion, "d")
    snapshots.close()
    again = Store(restored(bucket, tmp_path / "newer"))
    assert [pair["id"] for pair in again.pairs()] == ["a", "b", "c", "d"]
    assert list(again.pairs()) == list(store.pairs())
    again.close()


def test_a_snapshot_follows_a_change_by_itself(store: Store, bucket: Path, completion: Make) -> None:
    snapshots = Snapshots(store.path, bucket, look=0.02)
    rate(store, completion, "a")
    until(lambda: any(ids_in(path) == {"a"} for _, path in snapshots_in(bucket)))
    snapshots.close()


def test_the_newest_are_kept(store: Store, bucket: Path, completion: Make) -> None:
    snapshots = Snapshots(store.path, bucket, look=60)
    (bucket / "notes.txt").write_text("mine")
    for number in range(KEPT + 3):
        rate(store, completion, f"r-{number}")
        snapshots.save()
    found = snapshots_in(bucket)
    assert [number for number, _ in found] == [4, 5, 6]
    assert [len(ids_in(path)) for _, path in found] == [4, 5, 6]
    assert (bucket / "notes.txt").exists()
    # A process that takes over goes on counting, and writes nothing new while nothing is.
    again = Snapshots(store.path, bucket, look=60)
    assert again.save() is None and snapshots_in(bucket) == found
    again.close()
    snapshots.close()


@pytest.mark.parametrize("broken", ["half", "empty", "changed"])
def test_a_snapshot_that_is_not_whole_is_passed_over(
    store: Store, bucket: Path, completion: Make, tmp_path: Path, broken: str
) -> None:
    snapshots = Snapshots(store.path, bucket, look=60)
    for name in ("a", "b"):
        rate(store, completion, name)
        snapshots.save()
    snapshots.close()
    (_, old), (_, new) = snapshots_in(bucket)
    whole = new.read_bytes()
    new.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "changed": whole[:-1] + b"\1"}[broken])
    assert ids_in(restored(bucket, tmp_path / "new")) == {"a"}
    old.write_bytes(b"")
    with pytest.raises(InputError, match="none of its 2 snapshots of the database is whole; move them"):
        restore(tmp_path / "newer.db", bucket)
    assert not (tmp_path / "newer.db").exists() and len(snapshots_in(bucket)) == 2


def test_a_database_that_is_there_is_left_alone(store: Store, bucket: Path, completion: Make, tmp_path: Path) -> None:
    assert restore(tmp_path / "none.db", bucket) is None and not (tmp_path / "none.db").exists()
    rate(store, completion, "a")
    back_up(store.path, bucket / "mixdesk.db")  # where earlier versions had it
    rate(store, completion, "b")
    assert restore(store.path, bucket) is None
    assert ids_in(restored(bucket, tmp_path / "new")) == {"a"}
    empty = tmp_path / "empty.db"
    empty.touch()
    assert restore(empty, bucket) == bucket / "mixdesk.db" and ids_in(empty) == {"a"}


def test_a_bucket_that_is_away_costs_no_rating(store: Store, bucket: Path, completion: Make, tmp_path: Path) -> None:
    snapshots = Snapshots(store.path, bucket, look=0.02)
    bucket.rename(tmp_path / "away")
    rate(store, completion, "a")
    time.sleep(0.2)
    (tmp_path / "away").rename(bucket)
    rate(store, completion, "b")
    until(lambda: any(ids_in(path) == {"a", "b"} for _, path in snapshots_in(bucket)))
    snapshots.close()


def test_a_snapshot_is_of_one_moment_while_others_write(store: Store, bucket: Path, completion: Make) -> None:
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            rate(store, completion, f"r-{number}")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    snapshots = Snapshots(store.path, bucket, look=60)
    try:
        for _ in range(8):
            confirmed = {pair["id"] for pair in store.pairs()}
            saved = snapshots.save()
            if saved is not None:
                ids = ids_in(saved)
                assert confirmed <= ids and ids == {f"r-{number}" for number in range(len(ids))}
            time.sleep(0.02)
    finally:
        done.set()
        writer.join()
    snapshots.close()


def test_a_process_that_is_killed_loses_only_the_last_moments(bucket: Path, tmp_path: Path) -> None:
    ids: set[str] = set()
    for life in range(3):
        local = tmp_path / f"disk-{life}"
        local.mkdir()
        db = local / "mixdesk.db"
        if life:
            assert restore(db, bucket) is not None
            kept = ids_in(db)
            assert ids <= kept, "a rating that an earlier snapshot had is gone"
            ids = kept
            # The writer's ratings begin at 0 again, which are known: it goes on after them.
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", WRITER, str(db), str(bucket)]
        with copies.start(command, ROOT, environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            before = len(snapshots_in(bucket)) and snapshots_in(bucket)[-1][0]
            confirmed = -1
            newest = before
            while newest < before + 3 or confirmed < len(ids) + 5:
                confirmed = int(process.stdout.readline())
                newest = (snapshots_in(bucket) or [(before, None)])[-1][0]
            process.send_signal(signal.SIGKILL)
            process.wait()
        shutil.rmtree(local)
        db = restored(bucket, tmp_path / f"look-{life}")
        found = ids_in(db)
        assert found == {f"r-{number}" for number in range(len(found))} and len(found) > len(ids)
