from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.storage.database import Store, open_to_read, read_pairs
from engine import Engine, InputError, Mixture, Sampling
from tests import copies

ROOT = Path(__file__).parents[3]


def count(store: Store, table: str) -> int:
    return store.db.table(table).count


def test_a_rating_comes_back_as_it_was(store, completion):
    left, right = completion("Cold water."), completion("Ein Witz: 你好 \x00 <b>", finish_reason="stopped", rewards={})
    assert store.rate("r-1", left, right, "left", "anna", model="demo")
    (pair,) = store.pairs()
    assert (pair["id"], pair["choice"], pair["objective"], pair["annotator"]) == ("r-1", "left", None, "anna")
    assert pair["created_at"].endswith("+00:00")
    for side, made in (("left", left), ("right", right)):
        stored = store.completion(pair[side]["id"])
        assert stored == pair[side]
        assert stored["model"] == "demo"
        assert made.as_dict() == {
            **{key: stored[key] for key in stored if key in made.as_dict()},
            "log_normaliser": None,
        }


def test_a_rating_sent_twice_is_stored_once(store, completion):
    assert store.rate("same", completion(), completion("b"), "tie", "anna")
    assert not store.rate("same", completion(), completion("b"), "right", "anna")
    assert [pair["choice"] for pair in store.pairs()] == ["tie"]
    assert count(store, "completions") == 2


def test_prompts_and_mixtures_are_stored_once(store, completion):
    for i in range(3):
        store.rate(f"r-{i}", completion(), completion("b", mixture=Mixture({"helpful": 1.0})), "left", "anna")
    counts = {table: count(store, table) for table in ("prompts", "mixtures", "completions", "annotators", "ratings")}
    assert counts == {"prompts": 1, "mixtures": 2, "completions": 6, "annotators": 1, "ratings": 3}


def test_a_rating_that_fails_leaves_nothing(store, completion):
    with pytest.raises(sqlite3.Error):
        store.rate("r", completion(), completion(text=None), "left", "anna")
    assert all(count(store, table) == 0 for table in ("prompts", "completions", "rewards", "ratings", "annotators"))
    assert store.rate("r", completion(), completion("b"), "left", "anna")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"choice": "middle"}, "choice"),
        ({"rating_id": ""}, "rating id"),
        ({"rating_id": "x" * 101}, "rating id"),
        ({"annotator": None}, "annotator"),
    ],
)
def test_wrong_ratings_are_refused(store, completion, arguments, says):
    good = {"rating_id": "r", "choice": "left", "annotator": "anna"}
    with pytest.raises(InputError, match=says):
        store.rate(left=completion(), right=completion("b"), **{**good, **arguments})
    with pytest.raises(InputError, match="different prompts"):
        store.rate(left=completion(), right=completion(prompt="other"), **good)
    assert count(store, "ratings") == 0


