"""Tuning a policy with soft labels, on the bundled base."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

pytest.importorskip("peft")

from safetensors.torch import load_file

from data.demo import corpus
from data.qwen.layers import Group, prefix_of, response_of
from data.qwen.training import load, reference_log_probs, train_policy

BASE = str(corpus.FOLDER.parent / "base")


@pytest.fixture(scope="module")
def splits():
    """Composed answers to a few questions; the reward is brevity."""
    rng, shared, topics = random.Random(0), corpus.load_shared(), corpus.load_topics()
    model, tokenizer = load(BASE)
    groups, rewards = [], []
    for topic in topics[:8]:
        texts = [corpus.compose(topic, shared, rng, style).text for style in ("plain", "brief", "funny")]
        responses = [response_of(tokenizer, text) for text in texts]
        groups.append(Group(prefix_of(tokenizer, topic.questions[0]), responses))
        rewards.append(-torch.tensor([float(len(ids)) for ids in responses]) / 20)
    log_probs = reference_log_probs(model.model, model.lm_head, groups, split=0)
    return (groups[:6], rewards[:6], log_probs[:6]), (groups[6:], rewards[6:], log_probs[6:])


def tune(splits, out: Path, **settings):
    shape = {"rate": 2e-3, "epochs": 2, "every": 2, "batch_tokens": 400, "rank": 4, "split": 0}
    return train_policy(BASE, "../base", None, *splits, out, **{"target": 9.0, **shape, **settings})


def test_an_interrupted_policy_ends_where_an_uninterrupted_one_does(splits, tmp_path) -> None:
    whole = tune(splits, tmp_path / "whole")
    assert whole["slope"] > 0.05 and whole["correlation"] > 0.5
    state = tmp_path / "state.pt"
    cut = tune(splits, tmp_path / "cut", minutes=0, state=state)
    assert cut["step"] == 1
    resumed = tune(splits, tmp_path / "cut", state=state)
    assert resumed["way"][0] == cut["way"][0]
    assert (resumed["step"], resumed["slope"]) == (whole["step"], pytest.approx(whole["slope"], abs=1e-4))
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert all(torch.allclose(one[name], other[name], atol=1e-3) for name in one)


def test_a_policy_stops_at_its_slope(splits, tmp_path) -> None:
    made = tune(splits, tmp_path / "early", epochs=9, every=1, target=0.3)
    assert made["slope"] >= 0.3
    assert all(look["slope"] < 0.3 for look in made["way"][:-1])


def test_the_prompts_that_are_sampled_are_apart_and_spread_over_the_topics() -> None:
    pytest.importorskip("trl")
    from data.demo import build

    built = build.Build(Path("unused"), build.HERE)
    asked = built.asked()
    prompts = {split: {row.prompt for row in asked if row.split == split} for split in build.EVERY}
    assert sum(map(len, prompts.values())) == len(asked)
    assert prompts["held-out"] < {prompt for prompt, _ in built.held_out}
    assert prompts["training"] | prompts["stopping"] < {prompt for prompt, _ in built.train}
    topics = dict(built.train)
    assert len({topics[prompt].topic for prompt in prompts["training"]}) > 80
