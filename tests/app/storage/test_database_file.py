"""Files that are no database of this version's are refused, and stay as they were."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from app.__main__ import main
from app.schemas.study import StudySettings
from app.storage.database import Store, open_to_read
from app.storage.studies import StudyTables
from engine import InputError


def contents(folder: Path) -> dict[str, bytes]:
    """Return {name: content} of a folder's files; the -shm file only has who reads what."""
    return {path.name: b"" if path.name.endswith("-shm") else path.read_bytes() for path in folder.iterdir()}


def make(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def ours(path: Path, *statements: str) -> None:
    """Make a database with a rating's tables, and change it as another program would."""
    Store(path).close()
    make(path, *statements)


def newer(path: Path) -> None:
    ours(path, "insert into _sqlite_migrations (migration_set, name, applied_at) values ('mixdesk', 'm999_x', 'now')")


def newer_comparisons(path: Path) -> None:
    row = "('mixdesk-comparisons', 'm002_later', 'now')"
    ours(path, f"insert into _sqlite_migrations (migration_set, name, applied_at) values {row}")


def newer_studies(path: Path) -> None:
    row = "('mixdesk-studies', 'm999_later', 'now')"
    ours(path, f"insert into _sqlite_migrations (migration_set, name, applied_at) values {row}")


# As tables refer to each other.
ORDER = [
    *("study_answers", "study_sessions", "study_assignments", "study_annotators", "study_invitations"),
    *("study_items", "study_systems", "studies"),
]
FILES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "text": (lambda path: path.write_text("no database, " * 100), "not a database", "not a database"),
    "short text": (lambda path: path.write_text("hi\n"), "not a database", "not a database"),
    "another's": (lambda path: make(path, "create table songs (title text)"), "another program's.*songs", "songs"),
    "another's in WAL": (
        lambda path: make(path, "pragma journal_mode = wal", "create table songs (title text)"),
        "another program's.*songs",
        "songs",
    ),
    "another's, empty": (
        lambda path: make(path, "pragma application_id = 77", "create table t (a)", "drop table t"),
        "application id 77",
        "application id 77",
    ),
    "newer": (newer, "newer version.*m999_x.*update Mixdesk", "newer version"),
    "newer comparisons": (newer_comparisons, "newer version.*m002_later", "newer version"),
    "newer studies": (newer_studies, "newer version.*m999_later.*update Mixdesk", "newer version"),
    "without a table of studies": (
        lambda path: ours(path, "drop table study_sessions"),
        "study_sessions is missing",
        "",
    ),
    "without a column of studies": (
        lambda path: ours(path, "alter table study_answers drop column choice"),
        "study_answers lacks the column choice",
        "",
    ),
    "without a column": (
        lambda path: ours(path, "alter table completions drop column steered"),
        "completions lacks the column steered",
        "",
    ),
    "without a first column": (
        lambda path: ours(path, "alter table ratings drop column objective"),
        "ratings lacks the column objective",
        "ratings lacks the column objective",
    ),
    "with a column of another type": (
        lambda path: ours(
            path,
            "alter table completions drop column particles",
            "alter table completions add column particles text not null default '1'",
        ),
        "completions lacks the column particles, or has it with another type",
        "",
    ),
    "without a table": (lambda path: ours(path, "drop table saved_mixtures"), "saved_mixtures is missing", ""),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_refused_stays_as_it_was(tmp_path, kind):
    prepare, opening, reading = FILES[kind]
    path = tmp_path / "file.db"
    prepare(path)
    before = contents(tmp_path)
    assert set(before) == {"file.db"}
    with pytest.raises(InputError, match=opening) as raised:
        Store(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value) and "give" in str(raised.value)
    assert contents(tmp_path) == before
    if reading:
        with pytest.raises(InputError, match=reading):
            open_to_read(path)
    else:  # an export needs only what every version has
        open_to_read(path).close()
    assert contents(tmp_path) == before


def test_a_database_from_before_studies_gets_their_tables(tmp_path, completion):
    path = tmp_path / "file.db"
    store = Store(path)
    store.rate("r", completion(), completion("b"), "left", "anna")
    tables = [name for name in store.db.table_names() if name.startswith(("study_", "studies"))]
    store.close()
    assert "study_assignments" in tables
    statements = [f"drop table {name}" for name in sorted(tables, key=ORDER.index)]
    make(path, *statements, "delete from _sqlite_migrations where migration_set = 'mixdesk-studies'")
    open_to_read(path).close()
    store = Store(path)
    assert [pair["id"] for pair in store.pairs()] == ["r"]
    study = StudyTables(store).add(StudySettings(name="New"), {"a": None, "b": None})
    assert [entry.id for entry in StudyTables(store).listing()] == [study]
    store.close()


def test_devices_pipes_and_folders_are_refused(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "folder", Path("/dev/full")):
        with pytest.raises(InputError, match="cannot use it as the database: it is a"):
            Store(path)
        assert main(["export", "--db", str(path), "--out", str(tmp_path / "out")]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


@pytest.mark.parametrize("statements", [(), ("create table t (a)", "drop table t"), ("pragma journal_mode = wal",)])
def test_an_empty_file_becomes_a_database(tmp_path, completion, statements):
    path = tmp_path / "file ?#%.db"
    path.touch()
    make(path, *statements)
    store = Store(path)
    store.rate("r", completion(), completion("b"), "left", "anna")
    assert [pair["id"] for pair in store.pairs()] == ["r"]
    store.close()


def test_a_database_that_was_killed_before_it_had_tables_opens(tmp_path):
    """As a version that did not make all tables in one transaction left it."""
    path = tmp_path / "file.db"
    make(path, "create table _sqlite_migrations (id integer primary key, migration_set, name, applied_at)")
    Store(path).close()
    Store(path).close()


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
def test_a_log_without_its_database_is_not_deleted(tmp_path, left):
    path, wal = tmp_path / "file.db", tmp_path / "file.db-wal"
    wal.write_bytes(b"ratings " * 1000)
    if left == "an empty file":
        path.touch()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"file\.db-wal has its newest data"):
        Store(path)
    assert contents(tmp_path) == before


def test_a_link_and_tables_of_the_users_own_are_no_obstacle(tmp_path, completion):
    ours(tmp_path / "real.db", "create table notes (text)", "alter table ratings add column note text")
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "real.db")
    store = Store(link)
    store.rate("r", completion(), completion("b"), "left", "anna")
    assert store.pair("r")["choice"] == "left"
    store.close()