def test_the_pragmas_are_on(store, completion):
    pragma = {name: store.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert pragma == {"journal_mode": "wal", "synchronous": 2}
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        store.db.table("rewards").insert({"completion_id": 99, "objective": "helpful", "value": 1.0})


def test_many_threads_store_each_rating_once(store, completion):
    def rate(i: int) -> bool:
        return store.rate(f"r-{i % 20}", completion(f"left {i % 20}"), completion("b"), "left", f"annotator-{i % 3}")

    with ThreadPoolExecutor(4) as threads:
        new = list(threads.map(rate, range(40)))
    assert sum(new) == 20
    assert len(list(store.pairs())) == count(store, "ratings") == 20
    assert count(store, "completions") == 40


def test_two_stores_write_to_one_file(store, completion):
    def rate_twenty(writer: Store, name: str) -> list[bool]:
        return [writer.rate(f"{name}-{i}", completion(), completion("b"), "tie", name) for i in range(20)]

    other = Store(store.path)
    with ThreadPoolExecutor(2) as threads:
        writing = [threads.submit(rate_twenty, *pair) for pair in ((store, "one"), (other, "two"))]
        assert all(all(part.result()) for part in writing)
    other.close()
    assert count(store, "ratings") == 40


def test_a_confirmed_rating_survives_kill_9(tmp_path, completion):
    script = """
import sys, time
from app.storage.database import Store
from tests.app.conftest import make_completion
store = Store(sys.argv[1])
for i in range(3):
    print("new" if store.rate(f"r-{i}", make_completion(), make_completion("b"), "left", "anna") else "old", flush=True)
time.sleep(60)
"""
    path = tmp_path / "killed.db"
    process = copies.start([sys.executable, "-c", script, str(path)], ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert [process.stdout.readline().strip() for _ in range(3)] == ["new"] * 3
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = Store(path)
    assert [pair["id"] for pair in again.pairs()] == ["r-0", "r-1", "r-2"]
    assert not again.rate("r-2", completion(), completion("b"), "left", "anna"), "sent again by the page"
    again.close()


def test_a_stored_completion_can_be_generated_again(store, tiny_engine: Engine):
    sampling = Sampling(max_new_tokens=12, temperature=0.9, top_k=50)
    mixture = tiny_engine.mixture({"plain": 3, "narrow": 1}, "power", gain=1.5, exponent=-1.0)
    made = tiny_engine.submit("move the faders", mixture, sampling, seed=11).completion()
    store.rate("r", made, made, "tie", "anna", model=tiny_engine.config.name)
    row = store.completion(1)
    again = tiny_engine.generate(row["prompt"], **row["mixture"], **row["sampling"], seed=row["seed"])
    assert again.text == row["text"]
    assert again.tokens == row["tokens"]


def test_an_exact_completion_can_be_generated_again(store, tiny_engine: Engine):
    made = tiny_engine.generate("mix", {"plain": 1, "narrow": 1}, max_new_tokens=8, temperature=0.9, particles=4)
    store.rate("r", made, made, "tie", "anna")
    row = store.completion(1)
    assert row["sampling"]["particles"] == 4
    again = tiny_engine.generate(row["prompt"], **row["mixture"], **row["sampling"], seed=row["seed"])
    assert again.tokens == row["tokens"]


def test_stop_strings_and_biases_are_kept(store, tiny_engine: Engine):
    whole = tiny_engine.generate("mix", seed=5, max_new_tokens=30, temperature=0.9, logit_bias={30: 2.0, 9: -100})
    stop = [whole.text[9:11], "\n"]
    made = tiny_engine.generate(
        "mix", seed=5, max_new_tokens=30, stop=stop, temperature=0.9, logit_bias={30: 2, 9: -100}
    )
    assert made.finish_reason == "stop_string"
    store.rate("r", made, whole, "tie", "anna")
    row, other = store.completion(1), store.completion(2)
    assert row["sampling"]["stop"] == stop and "stop" not in other["sampling"]
    assert row["finish_reason"] == "stop_string"
    again = tiny_engine.generate(row["prompt"], **row["mixture"], **row["sampling"], seed=row["seed"])
    assert (again.tokens, again.text) == (row["tokens"], row["text"])


def test_a_branch_can_be_generated_again(store, tiny_engine: Engine):
    mixture, sampling = tiny_engine.mixture({"plain": 1, "narrow": 1}), Sampling(max_new_tokens=8, temperature=0.9)
    made = tiny_engine.submit("mix", mixture, sampling, seed=2, tokens=[20, 30]).completion()
    store.rate("r", made, made, "tie", "anna")
    row = store.completion(1)
    again = tiny_engine.submit(
        row["prompt"],
        Mixture(**row["mixture"]),
        Sampling(**row["sampling"]),
        row["seed"],
        tokens=row["tokens"][: row["begins_with"]],
    ).completion()
    assert again.tokens == row["tokens"] == made.tokens


def test_the_date_that_a_template_wrote_is_kept(store, completion):
    store.rate("r", completion(date="2026-01-31T12:00:00"), completion("b"), "left", "anna")
    (pair,) = store.pairs()
    assert (pair["left"]["date"], pair["right"]["date"]) == ("2026-01-31T12:00:00", "")


def test_an_older_database_is_read_as_it_is(store, completion):
    """export opens it read only, and so as it was when its app made it."""
    store.rate("r", completion(), completion("b"), "left", "anna")
    for column in ("particles", "repetition_penalty", "stop", "logit_bias", "steered", "begins_with", "date"):
        store.db.execute(f"alter table completions drop column {column}")
    store.db.execute("drop index idx_prompts_text_messages")
    store.db.execute("alter table prompts drop column messages")
    (pair,) = read_pairs(open_to_read(store.path))
    assert pair["left"]["sampling"]["particles"] == 1
    assert pair["left"]["sampling"]["repetition_penalty"] == 1.0
    assert pair["left"]["steered"] == {}
    assert pair["left"]["begins_with"] == 0
    assert pair["left"]["date"] == ""


def test_opening_says_what_is_wrong(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no database, " * 100)
    folder = tmp_path / "folder"
    folder.mkdir()
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("create table prompts (words text)")
    for path in (text, folder, text / "below.db", other):
        with pytest.raises(InputError) as raised:
            Store(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="no such database"):
        open_to_read(tmp_path / "missing.db")
    assert not (tmp_path / "missing.db").exists()
    with pytest.raises(InputError, match="ratings"):
        open_to_read(other)
