"""Prompts and labelled texts for training and evaluating the real policies, split into disjoint folds.

Fold A trains policies and their reward heads, fold B the judges, fold C evaluates. A prompt's fold is a hash of its
text, so that later changes to a file do not move it. The public files are named in the model card; they are not in the
repository.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

AUTHORED = Path(__file__).parent / "authored"
STYLES = ("helpful", "harmless", "humorous", "concise", "plain")
# Shares of the prompts of each source in the folds A, B and C.
SHARES = {
    "hh": (0.45, 0.3, 0.25),
    "xstest": (0.35, 0.2, 0.45),
    "self-instruct": (0.55, 0.15, 0.3),
    "vicuna": (0.25, 0.0, 0.75),
    "authored": (0.75, 0.25, 0.0),
}
LONGEST = 60  # words of a prompt


@dataclass(frozen=True)
class Asked:
    """A prompt, its source and its kind: safe, borderline (sounds unsafe), unsafe, or red-team (all of hh-rlhf)."""

    prompt: str
    source: str
    kind: str = "safe"

    @property
    def fold(self) -> str:
        """The prompt's fold: A, B or C."""
        return fold_of(self.source, self.prompt)


@dataclass(frozen=True)
class Answered:
    """A response with its grade; higher is better among responses to the same prompt."""

    prompt: str
    response: str
    grade: float
    source: str

    @property
    def fold(self) -> str:
        """The prompt's fold: A, B or C."""
        return fold_of(self.source, self.prompt)


def unit(*parts: object) -> float:
    """Return a number in [0, 1) that is a hash of the parts."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def fold_of(source: str, prompt: str) -> str:
    """Return a prompt's fold, A, B or C; case and whitespace do not matter."""
    a, b, _ = SHARES[source]
    place = unit("fold", " ".join(prompt.lower().split()))
    return "A" if place < a else "B" if place < a + b else "C"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL file, which may be gzipped."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def authored() -> list[dict[str, str]]:
    """Return the entries written for this project: a prompt, its kind, and an answer in each of the STYLES."""
    return [entry for path in sorted(AUTHORED.glob("*.yaml")) for entry in yaml.safe_load(path.read_text("utf-8"))]


def turns(conversation: str) -> list[str]:
    """Split a conversation of hh-rlhf into its turns, the human's first."""
    return [part.strip() for part in re.split(r"\n\n(?:Human|Assistant):", conversation) if part.strip()]


def hh_pairs(sources: Path) -> list[tuple[str, str, str]]:
    """Return (prompt, chosen, rejected) of the conversations with a single question."""
    found = []
    for row in read_lines(sources / "hh-harmless-pairs.jsonl.gz"):
        chosen, rejected = turns(row["chosen"]), turns(row["rejected"])
        if len(chosen) == len(rejected) == 2 and chosen[0] == rejected[0]:
            found.append((chosen[0], chosen[1], rejected[1]))
    return found


def hh_prompts(sources: Path) -> list[Asked]:
    """Return the first turns of all conversations; most of them try to elicit something harmful."""
    firsts = (turns(row["chosen"])[0] for row in read_lines(sources / "hh-harmless-pairs.jsonl.gz"))
    return [Asked(first, "hh", "red-team") for first in once(firsts)]


def xstest_prompts(sources: Path) -> list[Asked]:
    """Return XSTest's prompts with their labels."""
    with (sources / "xstest-prompts.csv").open(encoding="utf-8", newline="") as file:
        return [Asked(row["prompt"], "xstest", row["label"]) for row in csv.DictReader(file)]


def xstest_answers(sources: Path) -> list[Answered]:
    """Return XSTest's labelled answers; a refusal is better for an unsafe prompt, compliance for a safe one."""
    kinds = {asked.prompt: asked.kind for asked in xstest_prompts(sources)}
    refused = {"1_full_compliance": 0.0, "3_partial_refusal": 0.5, "2_full_refusal": 1.0}
    found = []
    for row in read_lines(sources / "xstest-labelled.jsonl.gz"):
        if row["prompt"] in kinds and row["label"] in refused and row["completion"]:
            share = refused[row["label"]]
            grade = share if kinds[row["prompt"]] == "unsafe" else 1 - share
            found.append(Answered(row["prompt"], row["completion"], grade, "xstest"))
    return found


def self_instruct_prompts(sources: Path) -> list[Asked]:
    """Return the distinct prompts of self-instruct's tasks."""
    rows = read_lines(sources / "self-instruct-tasks.jsonl")
    return [Asked(prompt, "self-instruct") for prompt in once(row["prompt"] for row in rows)]


def self_instruct_answers(sources: Path) -> list[Answered]:
    """Return answers of four models, graded in the order of human judgements, and human answers."""
    order = {"davinci": 0.0, "text-davinci-001": 1.0, "text-davinci-002": 1.5, "text-davinci-003": 2.0}
    found = []
    for row in read_lines(sources / "self-instruct-answers.jsonl.gz"):
        prompt = f"{row['instruction']}\n\n{row['input']}".strip()
        if row["model"] in order and row["response"]:
            found.append(Answered(prompt, row["response"], order[row["model"]], "self-instruct"))
    for row in read_lines(sources / "self-instruct-tasks.jsonl"):
        if row["answer"]:
            found.append(Answered(row["prompt"], row["answer"], 1.5, "self-instruct"))
    return found


def vicuna_prompts(sources: Path) -> list[Asked]:
    """Return the first turns of Vicuna's questions."""
    return [Asked(row["turns"][0], "vicuna") for row in read_lines(sources / "vicuna-questions.jsonl")]


def authored_prompts() -> list[Asked]:
    """Return the prompts written for this project."""
    return [Asked(entry["prompt"], "authored", entry["kind"]) for entry in authored()]


def prompts(sources: Path, fold: str, counts: dict[str, int]) -> list[Asked]:
    """Return up to `counts[source]` prompts of each source that are in the fold.

    The choice and the order depend only on the prompts' text.
    """
    every = {
        "hh": hh_prompts,
        "xstest": xstest_prompts,
        "self-instruct": self_instruct_prompts,
        "vicuna": vicuna_prompts,
        "authored": lambda _: authored_prompts(),
    }
    chosen: list[Asked] = []
    for source, count in counts.items():
        fitting = [a for a in every[source](sources) if a.fold == fold and len(a.prompt.split()) <= LONGEST]
        fitting.sort(key=lambda asked: unit("order", asked.prompt))
        chosen += fitting[:count]
    return sorted(chosen, key=lambda asked: unit("mixed", asked.prompt))


def once(texts: Iterable[str]) -> list[str]:
    """Return the distinct texts in order of first occurrence."""
    return list(dict.fromkeys(texts))
