"""Prompts far from what the policies know are recognised; others are not."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from engine import Engine
from engine.cli.main import app
from engine.config import DEMO, Config, PolicySettings, load_config
from engine.inference.familiarity import FLOOR, QUANTILE, WARNING, Familiarity, said_last
from engine.inference.familiarity import PROMPTS as PROMPT_COUNT
from engine.prompts import read_prompts

PROMPTS = yaml.safe_load((Path(__file__).parent / "prompts" / "familiar.yaml").read_text())


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    config = load_config(DEMO)
    config.rewards = []
    with Engine(config) as engine:
        yield engine


@pytest.mark.parametrize("held_out", ["", "held_out_", "last_"])
def test_of_twenty_prompts_of_each_kind_at_most_one_is_taken_for_the_other(engine: Engine, held_out: str) -> None:
    familiar = {prompt: not engine.prompt_warning(prompt) for prompt in PROMPTS[f"{held_out}on_topic"]}
    unfamiliar = {prompt: bool(engine.prompt_warning(prompt)) for prompt in PROMPTS[f"{held_out}off_topic"]}
    assert len(familiar) == len(unfamiliar) == 20
    for seen in (familiar, unfamiliar):
        assert sum(seen.values()) >= 19, [prompt for prompt, right in seen.items() if not right]


def test_of_the_configurations_own_prompts_nine_in_ten_are_familiar(engine: Engine) -> None:
    """Within two standard errors of the quantile, which is measured on some of them."""
    rows = read_prompts(engine.config.prompts or "")
    error = math.sqrt(QUANTILE * (1 - QUANTILE) / PROMPT_COUNT)
    assert sum(not engine.prompt_warning(row) for row in rows) >= (QUANTILE - 2 * error) * len(rows)


def test_only_what_the_user_said_last_is_judged(engine: Engine) -> None:
    on_topic, off_topic = "How do I boil an egg?", "Write a haiku about autumn."
    turns = [{"role": "user", "content": off_topic}, {"role": "assistant", "content": "Simmer eggs six minutes."}]
    assert engine.prompt_warning([*turns, {"role": "user", "content": off_topic}]) == WARNING
    ids = engine.policy_set.prompt_ids(engine.policy_set.policies[0], on_topic)
    first, last = said_last(engine.policy_set, on_topic, ids)
    assert engine.policy_set.tokenizer.decode(ids[first:last]) == on_topic


def test_a_prompt_is_judged_alike_alone_and_beside_a_longer_one(engine: Engine) -> None:
    short, long = PROMPTS["on_topic"][0], PROMPTS["off_topic"][4]
    together = engine._familiarity.surprise([short, long])
    assert together == pytest.approx([engine._familiarity.surprise([one])[0] for one in (short, long)], rel=0.02)


def test_two_letters_are_not_enough_to_say(engine: Engine) -> None:
    assert engine._familiarity.surprise(["hi"])[0] < 2


def test_without_prompts_of_its_own_a_configuration_warns_of_none() -> None:
    demo = load_config(DEMO)
    config = Config(name="bare", base=demo.base, policies=[PolicySettings(name="a", objective="a", system_prompt="b")])
    with Engine(config) as bare:
        assert bare.prompt_warning("Explain quantum entanglement.") == ""


def test_a_broad_model_is_not_warned_of_ordinary_prompts(engine: Engine) -> None:
    """However alike the configuration's prompts are, the threshold is not below what ordinary English has."""

    class Broad(Familiarity):
        def surprise(self, prompts):
            return [0.3 + 0.01 * len(prompt) / 100 for prompt in prompts]

    assert Broad(engine.policy_set, engine.config, lambda call: call()).threshold == FLOOR


def test_a_threshold_that_took_long_is_kept_for_the_next_start(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.inference.familiarity.platformdirs.user_cache_path", lambda name: tmp_path)
    measured: list[int] = []

    class Counting(Familiarity):
        def surprise(self, prompts):
            measured.append(len(prompts))
            return [2.5] * len(prompts)

    def threshold(slow: float) -> float:
        monkeypatch.setattr("engine.inference.familiarity.SLOW", slow)
        return Counting(engine.policy_set, engine.config, lambda call: call()).threshold

    assert threshold(slow=60.0) == 2.5
    assert not list(tmp_path.rglob("*.json"))
    assert threshold(slow=-1.0) == 2.5 and sum(measured) == 2 * PROMPT_COUNT
    assert threshold(slow=-1.0) == 2.5 and sum(measured) == 2 * PROMPT_COUNT
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text("torn")
    assert threshold(slow=-1.0) == 2.5 and sum(measured) == 3 * PROMPT_COUNT


def test_it_is_cheap(engine: Engine) -> None:
    engine.prompt_warning("Hello there")
    began = time.perf_counter()
    for _ in range(10):
        engine.prompt_warning("What is the capital of Australia?")
    assert time.perf_counter() - began < 10  # a forward pass of some ten tokens; generous, machines are busy


def test_the_command_line_says_it() -> None:
    run = CliRunner().invoke(app, ["generate", "--prompt", PROMPTS["off_topic"][1], "--max-new-tokens", "2", "--json"])
    assert json.loads(run.stdout)["prompt_warning"] == WARNING
    run = CliRunner().invoke(app, ["generate", "--prompt", "How do I boil an egg?", "--max-new-tokens", "2", "--json"])
    assert json.loads(run.stdout)["prompt_warning"] is None
