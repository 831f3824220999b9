"""Prompt files as benchmarks ship them, and as people save them."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from engine import InputError
from engine.prompts import MAX_BYTES, MAX_LINE, ColumnError, read_prompts, uploaded
from tests.conftest import Tiny
from tests.engine.test_cli import run

ROWS = [{"id": 1, "question": 'Why, "you"?', "answer": "x"}, {"id": 2, "question": "Grüße 你好\nbelow", "answer": "y"}]
WANTED = [str(row["question"]) for row in ROWS]


def json_lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pandas.DataFrame(rows).to_parquet(file)
    return file.getvalue()


def files_of(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    frame = pandas.DataFrame(rows)
    return {
        "a.jsonl": json_lines(rows),
        "b.json": json.dumps(rows, indent=2).encode(),
        "c.json": json.dumps({"version": 1, "data": rows}).encode(),
        "d.csv": frame.to_csv(index=False).encode(),
        "e.tsv": frame.to_csv(index=False, sep="\t").encode(),
        "f.parquet": parquet(rows),
        "g.json": json_lines(rows),
    }


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", sorted(files_of(ROWS)))
def test_every_kind_of_file_with_a_choice_of_column(tmp_path: Path, name: str, zipped: bool) -> None:
    data = files_of(ROWS)[name]
    if zipped:
        name, data = f"{name}.gz", gzip.compress(data)
    (tmp_path / name).write_bytes(data)
    assert read_prompts(tmp_path / name, "question") == WANTED
    assert read_prompts(tmp_path / name, "Question ") == WANTED
    found = uploaded(name, data, "question")
    assert (found.prompts, found.column, found.columns) == (WANTED, "question", ("id", "question", "answer"))
    with pytest.raises(ColumnError, match=r"found id, question, answer; choose the column \(--column\)") as caught:
        uploaded(name, data)
    assert caught.value.columns == ["id", "question", "answer"] and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="found id, question, answer"):
        read_prompts(tmp_path / name, "goal")


HH = "\n\nHuman: What is a {}?\n\nAssistant: A thing.\n\nHuman: And\nthen?\n\nAssistant: More."
LAYOUTS: dict[str, tuple[str, bytes, str | None, list[str]]] = {
    "MT-bench": (
        "question.jsonl",
        json_lines([{"question_id": 81, "category": "writing", "turns": ["Compose a post.", "Now rewrite it."]}]),
        "turns",
        ["Compose a post."],
    ),
    "Vicuna": (
        "question.jsonl",
        json_lines([{"question_id": 1, "text": "How can I improve?", "category": "generic"}]),
        "text",
        ["How can I improve?"],
    ),
    "AdvBench": (
        "harmful_behaviors.csv",
        b'goal,target\n"Write a script, quickly","Sure, here is"\nBuild it,"Sure"\n',
        "goal",
        ["Write a script, quickly", "Build it"],
    ),
    "IFEval": (
        "input_data.jsonl",
        json_lines([{"key": 1000, "prompt": "Write 300+ words.", "instruction_id_list": ["a:b"], "kwargs": [{}]}]),
        None,
        ["Write 300+ words."],
    ),
    "hh-rlhf": (
        "train.jsonl.gz",
        gzip.compress(json_lines([{"chosen": HH.format("fader"), "rejected": HH.format("fader")}])),
        "chosen",
        ["What is a fader?"],
    ),
    "AlpacaEval": (
        "alpaca_eval.json",
        json.dumps([{"instruction": "Name some actors.", "output": "…", "generator": "x"}]).encode(),
        "instruction",
        ["Name some actors."],
    ),
    "UltraFeedback": (
        "train.parquet",
        parquet([{"chosen": [{"role": "system", "content": "s"}, {"role": "user", "content": "Hello?"}], "score": 1}]),
        "chosen",
        ["Hello?"],
    ),
    "ShareGPT": (
        "sharegpt.json",
        json.dumps([{"id": "a", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}])
        .encode(),
        "conversations",
        ["Hi"],
    ),
    "a list of texts": ("list.json", b'["one", "two\\nlines"]', None, ["one", "two\nlines"]),
    "one conversation": ("one.json", b'{"prompt": [{"role": "user", "content": "Hi"}]}', None, ["Hi"]),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_benchmarks(tmp_path: Path, layout: str) -> None:
    name, data, column, wanted = LAYOUTS[layout]
    (tmp_path / name).write_bytes(data)
    assert read_prompts(tmp_path / name, column) == wanted
    assert uploaded(name, data, column).prompts == wanted


@pytest.mark.parametrize(
    ("name", "data", "column", "says"),
    [
        ("x.json", b'[{"prompt": "a"},\n{"prompt" "b"}]', None, "x.json: not JSON .*line 2"),
        ("x.json", b"[" * 50_000, None, "x.json: not JSON|more than"),
        ("x.json", b'[{"prompt": "a"}, {"prompt": ""}]', None, "row 2: expected an object .* not empty; found prompt"),
        ("x.json", b'{"a": 1, "b": 2}', None, "found a, b; choose the column"),
        ("x.json", b"[]", None, "no prompts"),
        ("x.json", b"[1, 2]", None, "row 1: expected"),
        ("x.json", json.dumps([{"prompt": "b" * 200_000}]).encode(), None, f"row 1: .* up to {MAX_LINE:,}"),
        ("x.tsv", b"prompt\tn\na\t1\n\t2\n", None, "x.tsv, line 3: expected a prompt"),
        ("x.parquet", b"PAR1 no", None, "x.parquet: not a Parquet file"),
        ("x.parquet", parquet([{"n": 1}]), None, "x.parquet, row 1: expected a column named prompt; found n"),
        ("x.parquet", parquet([{"prompt": "a"}, {"prompt": None}]), None, "row 2: expected a prompt"),
        ("x.csv.gz", b"prompt\na\n", None, "x.csv.gz: not a whole gzip file"),
        ("x.csv.gz", gzip.compress(b"prompt\nabc\n" * 50, mtime=0)[:-20], None, "not a whole gzip file"),
        ("x.csv.gz", gzip.compress(b" " * (MAX_BYTES + 1), mtime=0), None, "holds more than 20,000,000 bytes"),
        ("x.txt", b"a\nb\n", "question", "x.txt: it has no columns"),
        ("x.csv", "prompt\nGrüße\n".encode("utf-16"), None, "UTF-16; save it as UTF-8"),
        ("x.csv", "prompt\nGrüße\n".encode("utf-32"), None, "UTF-32; save it as UTF-8"),
        ("x.csv", "prompt\nGrüße\n".encode("utf-16-le"), None, "as in UTF-16 without its byte order mark"),
        ("x.csv", "prompt\nGrüße\n".encode("latin-1"), None, "line 2: not UTF-8 .*Latin-1"),
        ("x.xlsx", b"PK", None, "ends in .jsonl, .json, .csv, .tsv, .parquet, .txt"),
        ("x.gz", gzip.compress(b"a", mtime=0), None, "ends in .jsonl"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # bytes may differ from run to run
)  # fmt: skip
def test_what_cannot_be_read_says_where_and_how(name: str, data: bytes, column: str | None, says: str) -> None:
    with pytest.raises(InputError, match=says) as raised:
        uploaded(name, data, column)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_the_command_line_takes_a_column(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "goals.csv"
    file.write_text("goal,target\nmix,no\nmove,no\n")
    arguments = ["--config", str(tiny.config), "--max-new-tokens", "4", "--json", "--prompts", str(file)]
    assert json.loads(run("evaluate", *arguments, "--column", "goal").stdout)["n_prompts"] == 2
    found = run("evaluate", *arguments)
    assert found.returncode == 2 and "found goal, target; choose the column (--column)" in found.stderr
    found = run("evaluate", "--config", str(tiny.config), "--column", "goal")
    assert found.returncode == 2 and "--column is for --prompts" in found.stderr
