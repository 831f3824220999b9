"""Methods of comparison against what is written out, and figures by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from engine import Sampling
from engine.evaluation.baselines import BETA, METHODS, Setting, choose
from engine.evaluation.paper import PAPER
from engine.evaluation.statistics import with_intervals
from tests.conftest import Tiny
from tests.engine.conftest import LENGTH, PROMPTS, Exact, Small


def setting_of(some: Small, prompts: list[str], responses: int = 12) -> Setting:
    return Setting(some.engine, prompts, PROMPTS, Sampling(LENGTH, 1.0), 0, responses)


def reweighted(exact: Exact, weights: np.ndarray, prompt: int) -> np.ndarray:
    """Expected rewards under π_ref exp(Σ λ_k r_k / β) of this prompt."""
    log_p = exact.log_probs[prompt, :, 0] + exact.rewards[prompt] @ weights / BETA
    return np.exp(log_p - np.logaddexp.reduce(log_p)) @ exact.rewards[prompt]


def test_choosing_by_rewards_is_reweighting(
    small: Callable[[int, int], Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.evaluation.baselines.CHOICES", 48)
    some, weights = small(2, 0), np.array([0.6, 0.4])
    answers = choose(setting_of(some, [PROMPTS[1]] * 150), "test", weights)
    got = np.array([list(completion.rewards.values()) for completion in answers.completions])
    error = got.std(0) / np.sqrt(len(got))
    expected = reweighted(some.exact, weights, 1)
    assert (np.abs(got.mean(0) - expected) < 4 * error).all()
    # It is far from the reference itself.
    assert (np.abs(np.exp(some.exact.log_probs[1, :, 0]) @ some.exact.rewards[1] - expected) > 6 * error).any()
    assert answers.policy_tokens > 48 * 150


def test_maxmin_finds_the_weights_of_the_smallest_reward(small: Callable[[int, int], Small]) -> None:
    some = small(2, 0)
    answers = METHODS["maxmin"](setting_of(some, PROMPTS[:1], responses=150))

    def objective(first: np.ndarray) -> float:
        log_p = some.exact.log_probs[..., 0] + some.exact.rewards @ np.array([first[0], 1 - first[0]]) / BETA
        return float(np.logaddexp.reduce(log_p, -1).mean())

    best = minimize(objective, [0.5], bounds=[(0, 1)]).x[0]
    assert answers.weights["short"] == pytest.approx(best, abs=0.1)
    assert answers.solve_tokens > 8 * 150


def test_best_of_n_and_cost(small: Callable[[int, int], Small]) -> None:
    setting = setting_of(small(2, 0), PROMPTS)
    best = METHODS["best-of-16"](setting)
    plain = METHODS["uniform"](setting)
    assert setting.standard([best.completions]).mean() > setting.standard([plain.completions]).mean()
    assert plain.policy_tokens == 2 * sum(len(completion.tokens) for completion in plain.completions)
    assert METHODS["soup"](setting).policy_tokens <= LENGTH * len(PROMPTS)


def test_mpo_has_its_weights_from_the_other_prompts(small: Callable[[int, int], Small]) -> None:
    some = small(2, 1)
    answers = METHODS["mpo-exact"](setting_of(some, PROMPTS[:3], responses=200))
    assert 0.5 * np.abs(np.array(list(answers.weights.values())) - some.exact.best()).sum() < 0.1
    assert len(answers.completions) == 3
    assert all(completion.sampling.particles == 16 for completion in answers.completions)


def test_intervals() -> None:
    rng = np.random.default_rng(0)
    always = with_intervals(np.tile([1.0, 0.25], (50, 1)), rng)
    assert always == [[1.0, 1.0, 1.0], [0.25, 0.25, 0.25], [0.25, 0.25, 0.25]]
    wins = (rng.random((400, 1)) < 0.5).astype(float)
    rate, low, high = with_intervals(wins, rng)[0]
    # The normal approximation: 1.96 standard errors either way.
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(rate * (1 - rate) / 400), rel=0.1)
    # The lowest of two that are alike is below either: that is in its interval.
    two = with_intervals((rng.random((400, 2)) < 0.5).astype(float), rng)
    assert two[2][0] == min(two[0][0], two[1][0])
    assert two[2][2] < max(two[0][2], two[1][2])


def test_the_paper_s_order() -> None:
    for beta in ("β = 0.1", "β = 0.5"):
        lowest = {name: min(rates) for name, rates in PAPER[beta].items()}
        assert max(lowest, key=lambda name: lowest[name]) == "mpo"


def test_the_table_on_the_command_line(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from engine.cli.main import app
    from engine.cli.runner import run

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("mix\nmove the faders\nthe quick brown fox\njump\n")
    asked = ["evaluate", "--config", str(tiny.config), "--prompts", str(prompts), "--max-new-tokens", "5"]
    asked += ["--solve-with", "2"]
    assert run(app, "python -m engine", [*asked, "--methods", "plain,uniform,mpo-bsmd", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_prompts"], found["n_solve_prompts"]) == (2, 2)
    assert list(found["methods"]) == ["plain", "uniform", "mpo-bsmd"]
    for row in found["methods"].values():
        assert set(row["win_rates"]) == {"plain", "narrow"}
        for rate, low, high in [*row["win_rates"].values(), row["minimum"]]:
            assert 0 <= low <= rate <= high <= 1
    assert found["methods"]["mpo-bsmd"]["solve_tokens"] > 0
    assert run(app, "python -m engine", [*asked, "--methods", "uniform"]) == 0
    assert capsys.readouterr().out.startswith("| method | plain | narrow | minimum |")
    for wrong, said in (
        (["--methods", "guess"], "none is called 'guess'"),
        (
            ["--methods", "uniform", "--solve-with", "4"],
            "4 prompts are too few for 4",
        ),
    ):
        assert run(app, "python -m engine", [*asked, *wrong]) == 2
        assert said in capsys.readouterr().err
