"""Reward models of many kinds, in one batch, against transformers' and peft's own score of each row alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from engine import Engine, InputError
from engine.rewards.classifier import fitting
from engine.rewards.reward_model import longest_input
from tests.conftest import Tiny, make_tokenizer

# Of different lengths, so that the batch is padded.
ITEMS = [("mix", "the lazy dog", None), ("move the faders", "the quick brown fox jumps over", None), ("a", "", None)]
# Turns that end in the end token, which is also the last thing that is read.
OWN_CHAT = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<|end|>{% endfor %}"
SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 128, "initializer_range": 0.3,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"num_key_value_heads": 2},
    "gpt2": {"resid_pdrop": 0.0},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.3},
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "deberta-v2": {},
}
CAUSAL = ("llama", "qwen2", "gpt2", "opt")


def make_classifier(folder: Path, kind: str, pad: str = "own", chat: str | None = OWN_CHAT, **changes: Any) -> Path:
    """Save a random classifier and its tokenizer. pad: own, eos (the end token), none, outside (of the vocabulary)."""
    tokenizer = make_tokenizer(folder)
    tokenizer.chat_template = chat
    if pad in ("eos", "none"):
        tokenizer.pad_token = tokenizer.eos_token if pad == "eos" else None
    tokenizer.save_pretrained(folder)
    ids = {"own": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id, "none": None, "outside": -1}
    settings = {**SHAPE, "vocab_size": len(tokenizer), "num_labels": 1, "bos_token_id": None, **KINDS[kind], **changes}
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **settings, eos_token_id=tokenizer.eos_token_id, pad_token_id=ids[pad])
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def own_scores(model: torch.nn.Module, tokenizer: Any, output: int = 0) -> list[float]:
    """Each item alone, unpadded, by the model's own forward pass."""
    found = []
    for prompt, response, _ in ITEMS:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        with torch.no_grad():
            found.append(model.eval()(input_ids=torch.tensor([ids])).logits[0, output].item())
    return found


def rewards(tiny: Tiny, name: str, model: Path | str, **settings: Any) -> list[float]:
    reward = {"objective": "told", "kind": "classifier", "model": str(model), **settings}
    with Engine.from_config(tiny.write(f"{name}.yaml", rewards=[reward])) as engine:
        rows = engine.rewards(ITEMS)
    assert not any(row.missing for row in rows), rows[0].missing
    return [row["told"] for row in rows]


@pytest.mark.parametrize("pad", ["own", "eos", "none", "outside"])
@pytest.mark.parametrize("kind", CAUSAL)
def test_a_decoder_is_read_where_it_reads_a_row_alone(tiny: Tiny, tmp_path: Path, kind: str, pad: str) -> None:
    folder = make_classifier(tmp_path / "model", kind, pad)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    theirs = own_scores(model, AutoTokenizer.from_pretrained(folder))
    assert rewards(tiny, f"{kind}-{pad}", folder) == pytest.approx(theirs, abs=1e-4)
    assert len({round(value, 3) for value in theirs}) == len(ITEMS), "else the test would show little"


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2"])
def test_an_encoder_of_several_outputs(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    labels = {0: "bad", 1: "good"}
    folder = make_classifier(tmp_path / "model", kind, id2label=labels, label2id={"bad": 0, "good": 1}, num_labels=2)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    theirs = own_scores(model, AutoTokenizer.from_pretrained(folder), output=1)
    assert rewards(tiny, f"{kind}-labels", folder, label="Good") == pytest.approx(theirs, abs=1e-4)
    with pytest.raises(InputError, match="has the labels bad, good; say with 'label'"):
        rewards(tiny, f"{kind}-labels", folder)


def make_lora(folder: Path, base: Path, chat: str | None = OWN_CHAT, grow: int = 0, **settings: Any) -> Any:
    """Save a LoRA on a causal base with a head of its own, and its tokenizer, as TRL does. grow: tokens to add."""
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if grow:
        tokenizer.add_tokens([f"<|new{i}|>" for i in range(grow)])
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    defaults = {"task_type": "SEQ_CLS", "r": 4, "target_modules": ["q_proj", "down_proj"]}
    lora = get_peft_model(model, LoraConfig(**{**defaults, **settings}))
    for name, parameter in lora.named_parameters():
        if "lora_B" in name or "score" in name:
            torch.nn.init.normal_(parameter.data)
    lora.save_pretrained(folder, save_embedding_layers=bool(grow))
    if chat:
        tokenizer.chat_template = chat
        tokenizer.save_pretrained(folder)
    return lora


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("plain", {}),
        ("the base's template", {"chat": None}),
        ("more tokens", {"grow": 8}),
        ("dora", {"use_dora": True}),
        ("biases", {"bias": "lora_only"}),
        ("patterns", {"rank_pattern": {"q_proj": 2}}),
    ],
)
def test_a_lora_equals_peft(tiny: Tiny, tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    folder = tmp_path / "adapter"
    lora = make_lora(folder, tiny.base, **settings)
    source = tiny.base if settings.get("chat", "") is None else folder
    theirs = own_scores(lora, AutoTokenizer.from_pretrained(source))
    assert rewards(tiny, f"lora-{name}", folder) == pytest.approx(theirs, abs=1e-4)
    if settings:
        return
    bare = AutoModelForSequenceClassification.from_pretrained(tiny.base, num_labels=1)
    again = own_scores(PeftModel.from_pretrained(bare, folder), AutoTokenizer.from_pretrained(folder))
    assert again == pytest.approx(theirs, abs=1e-5), "what peft itself loads"


def edit(folder: Path, name: str, change: Any) -> None:
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, {"format": "pt"})


