"""A file that is deleted, replaced or damaged under a running app is reported, and never written to in vain."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from app.storage.database import Store
from app.storage.database_file import StoreError
from app.storage.export import export_pairs
from engine import InputError


@pytest.fixture
def rated(store, completion) -> Store:
    store.rate("r", completion(), completion("b"), "left", "anna")
    return store


def move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy.db"))
    os.replace(path.with_name("copy.db"), path)


@pytest.mark.parametrize(
    "change",
    [
        os.unlink,
        move,
        replace,
        lambda path: shutil.rmtree(path.parent),
        lambda path: os.unlink(f"{path}-wal"),
        lambda path: os.unlink(f"{path}-shm"),
    ],
    ids=["deleted", "moved", "replaced", "folder deleted", "wal deleted", "shm deleted"],
)
def test_a_file_that_is_no_longer_there_is_not_written(rated, completion, change):
    change(rated.path)
    with pytest.raises(
        StoreError, match=r"Not saved: .*mixdesk\.db.* was deleted, moved or replaced.*restart"
    ) as raised:
        rated.rate("s", completion(), completion("b"), "left", "anna")
    assert isinstance(raised.value, InputError) and isinstance(raised.value, sqlite3.Error)
    assert "\n" not in str(raised.value)
    with pytest.raises(StoreError, match="Not read: "):
        rated.pair("r")
    with pytest.raises(StoreError, match="Not read: "):
        list(rated.pairs())


def test_a_file_that_is_put_back_is_used_again(rated, completion):
    move(rated.path)
    with pytest.raises(StoreError):
        rated.rate("s", completion(), completion("b"), "left", "anna")
    rated.path.with_name("moved.db").rename(rated.path)
    assert rated.rate("s", completion(), completion("b"), "left", "anna")
    assert [pair["id"] for pair in rated.pairs()] == ["r", "s"]


def test_a_file_that_is_replaced_during_a_write_is_not_confirmed(rated):
    with pytest.raises(StoreError, match="Not saved"), rated.writing() as db:
        db.execute("update ratings set choice = 'tie'")
        replace(rated.path)


def test_damaged_pages_are_one_line(rated, completion, tmp_path):
    for i in range(50):
        rated.rate(f"r-{i}", completion("long " * 2000), completion("b"), "left", "anna")
    rated.close()
    size = rated.path.stat().st_size
    with rated.path.open("r+b") as file:
        file.seek(8 * 4096)
        file.write(b"\xff" * (size - 8 * 4096))
    before = rated.path.read_bytes()
    with pytest.raises(InputError, match=r"malformed|not a database") as raised:
        export_pairs(rated.path, "jsonl", tmp_path / "out.jsonl")
    assert str(rated.path) in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "out.jsonl").exists()
    try:
        store = Store(rated.path)
    except InputError as error:
        assert "\n" not in str(error)
        assert rated.path.read_bytes() == before
        return
    with pytest.raises(StoreError, match=r"Not read: the database mixdesk\.db says .*malformed.*recover"):
        list(store.pairs())
    store.close()


def test_a_database_that_cannot_be_written_is_one_line(rated, completion):
    rated.db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match=r"Not saved: the database mixdesk\.db says .*readonly.*writable"):
        rated.rate("s", completion(), completion("b"), "left", "anna")
    assert [pair["id"] for pair in rated.pairs()] == ["r"]


def test_a_full_disk_is_one_line(rated, completion):
    """A limit on the number of pages stands for the full disk."""
    pages = rated.db.execute("PRAGMA page_count").fetchone()[0]
    rated.db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match=r"Not saved: .*full.*make room"):
        rated.rate("s", completion("long " * 20_000), completion("b"), "left", "anna")
    rated.db.execute("PRAGMA max_page_count = 1000000")
    assert rated.rate("s", completion(), completion("b"), "left", "anna")


def test_rewards_that_are_no_numbers_are_missing(rated, completion):
    rewards = {"helpful": float("nan"), "concise": float("inf"), "harmless": 1.5}
    left = completion(rewards=rewards, missing_rewards={"odd": "out of memory"})
    assert rated.rate("s", left, completion("b", rewards={"helpful": float("-inf")}), "left", "anna")
    pair = rated.pair("s")
    assert pair["left"]["rewards"] == {"harmless": 1.5}
    assert pair["left"]["missing_rewards"] == {
        "odd": "out of memory",
        "helpful": "it is nan, not a finite number",
        "concise": "it is inf, not a finite number",
    }
    assert pair["right"]["rewards"] == {} and "-inf" in pair["right"]["missing_rewards"]["helpful"]
