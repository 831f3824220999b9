"""Rewards of kind `head`: their figures, what they cost, and that they disturb no decoding."""

from __future__ import annotations

import json
import threading

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import engine.rewards.linear_head
from engine import Engine, InputError, Sampling
from engine.config import load_config
from engine.models.config_fingerprint import config_fingerprint
from engine.rewards.linear_head import Head, save_head
from tests.conftest import Tiny, make_base

HEADS = {
    "deep": Head("base", ((2, "last"), (1, "mean")), torch.ones(64), torch.tensor([0.25]), 32),
    "low": Head("base", ((1, "max"),), torch.ones(32), torch.zeros(1), 32),
    "tuned": Head("base", ((2, "mean"),), torch.ones(32), torch.zeros(1), 32, on="reference"),
}
TURNS = [
    {"role": "user", "content": "the fox"},
    {"role": "assistant", "content": "jumps"},
    {"role": "user", "content": "mix the dog"},
]
ITEMS = [("mix", "the lazy dog", None), (TURNS, "move the faders", None), ("a", "", None)]
POLICIES = [
    {"name": "plain", "objective": "deep", "adapter": "plain"},
    {"name": "stacked", "objective": "low", "adapter": ["narrow", "stabilized"]},
]


@pytest.fixture(scope="module")
def heads(tiny: Tiny) -> Tiny:
    generator = torch.Generator().manual_seed(1)
    for name, head in HEADS.items():
        weight = torch.randn(len(head.weight), generator=generator)
        save_head(tiny.folder / "heads" / name, Head(**{**vars(head), "weight": weight}))
        HEADS[name] = engine.rewards.linear_head.read_head(tiny.folder / "heads" / name)
    return tiny


def write(tiny: Tiny, name: str, names=tuple(HEADS), **changes):
    rewards = [{"objective": head, "kind": "head", "model": f"heads/{head}"} for head in names]
    settings = {"reference": {"adapter": "narrow"}, "policies": POLICIES, "rewards": rewards, **changes}
    return tiny.write(name, dtype="float32", **settings)


@pytest.fixture(scope="module")
def made(heads: Tiny):
    with Engine.from_config(write(heads, "heads.yaml")) as made:
        yield made


def expected(tiny: Tiny, head: Head, prompt, response: str) -> float:
    """A head's score from a plain forward pass of transformers, or of peft without merging."""
    model = AutoModelForCausalLM.from_pretrained(tiny.base)
    if head.on == "reference":
        model = PeftModel.from_pretrained(model, tiny.adapters["narrow"]).base_model.model
    states = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda _, __, output: states.append(output))
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    before = "".join(f"<|{turn['role']}|>{turn['content']}<|end|>" for turn in turns) + "<|assistant|>"
    start = len(tokenizer(before).input_ids)
    with torch.no_grad():
        model(input_ids=tokenizer(f"{before}{response}<|end|>", return_tensors="pt").input_ids)
    parts = []
    for layer, pool in head.features:
        hidden = states[layer - 1].reshape(-1, 32)
        said = hidden[start:-1] if len(hidden) > start + 1 else hidden[-1:]
        parts.append({"last": hidden[-1], "mean": said.mean(0), "max": said.max(0).values}[pool])
    return (torch.cat(parts) @ head.weight + head.bias).item()


def test_scores_are_those_of_the_hidden_states(heads: Tiny, made: Engine) -> None:
    found = made.rewards(ITEMS)
    for (prompt, response, _), row in zip(ITEMS, found, strict=True):
        assert list(row) == list(HEADS)
        for name, head in HEADS.items():
            assert row[name] == pytest.approx(expected(heads, head, prompt, response), abs=1e-4)
    values = [row[name] for row in found for name in HEADS]
    assert len({round(value, 3) for value in values}) == len(values), "else the test would show little"
    completion = made.generate("mix", max_new_tokens=12, temperature=0.8, seed=3)
    assert completion.rewards == made.rewards([("mix", completion.text, completion.tokens)])[0]


def test_a_row_s_score_does_not_depend_on_its_neighbours(made: Engine) -> None:
    together = made.rewards([*ITEMS, *ITEMS[::-1]])
    assert together[:3] == together[:2:-1] == [made.rewards([item])[0] for item in ITEMS]


