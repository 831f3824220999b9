"""Votes for tests: simulated studies with known strengths, a small fixed study, and a public data set."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from engine.votes.strengths import Tallies, fit_strengths
from engine.votes.table import BOTH_BAD, FIRST, SECOND, TIE, Votes

PUBLIC = Path(__file__).parents[4] / "shared" / "data"  # beside the project; not part of it
OUTCOMES = {"left": FIRST, "right": SECOND, "tie": TIE}


def votes_of(
    systems: list[str],
    rows: list[tuple[str, str, int]],
    annotators: list[str] | None = None,
    prompts: list[str] | None = None,
    items: list[str] | None = None,
    **columns: object,
) -> Votes:
    """Return votes of rows (first, second, outcome), by default each by another person, on another prompt."""
    number = len(rows)
    keys = {}
    for name, given in (("annotator", annotators), ("prompt", prompts), ("item", items)):
        column = given if given is not None else [f"{name} {at}" for at in range(number)]
        names, index = np.unique(np.array(column, str), return_inverse=True)
        keys[name] = (names.tolist(), index)
    rest = {
        "swapped": np.full(number, -1),
        "repeat": np.zeros(number, bool),
        "weight": np.ones(number),
        "seconds": np.full(number, np.nan),
        **{name: np.asarray(value) if name != "features" else value for name, value in columns.items()},
    }
    return Votes(
        systems=systems,
        annotators=keys["annotator"][0],
        prompts=keys["prompt"][0],
        items=keys["item"][0],
        first=np.array([systems.index(row[0]) for row in rows], int),
        second=np.array([systems.index(row[1]) for row in rows], int),
        outcome=np.array([row[2] for row in rows], int),
        annotator=keys["annotator"][1],
        prompt=keys["prompt"][1],
        item=keys["item"][1],
        **rest,
    )


def public_votes() -> Votes:
    """Return the votes of LLMFAO; the test is skipped where the file is not there."""
    file = PUBLIC / "llmfao-comparisons.csv"
    if not file.exists():
        pytest.skip("the public votes are not there")
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    systems = sorted({row[side] for row in rows for side in ("left", "right")})
    return votes_of(
        systems,
        [(row["left"], row["right"], OUTCOMES[row["winner"]]) for row in rows],
        annotators=[row["worker"] for row in rows],
        prompts=[row["prompt"] for row in rows],
        items=[row["id"] for row in rows],
        swapped=np.zeros(len(rows), int),
    )


def public_leaderboard() -> dict[str, dict[str, float]]:
    """Return {algorithm: {system: score}} as published with these votes."""
    scores: dict[str, dict[str, float]] = {}
    with (PUBLIC / "llmfao-leaderboard.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            scores.setdefault(row["algorithm"], {})[row["item"]] = float(row["score"])
    return scores


def simulate(
    rng: np.random.Generator,
    strengths: np.ndarray,
    prompts: int = 40,
    annotators: int = 10,
    wanted: int = 3,
    tie: float = 0.4,
    careless: int = 0,
    of_prompts: float = 0.0,
    of_annotators: float = 0.0,
) -> Votes:
    """Return the votes of a study in which every pair of systems meets on every prompt.

    Args:
        rng: Of everything.
        strengths: [M], log-strengths.
        prompts: Number of prompts.
        annotators: Number of annotators.
        wanted: Number of votes on each item, by annotators that are drawn.
        tie: v of Davidson's model.
        careless: So many of the first annotators vote at random.
        of_prompts: Standard deviation of what a prompt adds to each system's log-strength.
        of_annotators: Of what an annotator adds to it.
    """
    systems = len(strengths)
    pairs = np.array([(i, j) for i in range(systems) for j in range(i + 1, systems)])
    pairs = np.where(rng.random(len(pairs))[:, None] < 0.5, pairs, pairs[:, ::-1])
    item = np.repeat(np.arange(prompts * len(pairs)), wanted)
    prompt, pair = item // len(pairs), item % len(pairs)
    annotator = np.concatenate([rng.permutation(annotators)[:wanted] for _ in range(prompts * len(pairs))])
    first, second = pairs[pair].T
    liked = strengths + rng.normal(0, of_prompts, (prompts, systems))[prompt]
    liked = liked + rng.normal(0, of_annotators, (annotators, systems))[annotator]
    at = np.arange(len(item))
    half = (liked[at, first] - liked[at, second]) / 2
    odds = np.stack([np.exp(half), np.exp(-half), np.full(len(half), 2 * tie)])
    odds[:, annotator < careless] = 1
    drawn = rng.random(len(item)) * odds.sum(0)
    result = (drawn > odds[0]).astype(int) + (drawn > odds[0] + odds[1])
    outcome = np.where((result == TIE) & (rng.random(len(item)) < 0.3), BOTH_BAD, result)
    return Votes(
        systems=[f"system {at}" for at in range(systems)],
        annotators=[f"annotator {at}" for at in range(annotators)],
        prompts=[f"prompt {at}" for at in range(prompts)],
        items=[f"item {at}" for at in range(prompts * len(pairs))],
        first=first,
        second=second,
        outcome=outcome,
        annotator=annotator,
        prompt=prompt,
        item=item,
        swapped=rng.integers(0, 2, len(item)),
        repeat=np.zeros(len(item), bool),
        weight=np.ones(len(item)),
        seconds=rng.gamma(4, 5, len(item)),
    )


def population_strengths(
    strengths: np.ndarray, tie: float = 0.4, careless: float = 0.0, spread: float = 0.0, draws: int = 2000
) -> np.ndarray:
    """Return the log-strengths [M] that fit the votes of any number of prompts and annotators, with mean zero.

    They are `strengths` where nobody is careless and nothing spreads.

    Args:
        strengths: [M], of a careful annotator, on average.
        tie: v of Davidson's model.
        careless: Share of votes at random.
        spread: Standard deviation of what prompts and annotators together add to a log-strength.
        draws: Number of values of it.
    """
    first, second = np.triu_indices(len(strengths), 1)
    deviation = np.sqrt(2) * spread * norm.ppf((np.arange(draws) + 0.5) / draws)
    half = (strengths[first] - strengths[second] + deviation[:, None]) / 2
    odds = np.stack([np.exp(half), np.exp(-half), np.full(half.shape, 2 * tie)])
    shares = (1 - careless) * (odds / odds.sum(0)).mean(1) + careless / 3
    return fit_strengths(Tallies(first, second, *shares), len(strengths)).log_strength
