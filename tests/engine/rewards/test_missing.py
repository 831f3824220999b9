"""Rewards that fail: each costs itself, never the response, and what is computed from rewards says what is missing."""

from __future__ import annotations

import json
import logging
import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from engine import Engine, InputError, Sampling
from engine.bank.calibration import Calibration, scale_of_bank
from engine.bank.collect_reference_free import collect_reference_free, reference_free_proposals
from engine.bank.collection import collect, kept, proposals
from engine.bank.storage import BankFile
from engine.cli.main import app
from engine.evaluation import sweep as evaluation
from engine.evaluation.comparison import summarise
from engine.rewards.missing import missing_counts, missing_line, outcomes, reason_of
from tests.conftest import Tiny

BROKEN: dict[str, object] = {}  # what `picky` does with a prompt that has this word, in place of scoring it


def picky(prompt: str, response: str) -> float:
    """Fail on some prompts, each in its own way."""
    for word, what in BROKEN.items():
        if word in prompt:
            if isinstance(what, BaseException):
                raise what
            return what  # type: ignore[return-value]
    return float(len(response))


REWARDS = [
    {"objective": "plain", "kind": "implicit", "beta": 0.1},
    {"objective": "narrow", "kind": "function", "function": "engine.rewards:brevity"},
    {"objective": "picky", "kind": "function", "function": "tests.engine.rewards.test_missing:picky"},
]
SHORT = Sampling(max_new_tokens=6, temperature=1.0)


@pytest.fixture
def broken():
    BROKEN.clear()
    yield BROKEN
    BROKEN.clear()


@pytest.fixture(scope="module")
def made(tiny: Tiny):
    with Engine.from_config(tiny.write("picky.yaml", rewards=REWARDS)) as made:
        yield made


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (ValueError("no\nsuch  thing"), "ValueError: no such thing"),
        (SystemExit(3), "SystemExit: 3"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory"),
        (float("nan"), "it is nan, not a finite number"),
        (float("-inf"), "it is -inf, not a finite number"),
        (None, "tests.engine.rewards.test_missing:picky returned NoneType, expected a number"),
        ("high", "tests.engine.rewards.test_missing:picky returned str, expected a number"),
        (RuntimeError("x" * 900), "RuntimeError: " + "x" * 185 + "…"),
    ],
)
def test_the_response_and_the_other_rewards_stay(made: Engine, broken, what, says: str) -> None:
    broken["mix"] = what
    completion = made.generate("mix", max_new_tokens=6, temperature=0.0)
    assert completion.text and list(completion.rewards) == ["plain", "narrow"]
    assert completion.missing_rewards == {"picky": says}
    assert completion.as_dict()["missing_rewards"] == {"picky": says}
    rows = made.rewards([("mix", "the faders", None), ("move", "the faders", None)])
    assert rows[0].missing == {"picky": says} and list(rows[0]) == ["plain", "narrow"]
    assert rows[1] == {**rows[1], "picky": 10.0} and not rows[1].missing
    (again,) = made.rewards([("move", "the faders", None)], ["picky"])
    assert again == {"picky": 10.0}


def test_a_batch_is_taken_apart_for_those_that_can_be_scored() -> None:
    calls = []

    def score(items: list[int]) -> list[float]:
        calls.append(len(items))
        if 5 in items or 11 in items:
            raise RuntimeError("index out of range")
        return [float(item) for item in items]

    found = outcomes(score, list(range(16)))
    assert [i for i, value in enumerate(found) if isinstance(value, str)] == [5, 11]
    assert [value for value in found if not isinstance(value, str)] == [float(i) for i in range(16) if i not in (5, 11)]
    assert len(calls) <= 17


def test_what_does_not_fit_the_policies_costs_the_implicit_reward_alone(made: Engine, broken) -> None:
    (row,) = made.rewards([("mix", "the faders " * 300, None)])
    assert list(row) == ["narrow", "picky"]
    assert "and the policies hold 256" in row.missing["plain"]


