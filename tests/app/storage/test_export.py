from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.__main__ import main
from app.storage.export import export_pairs
from engine import InputError

ROOT = Path(__file__).parents[3]


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


@pytest.mark.parametrize("name", ["same", "-wal", "-shm", "-journal", "symbolic", "hard", "through", "dots", "other"])
@pytest.mark.parametrize("in_use", [True, False])
def test_an_export_never_replaces_a_database(rated, tmp_path, capsys, name, in_use):
    db = rated.path
    links = {"symbolic": tmp_path / "symbolic.jsonl", "hard": tmp_path / "hard.jsonl", "through": tmp_path / "link.db"}
    links["symbolic"].symlink_to(db)
    links["through"].symlink_to(db)
    os.link(db, links["hard"])
    if not in_use:
        rated.close()
    shutil.copy(db, tmp_path / "other.db")
    given = {"same": db, "dots": db.parent / ".." / db.parent.name / db.name, "other": tmp_path / "other.db", **links}
    out = given.get(name, Path(f"{db}{name}"))
    source = links["through"] if name == "same" else db
    before = {path: path.read_bytes() for path in [*tmp_path.iterdir(), *db.parent.iterdir()] if path.is_file()}
    assert main(["export", "--db", str(source), "--out", str(out), "--format", "jsonl"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --out: ") and line.endswith("give another file")
    assert {path: path.read_bytes() for path in before} == before
    assert {path for path in [*tmp_path.iterdir(), *db.parent.iterdir()] if path.is_file()} == set(before)


def test_an_export_into_a_device_or_a_pipe_is_refused(rated, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    for out in ("/dev/full", "/dev/null", str(tmp_path / "pipe")):
        assert main(["export", "--db", str(rated.path), "--out", out]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "device or a pipe" in line
    assert not list(Path("/dev").glob(".mixdesk*"))


def test_a_full_disk_leaves_an_older_export_whole(rated, completion, tmp_path):
    """A limit on the size of files stands for the full disk."""
    out = tmp_path / "exports" / "all.jsonl"
    out.parent.mkdir()
    out.write_text("older")
    rated.rate("long", completion("x" * 100_000), completion("b"), "left", "anna")
    rated.close()
    limited = (
        "import resource, signal, sys\n"
        "from app.__main__ import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["export", "--db", str(rated.path), "--format", "jsonl", "--out", str(out)]
    command = [sys.executable, "-B", "-c", limited, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert str(out) in line
    assert out.read_text() == "older" and list(out.parent.iterdir()) == [out]


def test_an_older_partial_export_is_not_destroyed(rated, tmp_path):
    """The export once wrote into a file of this name."""
    (tmp_path / "o.jsonl.partial").write_text("mine")
    export_pairs(rated.path, "jsonl", tmp_path / "o.jsonl")
    assert (tmp_path / "o.jsonl.partial").read_text() == "mine"
