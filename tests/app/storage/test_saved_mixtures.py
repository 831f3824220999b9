from __future__ import annotations

import sqlite3
import unicodedata

import pytest

from app.schemas.desk_state import MixtureState
from app.schemas.solo_mute_lock import Channels
from app.storage.database import Store
from app.storage.saved_mixtures import SavedMixtures, TakenError
from engine import InputError

EVIL = "<img src=x onerror=alert(1)>"


def mixture(gain: float = 1.0) -> MixtureState:
    channels = Channels(solo=["a"], lock={"b": 0.123456})
    return MixtureState(faders={"a": 0.31, "b": 1}, channels=channels, rule="geometric", gain=gain, exponent=1)


@pytest.fixture
def saved(store) -> SavedMixtures:
    return SavedMixtures(store)


def test_a_mixture_comes_back_as_it_was_after_a_restart(store):
    for name in ("plain", EVIL, "'; drop table ratings; --", "ümläut 你好 \U0001f39a", "x" * 100, "null", "a\u200db"):
        assert SavedMixtures(store).save(f"  {name} ", mixture()) == name
        again = Store(store.path)
        assert SavedMixtures(again).load(name) == mixture()
        again.close()
    assert len(SavedMixtures(store).names()) == 7


def test_names_are_sorted_for_people(saved):
    for name in ("b", "A", "a", "C"):
        saved.save(name, mixture())
    assert saved.names() == ["A", "a", "b", "C"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (None, "empty"), ("", "empty"), (" \t\n ", "empty"), ("\u200b", "empty"), ("\x00", "empty"),
        ("x" * 101, "101 characters long"), ("a\nb", "control character"), ("a\x00b", "control character"),
        ("a\ud800", "control character"), ("a\u2028b", "line break"),
    ],
)  # fmt: skip
def test_a_bad_name_is_told_in_one_line(saved, name, says):
    with pytest.raises(InputError, match=says) as told:
        saved.save(name, mixture())
    assert "\n" not in str(told.value)
    assert saved.names() == []


def test_a_name_is_replaced_only_when_told_to(saved):
    saved.save("café", mixture())
    with pytest.raises(TakenError, match="There is a mixture “café” already"):
        saved.save(unicodedata.normalize("NFD", "café "), mixture(gain=2))
    assert saved.load("café").gain == 1
    saved.save("café", mixture(gain=2), replace=True)
    assert saved.load("café").gain == 2
    assert saved.names() == ["café"]


def test_what_is_deleted_is_gone(saved):
    saved.save("one", mixture())
    saved.save("two", mixture())
    saved.delete("one")
    assert saved.names() == ["two"]
    for act in (saved.load, saved.delete):
        with pytest.raises(InputError, match="no saved mixture “one” any more"):
            act("one")
        with pytest.raises(InputError, match="Choose"):
            act(None)


def test_a_database_of_an_older_app_gets_the_table(tmp_path, saved):
    path = tmp_path / "old.db"
    old = Store(path)
    old.db.execute("drop table saved_mixtures")
    old.db.execute("delete from _sqlite_migrations where name = 'm004_saved_mixtures'")
    old.db.conn.commit()
    old.close()
    store = Store(path)
    SavedMixtures(store).save("one", mixture())
    assert SavedMixtures(store).names() == ["one"]
    store.close()


def test_what_another_version_saved_is_told(saved):
    saved.save("one", mixture())
    with saved.store.held(write=True) as db:
        db.execute("update saved_mixtures set settings = '{\"faders\": 1}'")
    with pytest.raises(InputError, match="another version"):
        saved.load("one")


def test_a_database_that_cannot_be_written_keeps_what_it_has(saved):
    saved.save("one", mixture())
    saved.store.db.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.Error):
        saved.save("one", mixture(gain=2), replace=True)
    assert saved.load("one").gain == 1