def test_the_command_line_says_what_is_missing(tiny: Tiny, made: Engine, broken) -> None:
    broken["mix"] = ValueError("too odd")
    config = ["--config", str(tiny.folder / "picky.yaml")]
    given = ["generate", "--prompt", "mix", "--max-new-tokens", "4", *config]
    found = CliRunner().invoke(app, [*given, "--json"])
    assert found.exit_code == 0
    assert json.loads(found.stdout)["missing_rewards"] == {"picky": "ValueError: too odd"}
    assert "no reward for picky: ValueError: too odd" in CliRunner().invoke(app, given).stderr
    given = ["score", "--prompt", "mix", "--response", "the faders", *config]
    found = CliRunner().invoke(app, [*given, "--json"])
    assert found.exit_code == 0
    told = json.loads(found.stdout)
    assert told["missing_rewards"] == {"picky": "ValueError: too odd"} and list(told["rewards"]) == ["plain", "narrow"]
    assert "no reward for picky" in CliRunner().invoke(app, given).stdout


def test_evaluation_leaves_them_out_and_counts_them(made: Engine, broken) -> None:
    prompts = ["mix the policies", "move the faders", "the lazy dog"]
    reliable = evaluation.evaluate(made, prompts, SHORT, seed=2)
    assert reliable["missing_rewards"] == {}
    broken["lazy"] = ValueError("no dogs")
    found = evaluation.evaluate(made, prompts, SHORT, seed=2)
    mixtures = 1 + 3 * 5  # the reference, and five levels of each fader
    assert found["missing_rewards"] == {"picky": {"ValueError: no dogs": mixtures}}
    of_two = evaluation.evaluate(made, prompts[:2], SHORT, seed=2)
    for key in ("plain", "narrow"):
        assert found["reference"]["rewards"][key] == pytest.approx(reliable["reference"]["rewards"][key])
    assert found["reference"]["rewards"]["picky"] == pytest.approx(of_two["reference"]["rewards"]["picky"])
    assert all(math.isfinite(v) for policy in found["policies"].values() for v in policy["rewards"].values())
    broken.update({"mix": ValueError("no"), "move": ValueError("no")})
    rest = evaluation.evaluate(made, prompts, SHORT, seed=2)
    assert list(rest["reference"]["rewards"]) == ["plain", "narrow"], "a reward that nothing has takes only itself away"
    assert rest["reference"]["rewards"]["plain"] == pytest.approx(reliable["reference"]["rewards"]["plain"])
    assert sum(rest["missing_rewards"]["picky"].values()) == 3 * mixtures


def brute(bank, weights: np.ndarray, column: int) -> float:
    """The expected reward from the responses that have it, prompt by prompt."""
    means = []
    for p in range(len(bank.prompts)):
        known = [n for n in range(bank.rewards.shape[1]) if np.isfinite(bank.rewards[p, n, column])]
        if not known:
            continue
        w = np.exp([bank.log_ratios[p, n] @ weights + bank.log_base[p, n] for n in known])
        means.append((w * bank.rewards[p, known, column]).sum() / w.sum())
    return float(np.mean(means))


@pytest.mark.parametrize("lean", [False, True], ids=["bank", "lean"])
def test_a_bank_leaves_them_out_of_that_reward_alone(made: Engine, broken, tmp_path, caplog, lean: bool) -> None:
    prompts = ["mix the policies", "move the faders", "the lazy dog"]
    broken["lazy"] = ValueError("no dogs")
    sources = reference_free_proposals(made) if lean else proposals(made)
    file = BankFile(made.config, SHORT, sources, folder=tmp_path)
    collected = collect_reference_free if lean else collect
    with caplog.at_level(logging.WARNING, "mixdesk"):
        bank = collected(made, prompts, 5, SHORT, file=file)
    count = bank.rewards.shape[1]
    assert f"picky {count} (ValueError: no dogs)" in caplog.text and bank.missing == {"picky": count}
    weights = np.array([0.5, 0.2, 0.3])
    found, column = bank.estimate(weights), bank.objectives.index("picky")
    assert found.rewards[column] == pytest.approx(brute(bank, weights, column))
    assert np.isfinite([*found.rewards, *found.reward_errors, found.objective]).all()
    together = bank.estimate(np.stack([weights, weights[::-1]]))
    assert together.rewards[0] == pytest.approx(found.rewards) and together.rewards.shape == (2, 3)
    # One response of another prompt, too: its neighbours stand in for it.
    bank.rewards[0, 1, column] = np.nan
    assert bank.estimate(weights).rewards[column] == pytest.approx(brute(bank, weights, column))
    gain, error = bank.change(weights, weights[::-1])
    assert gain[column] == pytest.approx(brute(bank, weights[::-1], column) - brute(bank, weights, column))
    assert np.isfinite(error).all()
    slopes, step = bank.reward_slopes(weights), 1e-5
    for k in range(3):
        moved = weights + step * np.eye(3)[k]
        by_hand = (brute(bank, moved, column) - brute(bank, weights, column)) / step
        assert slopes[column, k] == pytest.approx(by_hand, abs=1e-3)
    broken.clear()
    again = collected(made, prompts, 5, SHORT, file=file)
    assert not again.missing, "what stood in the way is mended: the rewards are computed, the responses kept"
    assert np.array_equal(again.log_ratios, bank.log_ratios)
    if not lean:
        whole = kept(made, prompts, file)
        assert whole is not None and not whole.missing, "and the file has them"


