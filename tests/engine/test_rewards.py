"""Rewards of every kind against the libraries' own figures."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from engine import Engine, InputError
from tests.conftest import Tiny

ITEMS = [("mix", "the lazy dog", None), ("move the faders", "the quick brown fox jumps over", None), ("a", "", None)]


@pytest.fixture(scope="module")
def classifiers(tiny: Tiny) -> Tiny:
    """A whole sequence-classification model, and a LoRA with a score head of its own, as trl saves them."""
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny.base, num_labels=1)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(tiny.folder / "whole")
    AutoTokenizer.from_pretrained(tiny.base).save_pretrained(tiny.folder / "whole")
    lora = get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(tiny.base, num_labels=1),
        LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "down_proj"], modules_to_save=["score"]),
    )
    for name, parameter in lora.named_parameters():
        if "lora_B" in name or "score" in name:
            torch.nn.init.normal_(parameter.data)
    (tiny.folder / "rewards").mkdir()
    lora.save_pretrained(tiny.folder / "rewards" / "lora")
    return tiny


def expected(model: torch.nn.Module, base: str | os.PathLike) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = []
    for prompt, response, _ in ITEMS:
        ids = tokenizer(f"<|user|>{prompt}<|end|><|assistant|>{response}<|end|>", return_tensors="pt").input_ids
        with torch.no_grad():
            found.append(model(input_ids=ids).logits[0, 0].item())
    return found


def test_classifiers_equal_transformers_and_peft(classifiers: Tiny) -> None:
    rewards = [
        {"objective": "whole", "kind": "classifier", "model": "whole"},
        {"objective": "lora", "kind": "classifier", "model": "rewards/lora", "mean": 1.0, "std": 2.0},
    ]
    with Engine.from_config(classifiers.write("classifiers.yaml", rewards=rewards)) as engine:
        found = engine.rewards(ITEMS)
        standard = engine.reward_set.standard(found[0])
    whole = AutoModelForSequenceClassification.from_pretrained(classifiers.folder / "whole").eval()
    assert [row["whole"] for row in found] == pytest.approx(expected(whole, classifiers.base), abs=1e-4)
    bare = AutoModelForSequenceClassification.from_pretrained(classifiers.base, num_labels=1)
    lora = PeftModel.from_pretrained(bare, classifiers.folder / "rewards" / "lora").eval()
    theirs = expected(lora, classifiers.base)
    assert [row["lora"] for row in found] == pytest.approx(theirs, abs=1e-4)
    assert standard == pytest.approx({"whole": found[0]["whole"], "lora": (theirs[0] - 1) / 2}, abs=1e-4)


def test_implicit_reward_by_hand(tiny_engine: Engine) -> None:
    prompt, response, _ = ITEMS[1]
    log_probs = tiny_engine.token_log_probs(prompt, response)
    by_hand = 0.1 * (sum(log_probs["plain"]) - sum(log_probs["reference"]))
    assert tiny_engine.rewards([ITEMS[1]])[0]["plain"] == pytest.approx(by_hand)
    assert abs(by_hand) > 0.01


def test_function_reward(tiny_engine: Engine) -> None:
    assert [row["narrow"] for row in tiny_engine.rewards(ITEMS)] == [-3, -6, 0]


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ({"kind": "function", "function": "engine.rewards:gone"}, "reward 'x': cannot import engine.rewards:gone"),
        ({"kind": "function", "function": "no_such_module:f"}, "reward 'x': cannot import no_such_module:f"),
        ({"kind": "classifier", "model": "nothing"}, "reward 'x': cannot load"),
    ],
)
def test_mistakes(tiny: Tiny, reward: dict, said: str) -> None:
    (tiny.folder / "nothing").mkdir(exist_ok=True)
    file = tiny.write("reward.yaml", rewards=[{"objective": "x", **reward}])
    with pytest.raises(InputError, match=said):
        Engine.from_config(file)


def test_the_folders_of_a_reward_can_be_moved_together(classifiers: Tiny, tmp_path) -> None:
    """A relative base path in adapter_config.json is read from the adapter's folder, wherever the command runs."""
    import json

    shutil.copytree(classifiers.folder, tmp_path / "moved")
    config_file = tmp_path / "moved" / "rewards" / "lora" / "adapter_config.json"
    config = {**json.loads(config_file.read_text()), "base_model_name_or_path": "../../base"}
    config_file.write_text(json.dumps(config))
    shutil.move(classifiers.base, classifiers.folder / "base.away")
    try:
        rewards = [{"objective": "lora", "kind": "classifier", "model": "rewards/lora"}]
        moved = Tiny(tmp_path / "moved", tmp_path / "moved" / "base", tmp_path / "moved" / "tiny.yaml", {})
        with Engine.from_config(moved.write("moved.yaml", rewards=rewards)) as engine:
            assert engine.rewards(ITEMS[:1])[0]["lora"] != 0
    finally:
        shutil.move(classifiers.folder / "base.away", classifiers.base)
