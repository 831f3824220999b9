"""Pairs that are kept until they are rated."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest

from app.storage import unrated
from app.storage.database import Store
from app.storage.unrated import Unrated
from engine import Completion, Engine


@pytest.fixture
def completion(tiny_engine: Engine) -> Callable[[int], Completion]:
    turns = [{"role": "user", "content": "mix"}, {"role": "assistant", "content": "it"}]
    prompt = [*turns, {"role": "user", "content": "again 😀"}]
    return lambda seed: tiny_engine.generate(prompt, {"plain": 0.4}, seed=seed, max_new_tokens=5)


def test_a_pair_is_the_same_after_a_restart(store: Store, completion: Callable[[int], Completion]) -> None:
    left, right = completion(1), completion(2)
    left.steered[2] = right.mixture
    left.rewards["odd"] = math.inf  # the store makes it a missing reward when it is rated
    Unrated(store).keep("run", "browser", left, right, "tiny")
    again = Store(store.path)
    found = Unrated(again).find("run", "browser")
    assert found is not None
    assert [one.as_dict() for one in found[:2]] == [left.as_dict(), right.as_dict()] and found[2] == "tiny"
    assert again.rate("rating", *found[:2], "left", "anna", model=found[2], run="run")
    assert Unrated(again).find("run", "browser") is None, "it is rated"
    stored = again.pair("rating")["left"]
    assert stored["steered"] == json.loads(json.dumps(left.as_dict()["steered"]))
    assert "odd" not in stored["rewards"] and stored["rewards"].items() <= left.rewards.items()
    again.close()


def test_only_the_same_browser_finds_it(store: Store, completion: Callable[[int], Completion]) -> None:
    kept = Unrated(store)
    kept.keep("run", "browser", completion(1), completion(2), "tiny")
    assert kept.find("run", "another") is kept.find("run", "") is kept.find("another", "browser") is None
    with store.reading() as db:
        assert "browser" not in [row["browser"] for row in db.query("select browser from unrated")]


def test_a_pair_of_another_version_is_not_found(store: Store, completion: Callable[[int], Completion]) -> None:
    kept = Unrated(store)
    kept.keep("run", "browser", completion(1), completion(2), "tiny")
    for pair in ("not JSON", "[]", "[{}, {}]", "[1, 2]"):
        with store.writing() as db:
            db.execute("update unrated set pair = ?", [pair])
        assert kept.find("run", "browser") is None


def test_old_pairs_and_more_than_a_number_are_removed(
    store: Store, completion: Callable[[int], Completion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unrated, "KEPT", 3)
    kept, pair = Unrated(store), (completion(1), completion(2))
    for i in range(5):
        kept.keep(str(i), "browser", *pair, "tiny")
    assert [i for i in range(5) if kept.find(str(i), "browser")] == [2, 3, 4]
    kept.keep("3", "browser", *pair, "tiny")  # branched
    with store.writing() as db:
        db.execute("update unrated set created_at = '2020-01-01T00:00:00.000+00:00' where run = '4'")
    kept.keep("5", "browser", *pair, "tiny")
    assert [i for i in range(6) if kept.find(str(i), "browser")] == [2, 3, 5]