def test_all_heads_share_a_forward_pass(made: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    real, passes = engine.rewards.linear_head._forward, []

    def counted(model, layers, ids, rows, wanted):
        passes.append((len(ids), max(layer for layer, _ in wanted)))
        return real(model, layers, ids, rows, wanted)

    monkeypatch.setattr(engine.rewards.linear_head, "_forward", counted)
    made.rewards(ITEMS[:1])
    assert passes == [(1, 2), (1, 2)], "one on the base, one on the reference"
    del passes[:]
    found = made.reward_set.score([ITEMS[0]], ["low"])
    assert passes == [(1, 1)] and list(found[0]) == ["low"]


@pytest.mark.parametrize("apart", [True, False], ids=["thread", "worker"])
def test_scoring_and_decoding_disturb_each_other_in_nothing(heads: Tiny, apart: bool) -> None:
    """With gates of every kind in the batch, whether a thread of their own scores or the worker, as on a GPU."""
    with Engine.from_config(write(heads, f"load-{apart}.yaml")) as made:
        if not apart:
            made._scheduler.reward_worker.on_thread, made._scheduler.reward_worker.on_worker = [], list(HEADS)
        mixtures = [
            made.mixture({"plain": 1}),
            made.mixture({"stacked": 0.5, "reference": 0.5}, rule="soup"),
            made.mixture(gain=1.5),
        ]
        sampling = Sampling(max_new_tokens=40, temperature=0.9)
        alone = [made.submit("mix", m, sampling, seed=5).completion(timeout=60) for m in mixtures]
        quiet = made.rewards(ITEMS)
        wrong, stop, scored = [], threading.Event(), 0

        def score() -> None:
            nonlocal scored
            while not stop.is_set():
                found = made.rewards(ITEMS)
                scored += 1
                if found != quiet:
                    wrong.append(found)

        thread = threading.Thread(target=score)
        thread.start()
        try:
            for _ in range(6):
                requests = [made.submit("mix", m, sampling, seed=5) for m in mixtures]
                for request, before in zip(requests, alone, strict=True):
                    completion = request.completion(timeout=60)
                    assert completion.tokens == before.tokens
                    assert completion.rewards == before.rewards
                    for step, other in zip(completion.trace, before.trace, strict=True):
                        assert step == pytest.approx(other, abs=1e-5)
        finally:
            stop.set()
            thread.join(timeout=60)
        assert scored > 3 and not wrong


def test_the_worker_scores_all_heads_at_once(heads: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine.from_config(write(heads, "worker.yaml", names=("deep", "low"))) as made:
        made._scheduler.reward_worker.on_thread, made._scheduler.reward_worker.on_worker = [], ["deep", "low"]
        calls = []
        real = engine.rewards.linear_head._forward
        monkeypatch.setattr(engine.rewards.linear_head, "_forward", lambda *given: calls.append(1) or real(*given))
        completion = made.generate("mix", max_new_tokens=5, temperature=0.0)
        assert set(completion.rewards) == {"deep", "low"} and len(calls) == 1


def test_what_is_released_is_gone(heads: Tiny) -> None:
    made = Engine.from_config(write(heads, "released.yaml"))
    made.release()
    assert not made.reward_set._scorers and not made.reward_set._joint


def test_a_head_changes_the_bank_s_key(heads: Tiny) -> None:
    config = load_config(write(heads, "key.yaml", names=("low",)))
    before = config_fingerprint(config)
    save_head(heads.folder / "heads" / "low", Head(**{**vars(HEADS["low"]), "bias": torch.ones(1)}))
    assert config_fingerprint(config) != before
    save_head(heads.folder / "heads" / "low", HEADS["low"])
    assert config_fingerprint(config) == before


def test_another_base_is_warned_of(heads: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    save_head(heads.folder / "heads" / "foreign", Head(**{**vars(HEADS["low"]), "base": "org/other"}))
    Engine.from_config(write(heads, "foreign.yaml", names=("foreign",))).close()
    assert "reward 'foreign': its head was trained on 'org/other' and is put on" in caplog.text


@pytest.mark.parametrize(
    ("change", "changes", "message"),
    [
        ({"hidden_size": 48, "weight": torch.ones(48)}, {}, "of 48 numbers, this base's have 32; give a head"),
        ({"features": ((9, "mean"),)}, {}, "reads layer 9, this base has 2; give a head that was trained on this base"),
        ({"on": "reference"}, {"reference": None}, "this configuration has none; add 'reference: "),
        ({}, {"base": "untemplated"}, "in a chat template, and this base has none"),
    ],
)
def test_heads_that_do_not_fit(heads: Tiny, change: dict, changes: dict, message: str) -> None:
    if changes.get("base"):
        make_base(heads.folder / "untemplated")
        (heads.folder / "untemplated" / "chat_template.jinja").unlink()
        settings = heads.folder / "untemplated" / "tokenizer_config.json"
        kept = {key: value for key, value in json.loads(settings.read_text()).items() if key != "chat_template"}
        settings.write_text(json.dumps(kept))
    save_head(heads.folder / "heads" / "misfit", Head(**{**vars(HEADS["low"]), **change}))
    with pytest.raises(InputError, match=message) as raised:
        Engine.from_config(write(heads, "misfit.yaml", names=("misfit",), **changes))
    assert "\n" not in str(raised.value) and "reward 'misfit'" in str(raised.value)


def test_mistakes_in_the_configuration(heads: Tiny) -> None:
    with pytest.raises(InputError, match=r"rewards\[0\].model: found nothing, expected this key"):
        load_config(write(heads, "no-model.yaml", rewards=[{"objective": "deep", "kind": "head"}]))
    with pytest.raises(InputError, match=r"rewards\[0\].model: found './gone', expected a path"):
        rewards = [{"objective": "deep", "kind": "head", "model": "./gone"}]
        load_config(write(heads, "gone.yaml", rewards=rewards))
    with pytest.raises(InputError, match=r"reward 'deep': head '.*base': head.json is missing"):
        rewards = [{"objective": "deep", "kind": "head", "model": "base"}]
        Engine.from_config(write(heads, "no-head.yaml", rewards=rewards))