def test_a_complete_bank_says_what_it_said(made: Engine, broken) -> None:
    """Nothing changes in the last digits where nothing is missing."""
    bank = collect(made, ["mix the policies", "move the faders"], 5, SHORT)
    weights = np.array([0.5, 0.2, 0.3])
    for column in range(3):
        assert bank.estimate(weights).rewards[column] == pytest.approx(brute(bank, weights, column), rel=1e-12)
    assert bank.missing == {}


def test_a_scale_is_of_the_rewards_that_are_there(made: Engine, broken, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("engine.bank.storage.platformdirs.user_cache_path", lambda _: tmp_path)
    prompts = [f"mix the faders {i}" for i in range(32)]
    broken["faders 7"] = ValueError("no sevens")
    scale = made.reward_set.scale
    try:
        made.reward_set.scale = type(scale)()
        Calibration(made).sample(prompts)
        assert set(made.reward_set.scale.mean) | made.reward_set.scale.constant == {"plain", "narrow", "picky"}
        broken[""] = ValueError("nothing at all")
        made.reward_set.scale = type(scale)()
        for file in (tmp_path / "banks").glob("*.json"):
            file.unlink()
        Calibration(made).sample(prompts)
        assert Calibration(made).missing == ["picky"], "the others are calibrated"
    finally:
        made.reward_set.scale = scale
    broken.clear()
    broken["mix"] = ValueError("no")
    bank = collect(made, ["mix the policies", "move the faders"], 5, SHORT)
    only = collect(made, ["move the faders"], 5, SHORT)
    assert scale_of_bank(bank).mean["picky"] == pytest.approx(scale_of_bank(only).mean["picky"])


def test_a_summary_counts_each_reward_by_itself() -> None:
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=(20, 2, 2))
    whole = summarise(rewards)
    assert whole.counts.tolist() == [20, 20] and whole.prompts == 20
    rewards[:3, 1, 0] = np.nan
    found = summarise(rewards)
    assert found.prompts == 17 and found.counts.tolist() == [17, 20]
    assert found.means[:, 0] == pytest.approx(rewards[3:, :, 0].mean(0))
    assert found.means[:, 1] == pytest.approx(rewards[:, :, 1].mean(0))
    assert found.wins[0, 0, 0] == pytest.approx((rewards[3:, 1, 0] > rewards[3:, 0, 0]).mean())
    assert found.wins[0, 1, 0] == pytest.approx((rewards[:, 1, 1] > rewards[:, 0, 1]).mean())
    rewards[:, :, 0] = np.nan
    alone = summarise(rewards)
    assert alone.prompts == 0 and alone.counts.tolist() == [0, 20]
    assert np.isnan(alone.wins[0, [0, 2]]).all() and np.isfinite(alone.wins[0, 1]).all()


def test_reasons_are_counted_and_said_in_one_line() -> None:
    counts = missing_counts([{"a": "x"}, {"a": "y", "b": "x"}, {"a": "x"}, {}])
    assert counts == {"a": {"x": 2, "y": 1}, "b": {"x": 1}}
    assert missing_line(counts) == "a 3 (x; 1 other reasons), b 1 (x)"
    assert reason_of(InputError("too long")) == "too long"
