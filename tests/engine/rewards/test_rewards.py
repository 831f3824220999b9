"""Rewards of every kind against the libraries' own figures."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

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
    assert standard == pytest.approx({"lora": (theirs[0] - 1) / 2}, abs=1e-4), (
        "without mean and std there is no z-score"
    )


@pytest.fixture(scope="module")
def labelled(tiny: Tiny) -> Tiny:
    """An encoder with two labels, and a GPT-2 without a token for padding, as public reward models are."""
    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    small = {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
    bert = BertConfig(
        **small, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        id2label={0: "NO_HUMOR", 1: "HUMOR"}, label2id={"NO_HUMOR": 0, "HUMOR": 1}, initializer_range=0.5,
    )  # fmt: skip
    gpt2 = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2, num_labels=1, initializer_range=0.5,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    for name, model in (("bert", BertForSequenceClassification(bert)), ("gpt2", GPT2ForSequenceClassification(gpt2))):
        model.save_pretrained(tiny.folder / name)
        tokenizer.save_pretrained(tiny.folder / name)
    return tiny


def test_a_named_label_and_a_template(labelled: Tiny) -> None:
    template = "Human: {prompt} Assistant: {response}"
    rewards = [
        {"objective": "humorous", "kind": "classifier", "model": "bert", "label": "humor", "template": template},
        {"objective": "helpful", "kind": "classifier", "model": "gpt2", "template": template},
    ]
    items = [("mix {response}", "the lazy dog", None), ("{prompt}", "a", None), ("move the faders", "", None)]
    with Engine.from_config(labelled.write("labelled.yaml", rewards=rewards)) as engine:
        found = engine.rewards(items)
    tokenizer = AutoTokenizer.from_pretrained(labelled.base)
    for name, objective, output in (("bert", "humorous", 1), ("gpt2", "helpful", 0)):
        model = AutoModelForSequenceClassification.from_pretrained(labelled.folder / name).eval()
        for (prompt, response, _), row in zip(items, found, strict=True):
            ids = tokenizer("Human: " + prompt + " Assistant: " + response, return_tensors="pt").input_ids
            with torch.no_grad():
                theirs = model(input_ids=ids).logits[0, output].item()
            assert row[objective] == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (None, "bert has the labels NO_HUMOR, HUMOR; say with 'label' which one is the reward"),
        ("funny", "bert has the labels NO_HUMOR, HUMOR; found 'funny', give one of these"),
    ],
)
def test_labels_that_are_not_clear(labelled: Tiny, label: str | None, said: str) -> None:
    reward = {"objective": "x", "kind": "classifier", "model": "bert", "label": label}
    with pytest.raises(InputError, match=said):
        Engine.from_config(labelled.write("label.yaml", rewards=[reward]))


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
        (
            {"kind": "function", "function": "engine.rewards.reward_set:gone"},
            "reward 'x': cannot import engine.rewards.reward_set:gone",
        ),
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
