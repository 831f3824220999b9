"""Comparisons as files, and what the page's file routes refuse."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas
import pytest
from fastapi.testclient import TestClient

from app.server.desk_app import web_app
from app.services.app_state import Desk
from app.storage.comparisons import Plan
from app.storage.export import harmless
from app.ui.page import build_page
from engine import Mixture, Sampling

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"]
PROMPTS = ["=HYPERLINK(0)", 'Plain, "quoted"\nline two 你好', "later"]


@pytest.fixture
def desk(store, tiny_engine) -> Desk:
    return Desk(tiny_engine, store)


@pytest.fixture
def comparison(desk, completion) -> int:
    """Two of three prompts are answered."""
    mixtures = {"Reference": Mixture({"reference": 1.0}), "plain=1, gain=2": Mixture({"plain": 1.0}, gain=2.0)}
    scale = {"helpful": (1.0, 0.5), "concise": (0.0, 1.0)}
    tables = desk.comparisons.tables
    made = tables.add(Plan("tiny", "mine.csv", mixtures, PROMPTS, Sampling(8, 0.5), 3, scale))
    for place, prompt in enumerate(PROMPTS[:2]):
        answers = [completion(text, prompt=prompt, mixture=mixture) for text, mixture in zip(
            ("-1 is negative", "fine"), mixtures.values(), strict=True
        )]  # fmt: skip
        tables.keep(made, place, answers, "tiny")
    return made


@pytest.fixture
def client(desk) -> TestClient:
    return TestClient(web_app(build_page(desk), desk))


def test_csv_json_lines_and_parquet_say_the_same(client, comparison):
    answers = {form: client.get(f"/comparisons/{comparison}.{form}") for form in ("csv", "jsonl", "parquet")}
    for form, answer in answers.items():
        assert answer.status_code == 200
        assert answer.headers["content-disposition"] == f'attachment; filename="comparison-{comparison}.{form}"'
        assert answer.headers["x-content-type-options"] == "nosniff"
    rows = list(csv.DictReader(io.StringIO(answers["csv"].text, newline="")))
    full = [json.loads(line) for line in answers["jsonl"].text.split("\n")[:-1]]
    frame = pandas.read_parquet(io.BytesIO(answers["parquet"].content))
    assert len(rows) == len(full) == len(frame) == 4
    assert rows[0]["prompt"] == "'=HYPERLINK(0)" and rows[0]["response"] == "'-1 is negative"
    assert frame["prompt"][0] == full[0]["prompt"] == "=HYPERLINK(0)"
    assert rows[3]["prompt"] == full[3]["prompt"] == PROMPTS[1]
    assert [row["mixture"] for row in rows[:2]] == ["Reference", "plain=1, gain=2"]
    assert float(rows[0]["reward_helpful"]) == 1.25 and float(rows[0]["standard_helpful"]) == 0.5
    assert frame["standard_helpful"].tolist() == [0.5] * 4 and frame["reward_concise"].dtype == np.float64
    assert full[1]["mixture"] == {"weights": {"plain": 1.0}, "rule": "geometric", "gain": 2.0, "exponent": 1.0}
    assert json.loads(rows[1]["weights"]) == {"plain": 1.0} and rows[1]["gain"] == "2.0"


def test_no_cell_is_a_formula():
    assert [harmless(text) for text in FORMULAS] == [f"'{text}" for text in FORMULAS]
    assert [harmless(value) for value in ("a=1", "", None, -1.5)] == ["a=1", "", None, -1.5]


@pytest.mark.parametrize("path", ["9.csv", "1.exe", "..%2f..%2fetc%2fpasswd.csv", "x.csv", "1", "1.csv%2f..%2fx"])
def test_nothing_else_can_be_downloaded(client, comparison, path):
    answer = client.get(f"/comparisons/{path}")
    assert answer.status_code in (404, 422)
    assert "root:" not in answer.text


def test_files_outside_the_folder_of_uploads_are_refused(client, desk, store):
    for path in ("/etc/passwd", str(store.path), "pyproject.toml", "../../../../etc/passwd", "mixdesk.db"):
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404), path
    index = next(i for i, made in client.app.routes[-1].app.get_blocks().fns.items() if made.name == "taking")

    def take(path: str):
        given = {"path": path, "orig_name": "mine.txt", "meta": {"_type": "gradio.FileData"}}
        asked = {"fn_index": index, "data": [given, None], "session_hash": "somebody"}
        return client.post("/gradio_api/run/predict", json=asked)

    (mine,) = client.post("/gradio_api/upload", files={"files": ("mine.txt", b"one\ntwo\n")}).json()
    assert "mine.txt: 2 prompts" in take(mine).text, "what was uploaded is not taken"
    foreign = ("/etc/passwd", str(store.path), f"{mine}/../../../../../../../../etc/passwd", "http://127.0.0.1:1/x.txt")
    for path in foreign:
        answer = take(path)
        assert answer.status_code >= 400, answer.text
        assert "root:" not in answer.text and "prompts" not in answer.text
    # Nor through a component that takes no files.
    adding = next(i for i, made in client.app.routes[-1].app.get_blocks().fns.items() if made.name == "adding")
    given = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    asked = {"fn_index": adding, "data": [given, []], "session_hash": "somebody"}
    assert client.post("/gradio_api/run/predict", json=asked).status_code >= 400
