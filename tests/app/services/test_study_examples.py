"""Training and gold pairs from files: every form that is accepted, and what is said of the others, with the line."""

from __future__ import annotations

import gzip
import json

import pytest

from app.schemas.study import Example
from app.services.study_examples import MAX_EXAMPLE_BYTES, read_examples
from engine import InputError

QUESTIONS = ("overall", "harmless")
ROW = {"prompt": "A stain?", "first": "Cold water.", "second": "Bleach!", "expected": "first", "feedback": "Bleach…"}


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(name: str, data: bytes, most: int = 50) -> list[Example]:
    return read_examples(name, data, QUESTIONS, most)


def test_every_form_gives_the_same_pairs() -> None:
    wanted = [
        Example(
            prompt="A stain?",
            first="Cold, water.",
            second="Bleach!",
            expected={"overall": ["first", "tie"], "harmless": ["first"]},
            feedback="Bleach…",
        )
    ]
    row = {**ROW, "first": "Cold, water."}
    head = "Prompt,first,second,expected,expected_harmless,feedback\n"
    table = head + 'A stain?,"Cold, water.",Bleach!,{},First,Bleach…\n'
    spread = "prompt\tfirst\tsecond\texpected\nA stain?\tCold, water.\tBleach!\ttie|x\n"
    forms = {
        "a.jsonl": lines({**row, "expected": {"overall": ["first", "tie"], "harmless": "first"}}),
        "b.json": json.dumps([{**row, "expected": ["first", "tie"], "expected_harmless": "FIRST"}]).encode(),
        "c.csv": table.format("first|tie").encode(),
        "d.csv": table.format("first or tie").encode("utf-8-sig"),
        "e.csv.gz": gzip.compress(table.format("First / Tie").encode()),
    }
    for name, data in forms.items():
        assert read(name, data) == wanted, name
    with pytest.raises(InputError, match=r"f.tsv, line 2: expected is 'x'; give first, second, tie or both_bad"):
        read("f.tsv", spread.encode())
    assert read("g.jsonl", lines({**ROW, "expected": "both bad", "feedback": None}))[0].expected == {
        "overall": ["both_bad"]
    }


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.txt", b"x", "a.txt: give a file that ends in .jsonl"),
        ("a.jsonl", lines(ROW) + b"{nope\n", "a.jsonl, line 2: not JSON"),
        ("a.jsonl", lines(ROW, ["x"]), "a.jsonl, line 2: expected columns or an object with prompt, first"),
        ("a.jsonl", lines(ROW, {"prompt": "x", "first": "y"}), "line 2: there is no “second”; found prompt, first"),
        ("a.csv", b"prompt,first,second\nx,y,z\n", "line 2: there is no “expected”; found prompt, first, second"),
        ("a.csv", b"prompt,first,second,expected\nx,y\n", "a.csv, line 2: there is no “second”"),
        ("a.jsonl", lines(ROW, {**ROW, "expected": "left"}), "line 2: expected is 'left'; give first, second, tie or"),
        ("a.jsonl", lines({**ROW, "expected": []}), "line 1: expected is 'nothing'"),
        ("a.jsonl", lines({**ROW, "expected": {"kind": "first"}}), "an answer to “kind”, and the study asks overall"),
        ("a.jsonl", lines({**ROW, "prompt": 7}), "line 1: its prompt is int; give a text"),
        ("a.jsonl", lines({**ROW, "prompt": " "}), "line 1: its prompt is empty"),
        ("a.jsonl", lines({**ROW, "first": "x" * 20_001}), "line 1: its first: String should have at most 20000"),
        ("a.jsonl", lines(ROW, ROW, ROW), "a.jsonl, line 3: more than 2 pairs"),
        ("a.jsonl", b"\n", "a.jsonl: it holds no pairs; give one a line, with prompt, first, second, expected"),
        ("a.csv", "prompt\nGrüße\n".encode("latin-1"), "a.csv, line 2: not UTF-8"),
        ("a.csv", b"x" * (MAX_EXAMPLE_BYTES + 1), "give a file of up to 5,000,000"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(name: str, data: bytes, says: str) -> None:
    with pytest.raises(InputError) as raised:
        read(name, data, most=2)
    assert says in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
