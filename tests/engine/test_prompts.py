"""Files of prompts, also from somebody who means no good with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine import InputError
from engine.prompts import MAX_LINE, MAX_PROMPTS, read_prompts, uploaded


def lines(*prompts: str) -> bytes:
    return "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts).encode()


def test_json_lines_csv_and_text_say_the_same(tmp_path: Path) -> None:
    wanted = ['Why, "you"?', "Grüße 你好 \u2028 below", "two\nlines"]
    rows = "".join(f'"{prompt.replace(chr(34), chr(34) * 2)}",1\r\n' for prompt in wanted)
    files = {
        "a.jsonl": "\n\n".join(json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in wanted),
        "b.csv": "\ufeff Prompt ,n\r\n" + rows,
        "c.CSV": ("prompt,n\r\n" + rows).replace(",1", ";1").replace("t,n", "t;n"),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        assert read_prompts(tmp_path / name) == wanted
        found = uploaded(name, text.encode())
        assert (found.prompts, found.duplicates) == (wanted, 0)
    assert uploaded("a.jsonl", files["a.jsonl"].encode()).lines == [1, 3, 5]
    assert read_prompts_of(tmp_path, "one\n\ntwo\r\nthree") == ["one", "two", "three"]


def read_prompts_of(folder: Path, text: str) -> list[str]:
    (folder / "plain.txt").write_text(text, newline="")
    return read_prompts(folder / "plain.txt")


def test_what_looks_dangerous_is_only_text() -> None:
    texts = [
        "<script>alert(1)</script>",
        "'); DROP TABLE ratings; --",
        "=HYPERLINK(0)",
        "../../etc/passwd",
        "{{7*7}} ${alert(1)}",
    ]
    assert uploaded("<b>..%2f..%2fx.jsonl", lines(*texts)).prompts == texts


def test_duplicates_are_asked_once() -> None:
    found = uploaded("twice.jsonl", lines("a", "b", "a", "a"))
    assert (found.prompts, found.lines, found.duplicates) == (["a", "b"], [1, 2], 2)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("x.jsonl", lines("1", "2", "3", "4", "5", "6") + b"{nope\n", "x.jsonl, line 7: not JSON"),
        ("x.jsonl", b"[" * 50_000, "line 1: not JSON"),
        ("x.jsonl", lines("a") + b'{"text": "b"}\n', 'line 2: expected an object with a "prompt"'),
        ("x.jsonl", lines("a") + b'{"prompt": 5}\n', "line 2: expected"),
        ("x.jsonl", b'["a"]\n', "line 1: expected"),
        ("x.csv", b"text,n\na,1\n", "line 1: expected a column named prompt; found text, n"),
        ("x.csv", b"n,prompt\n1,a\n2,\n", "line 3: expected a prompt"),
        ("x.csv", b'n,prompt\n1,"a\nb"\n2\n', "line 4: expected a prompt"),
        ("x.jsonl", b"", "no prompts"),
        ("x.csv", b"prompt\n", "no prompts"),
        ("x.csv", b"\n \n", "no prompts"),
        ("x.jsonl", lines("a") + b'{"prompt": "' + b"b" * 10_000_000 + b'"}\n', f"line 2: .* up to {MAX_LINE:,}"),
        ("x.csv", b"prompt\n" + b"b" * 10_000_000, f"line 2: .* up to {MAX_LINE:,}"),
        ("x.jsonl", b" " * 20_000_001, "give a file of up to 20,000,000"),
        ("x.jsonl", '{"prompt": "ü"}'.encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("x.jsonl", '{"prompt": "ab"}'.encode("utf-16-le"), "line 1: not a text file"),
        ("x.csv", "prompt\nfine\nGrüße\n".encode("latin-1"), "line 3: not UTF-8 .*0xfc"),
        ("x.txt", b"a\nb\x00c", "line 2: not a text file"),
        ("x.exe", lines("a"), "ends in .jsonl"),
        ("x", lines("a"), "ends in .jsonl"),
        (
            "x.jsonl",
            lines(*(str(i) for i in range(100_000))),
            f"line {MAX_PROMPTS + 1}: more than {MAX_PROMPTS:,} prompts",
        ),
    ],
    ids=lambda value: str(value[:20]) if isinstance(value, bytes) else None,
)
def test_a_file_that_cannot_be_says_where(name: str, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says) as raised:
        uploaded(name, data)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300
