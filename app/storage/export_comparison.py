"""Export of a comparison as CSV, JSON lines or Parquet, one row per response."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from typing import Any

import pyarrow
import pyarrow.parquet
from fastapi import FastAPI, HTTPException, Response

from app.storage.comparisons import ComparisonTables
from app.storage.export import write_lines, write_table
from engine import InputError

Rows = list[dict[str, Any]]


def export_comparison(tables: ComparisonTables, comparison: int, form: str) -> bytes:
    """Return a comparison's responses so far, encoded in one of `FORMATS`.

    Raises:
        InputError: if the comparison has been deleted.
    """
    plan = tables.plan(comparison)
    rows = tables.completions(comparison)
    for row in rows:
        row["standard"] = {
            name: (value - plan.scale[name][0]) / plan.scale[name][1]
            for name, value in row["rewards"].items()
            if name in plan.scale and all(map(math.isfinite, plan.scale[name]))
        }
    return FORMATS[form][0](rows)


def flat_rows(row: dict[str, Any]) -> dict[str, Any]:
    """Return a response as plain values.

    reward_<name> is the raw reward, standard_<name> the same in standard deviations from the reference's mean, and
    missing_rewards a JSON object with the reasons for missing rewards, or "".
    """
    mixture, sampling = row["mixture"], row["sampling"]
    return {
        "place": row["place"],
        "prompt": row["prompt"],
        "mixture": row["mixture_name"],
        "response": row["text"],
        **{f"reward_{name}": value for name, value in row["rewards"].items()},
        **{f"standard_{name}": value for name, value in row["standard"].items()},
        "missing_rewards": json.dumps(row["missing_rewards"], ensure_ascii=False) if row["missing_rewards"] else "",
        "tokens": len(row["tokens"]),
        "finish_reason": row["finish_reason"],
        **mixture,
        "weights": json.dumps(mixture["weights"], ensure_ascii=False),
        "max_new_tokens": sampling["max_new_tokens"],
        "temperature": sampling["temperature"],
        "seed": row["seed"],
        "model": row["model"],
        "created_at": row["created_at"],
    }


def as_csv(rows: Rows) -> bytes:
    """Return the rows as UTF-8 CSV."""
    file = io.StringIO(newline="")
    write_table([flat_rows(row) for row in rows], file)
    return file.getvalue().encode()


def as_lines(rows: Rows) -> bytes:
    """Return the rows as JSON lines, unflattened."""
    file = io.StringIO()
    write_lines(rows, file)
    return file.getvalue().encode()


def as_parquet(rows: Rows) -> bytes:
    """Return the rows as a Parquet file."""
    file = io.BytesIO()
    flats = [flat_rows(row) for row in rows]
    # Of all rows: a row that lacks a reward has no column for it.
    columns = list(dict.fromkeys(name for row in flats for name in row))
    table = pyarrow.Table.from_pylist([{name: row.get(name) for name in columns} for row in flats])
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


FORMATS: dict[str, tuple[Callable[[Rows], bytes], str]] = {
    "csv": (as_csv, "text/csv; charset=utf-8"),
    "jsonl": (as_lines, "application/jsonl"),
    "parquet": (as_parquet, "application/vnd.apache.parquet"),
}


def serve_exports(app: FastAPI, tables: ComparisonTables) -> None:
    """Add the route that exports a comparison by its number and format; no file path comes from the request."""

    @app.get("/comparisons/{comparison}.{form}")
    def download(comparison: int, form: str) -> Response:
        if form not in FORMATS:
            raise HTTPException(404, f"format: give one of {', '.join(FORMATS)}")
        try:
            content = export_comparison(tables, comparison, form)
        except InputError as error:
            raise HTTPException(404, str(error)) from None
        headers = {
            "Content-Disposition": f'attachment; filename="comparison-{comparison}.{form}"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        return Response(content, media_type=FORMATS[form][1], headers=headers)