def test_weights_that_are_missing_or_broken_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    whole = make_classifier(tmp_path / "whole", "llama")
    for name, change, says in (
        ("headless", lambda t: t.pop("score.weight"), "has no score.weight in its files, which would be random"),
        ("broken", lambda t: t["model.norm.weight"].fill_(float("nan")), "model.norm.weight has values that are NaN"),
        ("endless", lambda t: t["score.weight"][0].fill_(float("inf")), "score.weight has values that are NaN or inf"),
    ):
        shutil.copytree(whole, tmp_path / name)
        edit(tmp_path / name, "model.safetensors", change)
        with pytest.raises(InputError, match=f"reward 'told'.*{says}") as caught:
            rewards(tiny, name, tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"has no score\.weight in its files"):
        rewards(tiny, "language-model", tiny.base)
    make_lora(tmp_path / "lora", tiny.base)
    edit(tmp_path / "lora", "adapter_model.safetensors", lambda t: t.pop("base_model.model.score.weight"))
    with pytest.raises(InputError, match=r"modules_to_save: \[score\]"):
        rewards(tiny, "headless-lora", tmp_path / "lora")


def test_a_tokenizer_of_another_model_is_told(tiny: Tiny, tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model", "llama", vocab_size=8)
    reward = {"objective": "told", "kind": "classifier", "model": str(folder)}
    with Engine.from_config(tiny.write("small.yaml", rewards=[reward])) as engine:
        (row,) = engine.rewards(ITEMS[:1])
    assert not row and "its model has 8: the tokenizer is that of another model" in row.missing["told"]


@pytest.mark.parametrize("kind", ["gpt2", "opt", "bert", "roberta", "llama"])
def test_what_is_too_long_is_shortened_to_the_models_positions(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    folder = make_classifier(tmp_path / "model", kind, max_position_embeddings=64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    limit = longest_input(model, tokenizer)
    assert limit == (63 if kind == "roberta" else 64)
    with torch.no_grad():  # the longest that there is
        model(input_ids=torch.full((1, limit), 7))
    prompt, response = "first " * 60 + "last words", "the lazy dog"
    ids, shortened = fitting(tokenizer, prompt, response, None, limit)
    text = tokenizer.decode(ids)
    assert shortened and len(ids) <= limit
    assert text.endswith("last words<|end|>[assistant] the lazy dog<|end|>"), "the response and the prompt's end stay"
    long_response = "mix the faders " * 40
    cut = tokenizer.decode(fitting(tokenizer, prompt, long_response, None, limit)[0])
    assert "[assistant] mix the faders" in cut and cut.endswith("<|end|>"), (
        "of a response that is too long, the beginning"
    )
    reward = {"objective": "told", "kind": "classifier", "model": str(folder)}
    with Engine.from_config(tiny.write(f"long-{kind}.yaml", rewards=[reward])) as engine:
        rows = engine.rewards([(prompt, response, None), (prompt, long_response, None), ITEMS[0]])
        completion = engine.generate("mix " * 30, max_new_tokens=60, temperature=1.0, seed=1)
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor([ids])).logits.item()
    assert rows[0]["told"] == pytest.approx(theirs, abs=1e-4)
    assert all("told" in row for row in rows)
    assert completion.text and "told" in completion.rewards


def test_the_oldest_turns_go_first(tiny: Tiny) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    turns = [
        {"role": "user", "content": "the fox " * 10},
        {"role": "assistant", "content": "jumps " * 10},
        {"role": "user", "content": "mix the dog"},
    ]
    ids, shortened = fitting(tokenizer, turns, "the faders", None, 24)
    assert shortened and tokenizer.decode(ids) == "<|user|>mix the dog<|end|><|assistant|>the faders<|end|>"
    assert fitting(tokenizer, turns, "the faders", None, 500)[1] is False


def test_an_adapters_own_end_token_is_read(tiny: Tiny, tmp_path: Path) -> None:
    """Its tokenizer ends a turn in another way than its base's."""
    chat = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    lora = make_lora(tmp_path / "adapter", tiny.base, chat=chat)
    file = tmp_path / "adapter" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": "<|system|>"}))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    assert tokenizer.eos_token == "<|system|>"
    assert rewards(tiny, "own-end", tmp_path / "adapter") == pytest.approx(own_scores(lora, tokenizer), abs=1e-4)
