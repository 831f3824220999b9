"""Conversations in the store, in older databases, and in exports."""

from __future__ import annotations

import csv
import json
import sqlite3

import pytest
from sqlite_utils import Database

from app.storage.database import Store, open_to_read, read_pairs
from app.storage.export import export_pairs
from app.storage.migrations import schema
from engine import Engine, InputError
from engine.solvers.ratings import read_ratings

TURNS = [
    {"role": "user", "content": "A stain?"},
    {"role": "assistant", "content": "Rinse it."},
    {"role": "user", "content": 'And "wool"? 你好'},
]


def test_a_conversation_comes_back_as_it_was(store, completion):
    left = completion(prompt=TURNS)
    store.rate("r", left, completion("b", prompt=[dict(message) for message in TURNS]), "left", "anna")
    (pair,) = store.pairs()
    assert (
        pair["prompt"] == pair["left"]["prompt"] == store.completion(1)["prompt"] == left.as_dict()["prompt"] == TURNS
    )


def test_prompts_are_one_row_if_all_that_was_said_is_alike(store, completion):
    other = [TURNS[0], {**TURNS[1], "content": "Dry it."}, TURNS[2]]
    for i, prompt in enumerate([TURNS[2]["content"], TURNS, other, TURNS, TURNS[2]["content"]]):
        store.rate(f"r-{i}", completion(prompt=prompt), completion("b", prompt=prompt), "left", "anna")
    rows = list(store.db.table("prompts").rows)
    assert {row["text"] for row in rows} == {TURNS[2]["content"]}
    assert [json.loads(row["messages"]) for row in rows] == [[], TURNS, other]
    with pytest.raises(sqlite3.IntegrityError):
        store.db.table("prompts").insert({"text": rows[1]["text"], "messages": rows[1]["messages"]})
    with pytest.raises(InputError, match="different prompts"):
        store.rate("r", completion(prompt=TURNS), completion(prompt=other), "left", "anna")


def test_a_stored_turn_can_be_generated_again(store, tiny_engine: Engine):
    made = tiny_engine.generate(TURNS, {"plain": 1, "narrow": 2}, max_new_tokens=9, temperature=0.9, seed=4)
    store.rate("r", made, made, "tie", "anna")
    row = store.completion(1)
    again = tiny_engine.generate(row["prompt"], **row["mixture"], **row["sampling"], seed=row["seed"])
    assert again.tokens == row["tokens"]
    assert again.tokens != tiny_engine.generate(TURNS[2]["content"], **row["mixture"], **row["sampling"], seed=4).tokens


def test_a_database_of_before_is_read_and_migrated(tmp_path, completion):
    """Made with the migrations before this one, and what the app wrote then."""
    path = tmp_path / "older.db"
    db = Database(sqlite3.connect(path))
    schema.apply(db, stop_before="m006_turns")
    made = completion()
    db.table("prompts").insert({"text": "A stain?"})
    weights = {"weights": '{"helpful": 0.25, "terse": 0.75}', "rule": "power", "gain": 1.5, "exponent": -0.5}
    db.table("mixtures").insert(weights)
    row = {"prompt_id": 1, "mixture_id": 1, "model": "demo", "seed": 3, **made.sampling.as_dict(), "tokens": "[5]"}
    row |= {"text": "Rinse it.", "finish_reason": "end", "created_at": "2025-01-01"}
    db.table("completions").insert_all([row, {**row, "text": "Dry it."}])
    db.table("annotators").insert({"id": "anna", "created_at": "2025-01-01"})
    rating = {"id": "r", "left_id": 1, "right_id": 2, "choice": "left", "annotator_id": "anna"}
    db.table("ratings").insert({**rating, "created_at": "2025-01-01"})
    db.close()

    def check(pair: dict) -> None:
        assert (pair["prompt"], pair["left"]["text"], pair["right"]["text"]) == ("A stain?", "Rinse it.", "Dry it.")

    (pair,) = read_pairs(open_to_read(path))
    check(pair)
    store = Store(path)
    check(next(store.pairs()))
    store.rate("same", completion(), completion("b"), "tie", "anna")
    assert store.db.table("prompts").count == 1, "the prompt of before is the same prompt"
    store.rate("turns", completion(prompt=TURNS), completion("b", prompt=TURNS), "tie", "anna")
    assert [pair["prompt"] for pair in store.pairs()] == ["A stain?", "A stain?", TURNS]
    store.close()
    again = Store(path)
    assert again.db.table("prompts").count == 2
    again.close()


@pytest.fixture
def rated(store, completion):
    for i, (prompt, choice) in enumerate([("A stain?", "right"), (TURNS, "left"), (TURNS, "tie"), ("Ants?", "left")]):
        store.rate(f"r-{i}", completion(f"left {i}", prompt=prompt), completion("b", prompt=prompt), choice, "anna")
    return store


def test_all_trl_pairs_are_conversational(rated, tmp_path):
    from datasets import load_dataset

    out = tmp_path / "pairs.jsonl"
    assert export_pairs(rated.path, "trl", out)["rows"] == 3
    pairs = load_dataset("json", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert pairs.column_names == ["prompt", "chosen", "rejected"]
    # What TRL takes for conversational.
    assert all(set(message) == {"role", "content"} for pair in pairs for said in pair.values() for message in said)
    assert pairs[0] == {
        "prompt": [{"role": "user", "content": "A stain?"}],
        "chosen": [{"role": "assistant", "content": "b"}],
        "rejected": [{"role": "assistant", "content": "left 0"}],
    }
    assert pairs[1]["prompt"] == TURNS
    assert pairs[1]["chosen"] == [{"role": "assistant", "content": "left 1"}]


def test_without_a_conversation_too(store, completion, tmp_path):
    store.rate("a", completion(), completion("b"), "left", "anna")
    store.rate("b", completion(prompt=TURNS), completion("b", prompt=TURNS), "tie", "anna")  # no preference: not there
    export_pairs(store.path, "trl", tmp_path / "pairs.jsonl")
    (line,) = (tmp_path / "pairs.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "prompt": [{"role": "user", "content": "A stain?"}],
        "chosen": [{"role": "assistant", "content": "Rinse it with cold water."}],
        "rejected": [{"role": "assistant", "content": "b"}],
    }


def test_jsonl_and_csv_have_the_messages_in_a_column_of_their_own(rated, tmp_path):
    from datasets import load_dataset

    out = tmp_path / "all.jsonl"
    export_pairs(rated.path, "jsonl", out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row["prompt"] for row in rows] == ["A stain?", TURNS[2]["content"], TURNS[2]["content"], "Ants?"]
    assert [row["messages"] for row in rows] == [TURNS[:1], TURNS, TURNS, [{"role": "user", "content": "Ants?"}]]
    assert rows[1]["left"]["prompt"] == TURNS[2]["content"]
    loaded = load_dataset("json", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["messages"][1] == TURNS
    assert len(read_ratings(out, ["helpful", "terse"])) == 4
    export_pairs(rated.path, "csv", tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [json.loads(row["messages"]) for row in cells] == [row["messages"] for row in rows]
    assert cells[1]["prompt"] == TURNS[2]["content"]
