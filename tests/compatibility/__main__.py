"""Measure every row, and write docs/compatibility.md.

    python -m tests.compatibility [--only 'families/llama*'] [--fresh]

Results are kept as they come, so that a run that was interrupted goes on where it stopped; they are measured again when
the engine, this package or one of the libraries changes. Exit code 1 if a row is neither within the bound nor refused.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import logging
import os
import sys
import time
import warnings
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # everything is made here; nothing is asked for
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch
from transformers.utils import logging as transformers_logging

from tests.compatibility import adapters, families, page, rewards, tokenizers
from tests.compatibility.rows import FAILED, SKIPPED, Result, Row

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
STARTED = "started"


def all_rows() -> list[Row]:
    return [*families.rows(), *adapters.rows(), *rewards.rows(), *tokenizers.rows()]


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "tokenizers")}


SHARED = ("decoding.py", "rows.py", "../conftest.py")


def fingerprint() -> str:
    """Return a digest of what all results depend on: the libraries, the engine, and how it is measured."""
    digest = hashlib.sha256(json.dumps(versions()).encode())
    here = Path(__file__).parent
    for file in [*sorted((ROOT / "engine").rglob("*.py")), *(here / name for name in SHARED)]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Kept:
    """Results in a file, each written as soon as it is there."""

    def __init__(self, file: Path, rows: list[Row], fresh: bool) -> None:
        self.file, self.digest = file, fingerprint()
        self.settings = {row.key: row.settings for row in rows}
        self.results: dict[str, Result] = {}
        self.interrupted: set[str] = set()  # rows under way when the last run ended
        try:
            kept = {} if fresh else json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kept = {}
        if kept.get("fingerprint") != self.digest:
            return
        for key, (settings, values) in kept["results"].items():
            if self.settings.get(key) != settings:
                continue
            result = Result(**values)
            if result.path == STARTED and result.note:  # it took the process with it, and did so again
                result = Result(FAILED, None, "it ended the process twice, or was interrupted")
            if result.path == STARTED:
                self.interrupted.add(key)
            elif result.path != SKIPPED:
                self.results[key] = result

    def put(self, key: str, result: Result | None) -> None:
        """Keep a result; None forgets it."""
        self.results.pop(key, None)
        if result is not None:
            self.results[key] = result
        self.file.parent.mkdir(parents=True, exist_ok=True)
        results = {name: (self.settings[name], asdict(value)) for name, value in self.results.items()}
        kept = {"fingerprint": self.digest, "results": results}
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(kept), encoding="utf-8")
        os.replace(partial, self.file)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compatibility", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="rows to measure, such as 'adapters/*'; measured again if kept")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page to write")
    parser.add_argument("--results", type=Path, default=tokenizers.cache_folder() / "results.json", help="what is kept")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tiny models gain nothing from more
    warnings.simplefilter("ignore")
    logging.getLogger("mixdesk").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()

    rows = all_rows()
    kept = Kept(options.results, rows, options.fresh)
    chosen = [row for row in rows if not options.only or any(fnmatch(row.key, only) for only in options.only)]
    # The tables in turn, so that a run that is interrupted has something of each.
    place = {row.key: sum(other.section == row.section for other in rows[:i]) for i, row in enumerate(rows)}
    chosen.sort(key=lambda row: place[row.key])
    began = time.monotonic()
    for number, row in enumerate(chosen, 1):
        if options.only:
            kept.results.pop(row.key, None)
        if row.key not in kept.results:
            start = time.monotonic()
            kept.put(row.key, Result(STARTED, None, "again" if row.key in kept.interrupted else ""))
            try:
                kept.put(row.key, row.run())
            except KeyboardInterrupt:
                kept.put(row.key, None)
                print("interrupted; the next run goes on from here", file=sys.stderr)
                return 130
            seconds = f"{time.monotonic() - start:5.1f} s"
        else:
            seconds = "   kept"
        result = kept.results[row.key]
        mark = " " if result.is_right else "!"
        line = f"{mark} {number:3}/{len(chosen)} {seconds} {row.key:45} {result.path:8} {page.shown(result):12}"
        print(f"{line} {result.note[:150]}", flush=True)
    print(f"{time.monotonic() - began:.0f} s")
    wrong = [row for row in chosen if not kept.results[row.key].is_right]
    if all(row.key in kept.results for row in rows):
        options.out.write_text(page.write_page(rows, kept.results, versions()), encoding="utf-8")
        print(f"written: {options.out}")
    else:
        print("the page is written when all rows are measured")
    for row in wrong:
        print(f"not right: {row.key}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