def test_a_database_in_use_is_seen_with_what_its_log_adds(tmp_path, completion):
    """The first version wrote its tables into the log, which may be all that there is of them."""
    path = tmp_path / "file.db"
    db = sqlite3.connect(path)
    db.execute("pragma journal_mode = wal")
    db.execute("create table songs (title text)")
    before = contents(tmp_path)
    assert path.stat().st_size <= 4096, "the table is in the log only"
    with pytest.raises(InputError, match="songs"):
        Store(path)
    with pytest.raises(InputError, match="songs"):
        open_to_read(path)
    assert contents(tmp_path) == before
    db.close()


def test_reading_leaves_no_files_beside_the_database(tmp_path, store, completion):
    store.rate("r", completion(), completion("b"), "left", "anna")
    store.close()
    before = contents(store.path.parent)
    source = open_to_read(store.path)
    assert source.table("ratings").count == 1
    with pytest.raises(sqlite3.OperationalError):
        source.execute("delete from ratings")
    source.close()
    assert contents(store.path.parent) == before and list(before) == ["mixdesk.db"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path, store, completion):
    store.rate("r", completion(), completion("b"), "left", "anna")
    store.close()
    folder = store.path.parent
    folder.chmod(0o500)
    try:
        source = open_to_read(store.path)
        assert source.table("ratings").count == 1
        source.close()
        with pytest.raises(InputError, match="give another --db"):
            Store(store.path)
    finally:
        folder.chmod(0o700)
