"""Several processes and threads that use one database, and one that is killed while it writes."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

from app.storage.comparisons import ComparisonTables
from app.storage.database import Store, open_to_read
from tests import copies

ROOT = Path(__file__).parents[3]


def test_processes_that_open_a_new_file_at_once_wait_for_each_other(tmp_path):
    """The script imports once, and then forks: importing takes so long that processes would not meet."""
    script = """
import multiprocessing, sys
from pathlib import Path
from app.storage.comparisons import ComparisonTables
from app.storage.database import Store
from tests.app.conftest import make_completion

context = multiprocessing.get_context("fork")

def open_and_rate(path, number, barrier, results):
    barrier.wait()
    try:
        store = Store(path)
        ComparisonTables(store).listing()
        store.rate(f"r-{number}", make_completion(), make_completion("b"), "left", "anna")
        results.put("")
    except BaseException as error:
        results.put(f"{type(error).__name__}: {error}")

for attempt in range(8):
    barrier, results = context.Barrier(4), context.Queue()
    path = Path(sys.argv[1]) / f"{attempt}.db"
    processes = [context.Process(target=open_and_rate, args=(path, i, barrier, results)) for i in range(4)]
    for process in processes:
        process.start()
    for error in sorted(results.get(timeout=60) for _ in processes):
        print(error or "fine")
    for process in processes:
        process.join()
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = copies.run(command, ROOT, timeout=300)
    assert done.stdout.splitlines() == ["fine"] * 32, done.stderr
    for attempt in range(8):
        store = Store(tmp_path / f"{attempt}.db")
        assert sorted(pair["id"] for pair in store.pairs()) == [f"r-{i}" for i in range(4)]
        store.close()


def test_a_process_that_is_killed_while_it_writes_leaves_every_confirmed_rating(tmp_path, completion):
    script = """
import sys
from app.storage.database import Store
from tests.app.conftest import make_completion
store = Store(sys.argv[1])
first = sum(1 for _ in store.pairs())
for i in range(first, 100_000):
    store.rate(f"r-{i}", make_completion(f"left {i}"), make_completion("b"), "left", "anna")
    print(i, flush=True)
"""
    path = tmp_path / "killed.db"
    confirmed = -1
    for wanted in (1, 20, 47):
        command = [sys.executable, "-c", script, str(path)]
        process = copies.start(command, ROOT, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            for _ in range(wanted):
                confirmed = int(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGKILL)
            rest, _ = process.communicate()
        confirmed = max([confirmed, *map(int, rest.split("\n")[:-1])])
        source = open_to_read(path)
        assert source.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert source.execute("PRAGMA foreign_key_check").fetchall() == []
        source.close()
        store = Store(path)
        pairs = list(store.pairs())
        store.close()
        assert [pair["id"] for pair in pairs] == [f"r-{i}" for i in range(len(pairs))]
        assert len(pairs) > confirmed
        assert all(pair["left"]["rewards"] == completion().rewards for pair in pairs)


def test_reading_does_not_wait_for_a_write(store, completion):
    store.rate("r", completion(), completion("b"), "left", "anna")
    begun, done = threading.Event(), threading.Event()

    def write() -> None:
        with store.writing() as db:
            db.execute("update ratings set choice = 'right'")
            begun.set()
            assert done.wait(60)

    thread = threading.Thread(target=write)
    thread.start()
    seen: list[object] = []

    def read() -> None:
        seen.extend([store.pair("r")["choice"], [pair["id"] for pair in store.pairs()]])
        seen.extend([store.completion(1)["text"], ComparisonTables(store).listing()])

    reader = threading.Thread(target=read)
    try:
        assert begun.wait(60)
        reader.start()
        reader.join(30)
        assert not reader.is_alive(), "it waits for the write"
    finally:
        done.set()
        thread.join()
        reader.join()
    assert seen == ["left", ["r"], completion().text, []]
    assert store.pair("r")["choice"] == "right"


def test_a_reader_sees_one_state_until_it_is_done(store, completion):
    store.rate("r", completion(), completion("b"), "left", "anna")
    with store.reading() as db:
        assert db.table("ratings").count == 1
        store.rate("s", completion(), completion("b"), "left", "anna")
        assert db.table("ratings").count == 1
    with store.reading() as db:
        assert db.table("ratings").count == 2


def test_opening_waits_for_another_process_that_migrates(tmp_path):
    """Another connection holds the lock for a while, as a process does that makes the tables."""
    path = tmp_path / "file.db"
    other = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    other.execute("begin immediate")
    opened: list[Store] = []
    thread = threading.Thread(target=lambda: opened.append(Store(path)))
    thread.start()
    time.sleep(0.5)
    assert not opened
    other.execute("commit")
    other.close()
    thread.join()
    assert len(opened) == 1
    opened[0].close()
