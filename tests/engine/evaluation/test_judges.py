"""Comparisons with a second set of reward models, and comparisons that resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine import Sampling
from engine.evaluation.baselines import compare, win_rate_table
from engine.evaluation.response_log import Memo
from engine.evaluation.statistics import minimum_above
from engine.reward_kind import RewardSettings
from engine.rewards.reward_set import RewardSet
from tests.engine.conftest import LENGTH, PROMPTS, Small

SAMPLING = Sampling(LENGTH, 1.0)


def test_judges_give_win_rates_of_their_own(small: Callable[[int, int], Small]) -> None:
    engine = small(2, 0).engine
    # The second judge is the first reward: their rates must be the same, and the first judge's are no reward's.
    judges = RewardSet(
        [
            RewardSettings(objective="a", kind="function", function="tests.engine.evaluation.test_judges:last_letter"),
            RewardSettings(objective="b", kind="function", function="engine.rewards:brevity"),
        ],
        engine.policy_set,
    )
    result = compare(engine, PROMPTS[2:], PROMPTS[:2], SAMPLING, "uniform,p0", judges=judges)
    for row in result["methods"].values():
        assert row["judges"]["win_rates"]["b"] == row["win_rates"]["short"]
        assert row["judges"]["win_rates"]["a"] != row["win_rates"]["first"]
    assert win_rate_table(result).count("| uniform |") == 2
    assert "by the judges" in win_rate_table(result)


def last_letter(prompt: str, response: str) -> float:
    return float(ord((response or " ")[-1]))


def test_a_comparison_resumes_from_its_responses(small: Callable[[int, int], Small], tmp_path: Path) -> None:
    engine, file = small(2, 0).engine, tmp_path / "responses.jsonl"
    given = engine, PROMPTS[2:], PROMPTS[:2], SAMPLING, "uniform,soup,best-of-16"
    fresh = compare(*given)
    assert not file.exists()
    whole = compare(*given, memo=Memo(file))
    lines = file.read_text().splitlines(keepends=True)
    # As if killed in the middle of a line.
    file.write_text("".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:20])
    resumed = compare(*given, memo=Memo(file))
    for name in fresh["methods"]:
        assert fresh["methods"][name]["win_rates"] == whole["methods"][name]["win_rates"]
        assert resumed["methods"][name]["win_rates"] == whole["methods"][name]["win_rates"]
    assert len(file.read_text().splitlines()) == len(lines) + 1

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is missing")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "generate_batch", refuse)
        assert compare(*given, memo=Memo(file))["methods"].keys() == whole["methods"].keys()


def test_the_difference_of_minima_is_paired_by_prompt() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.random((300, 2))
    ours = theirs + 0.02  # better on every prompt, by far less than prompts differ
    difference, low, high = minimum_above(ours, theirs, 0)
    assert difference == pytest.approx(0.02) and low == pytest.approx(0.02, abs=1e-6) and high < 0.021
