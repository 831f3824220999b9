from __future__ import annotations

import csv
import json

import pytest

from app.storage.export import export_pairs
from engine import InputError


@pytest.fixture
def rated(store, completion):
    ratings = [("left", None), ("right", None), ("tie", None), ("both_bad", None), ("left", "helpful")]
    for i, (choice, objective) in enumerate(ratings):
        left = completion(f'Left, "{i}"\nline two \u2028 你好', prompt=f"Question {i}?")
        store.rate(f"r-{i}", left, completion(f"Right {i}", prompt=f"Question {i}?"), choice, "anna", objective)
    return store


def test_trl_pairs_are_read_by_datasets(rated, tmp_path):
    from datasets import load_dataset

    out = tmp_path / "deep" / "pairs.jsonl"
    assert export_pairs(rated.path, "trl", out) == {"ratings": 5, "rows": 2, "format": "trl", "out": str(out)}
    pairs = load_dataset("json", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert pairs.column_names == ["prompt", "chosen", "rejected"]
    lefts = ['Left, "0"\nline two \u2028 你好', 'Left, "1"\nline two \u2028 你好']
    assert pairs[0] == conversational("Question 0?", lefts[0], "Right 0")
    assert pairs[1] == conversational("Question 1?", "Right 1", lefts[1])


def conversational(prompt: str, chosen: str, rejected: str) -> dict[str, list[dict[str, str]]]:
    """TRL's format whose responses are put into the chat template; of texts it only joins prompt and response."""
    said = {"prompt": ("user", prompt), "chosen": ("assistant", chosen), "rejected": ("assistant", rejected)}
    return {column: [{"role": role, "content": text}] for column, (role, text) in said.items()}


def test_jsonl_holds_everything_of_every_rating(rated, tmp_path):
    export_pairs(rated.path, "jsonl", tmp_path / "all.jsonl")
    lines = (tmp_path / "all.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    pairs = list(rated.pairs())
    told = [{**pair, "messages": [{"role": "user", "content": pair["prompt"]}]} for pair in pairs]
    assert [json.loads(line) for line in lines] == told


def test_csv_holds_everything_of_every_rating(rated, tmp_path):
    export_pairs(rated.path, "csv", tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pair = list(rated.pairs())[4]
    assert len(rows) == 5
    assert rows[4]["left_text"] == pair["left"]["text"]
    assert rows[4]["objective"] == "helpful"
    assert json.loads(rows[4]["left_weights"]) == pair["left"]["mixture"]["weights"]
    assert json.loads(rows[4]["right_rewards"]) == pair["right"]["rewards"]
    assert int(rows[4]["right_seed"]) == pair["right"]["seed"]


def test_an_empty_store_gives_an_empty_file(store, tmp_path):
    for form in ("trl", "jsonl", "csv"):
        assert export_pairs(store.path, form, tmp_path / form)["rows"] == 0
        assert (tmp_path / form).read_text() == ""


def test_wrong_arguments_leave_an_older_export_whole(rated, tmp_path):
    out = tmp_path / "pairs.jsonl"
    out.write_text("older")
    with pytest.raises(InputError, match="--format"):
        export_pairs(rated.path, "xml", out)
    with pytest.raises(InputError, match="no such database"):
        export_pairs(tmp_path / "missing.db", "trl", out)
    with pytest.raises(InputError, match="--out"):
        export_pairs(rated.path, "trl", tmp_path)
    with pytest.raises(InputError, match="--out"):
        export_pairs(rated.path, "trl", out / "below.jsonl")
    assert out.read_text() == "older"
    assert not (tmp_path / "missing.db").exists()
