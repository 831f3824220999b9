"""A few rows of docs/compatibility.md, and what is written of the others."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.compatibility import adapters, families, page, rewards, tokenizers
from tests.compatibility.rows import FAILED, FOLDED, GENERAL, READ, REFUSED, Result, Row

ROWS = {row.key: row for table in (families, adapters, rewards, tokenizers) for row in table.rows()}


@pytest.mark.parametrize(
    ("key", "paths"),
    [
        ("families/falcon", {FOLDED, GENERAL}),
        ("families/mamba", {GENERAL, REFUSED}),
        ("families/phi", {FOLDED}),
        ("adapters/DoRA", {FOLDED, GENERAL}),
        ("adapters/rsLoRA", {FOLDED}),
        ("adapters/two stacked", {FOLDED}),
        ("rewards/bert, three outputs", {READ}),
        ("rewards/llama, rsLoRA", {READ}),
        ("tokenizers/byte-fallback, made here", {READ}),
        ("tokenizers/byte-level, made here", {READ}),
    ],
)
def test_a_row(key: str, paths: set[str]) -> None:
    result = ROWS[key].run()
    assert result.path in paths and result.is_right, result


def test_there_are_enough_rows_each_with_its_own_name() -> None:
    tables = {"families": 60, "adapters": 50, "rewards": 15, "tokenizers": 6}
    for section, fewest in tables.items():
        assert sum(row.section == section for row in ROWS.values()) >= fewest
    assert len(ROWS) == sum(len(table.rows()) for table in (families, adapters, rewards, tokenizers))


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    def fail(folder: Path) -> Result:
        raise KeyError(f"nothing in {folder}")

    results = {
        "exact": Result(FOLDED, 2e-6),
        "off": Result(GENERAL, 0.5, "general path, since it uses a|b"),
        "nan": Result(FOLDED, math.inf),
        "refused": Result(REFUSED, None, "give another"),
        "raised": Row("families", "raised", fail).run(),
    }
    assert results["raised"] == Result(FAILED, None, "KeyError: 'nothing in ...'")
    rows = [Row("families", name, fail) for name in results]
    text = page.write_page(rows, {f"families/{name}": result for name, result in results.items()}, {"peft": "1"})
    assert "2 of 5 rows are right. Not right: families: off; families: nan; families: raised." in text
    assert "| exact | folded | 2.0e-06 |  |" in text
    assert "| **off** | general | 0.5 | general path, since it uses a\\|b |" in text
    assert "| **nan** | folded | not a number |  |" in text
