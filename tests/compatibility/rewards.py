"""Reward models: sequence classifiers of several families, as trainers save them, against their own score."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from engine import Engine
from tests.compatibility.adapters import train
from tests.compatibility.decoding import write_config
from tests.compatibility.families import SHAPE, Family
from tests.compatibility.rows import READ, Result, Row, largest
from tests.conftest import make_tokenizer

# Of different lengths, read at once.
ITEMS = [
    ("mix", "the lazy dog"),
    ("move the faders over the lazy dog", "mix the policies and move the faders, the quick brown fox jumps over them"),
    ("the quick brown fox jumps over the lazy dog", "no"),
]


@dataclass(frozen=True)
class Classifier:
    """A reward model.

    Attributes:
        kind: The family.
        changes: Of its configuration.
        pad: The configuration's padding token: "own", "eos" (the token that ends a turn), or "none".
        labels: The names of its outputs.
        label: Which of them is the reward, if there are several.
        adapter: Settings of a LoRA, which is saved beside its base with the head that it was trained with.
        template: How a conversation is read; the chat template unless given.
    """

    kind: str
    changes: dict[str, Any] = field(default_factory=dict)
    pad: str = "own"
    labels: tuple[str, ...] = ("LABEL_0",)
    label: str | None = None
    adapter: dict[str, Any] | None = None
    template: str | None = None


LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
SENTIMENT = ("negative", "neutral", "positive")

CLASSIFIERS: dict[str, Classifier] = {
    **{kind: Classifier(kind) for kind in ("llama", "qwen2", "qwen3", "mistral", "gemma", "opt", "phi3", "gpt_neox")},
    "gemma2": Classifier("gemma2", {"query_pre_attn_scalar": 8}),
    "gemma3, text": Classifier("gemma3_text", {"query_pre_attn_scalar": 8}),
    "gpt2": Classifier("gpt2"),
    "bert": Classifier("bert"),
    "roberta": Classifier("roberta", {"type_vocab_size": 1}),
    "distilbert": Classifier("distilbert", {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 48}),
    "electra": Classifier("electra", {"embedding_size": 32}),
    "deberta-v2": Classifier("deberta-v2"),
    "modernbert": Classifier("modernbert", {"bos_token_id": 1, "cls_token_id": 1, "sep_token_id": 4}),
    "llama, pad is the end of the turn": Classifier("llama", pad="eos"),
    "llama, no pad token": Classifier("llama", pad="none"),
    "gpt2, pad is the end of the turn": Classifier("gpt2", pad="eos"),
    "gpt2, no pad token": Classifier("gpt2", pad="none"),
    "qwen2, no pad token": Classifier("qwen2", pad="none"),
    "llama, two outputs": Classifier("llama", labels=("bad", "good"), label="good"),
    "llama, three outputs": Classifier("llama", labels=SENTIMENT, label="neutral"),
    "bert, three outputs": Classifier("bert", labels=SENTIMENT, label="positive"),
    "roberta, template": Classifier("roberta", {"type_vocab_size": 1}, template="{prompt} -> {response}"),
    "llama, template": Classifier("llama", template="Q: {prompt} A: {response}"),
    "llama, LoRA": Classifier("llama", adapter=LORA),
    "llama, rsLoRA": Classifier("llama", adapter={**LORA, "use_rslora": True, "r": 6}),
    "llama, DoRA": Classifier("llama", adapter={**LORA, "use_dora": True}),
    "llama, rank pattern": Classifier("llama", adapter={**LORA, "rank_pattern": {"q_proj": 2}}),
    "llama, LoRA, no pad token": Classifier("llama", pad="none", adapter=LORA),
    "llama, LoRA, pad is the end of the turn": Classifier("llama", pad="eos", adapter=LORA),
    "llama, LoRA, two outputs": Classifier("llama", labels=("bad", "good"), label="good", adapter=LORA),
    "qwen2, LoRA": Classifier("qwen2", adapter=LORA),
    "llama, PiSSA": Classifier("llama", adapter={**LORA, "init_lora_weights": "pissa"}),
    "bert, LoRA on the encoder": Classifier("bert", adapter={**LORA, "target_modules": ["query", "value"]}),
}


def measure(classifier: Classifier, folder: Path) -> Result:
    """Compare the rewards of all items, read at once, with the model's own score of each alone."""
    make_tokenizer(folder / "base")
    Family("llama").build().save_pretrained(folder / "base")
    tokenizer = make_tokenizer(folder / "reward")
    tokenizer.pad_token = {"own": tokenizer.pad_token, "eos": tokenizer.eos_token, "none": None}[classifier.pad]
    tokenizer.save_pretrained(folder / "reward")
    names = dict(enumerate(classifier.labels))
    labels = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    settings = {**SHAPE, **classifier.changes, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(classifier.kind, **settings, **({} if classifier.adapter else labels))
    torch.manual_seed(1)
    source = "reward"
    model: Any
    if classifier.adapter is None:
        model = AutoModelForSequenceClassification.from_config(config).float()
        model.save_pretrained(folder / "reward")
    else:
        # As trainers do: on a language model, whose score head is made for the adapter and saved with it. An encoder's
        # language models lack its pooler.
        whole = AutoModel if classifier.kind == "bert" else AutoModelForCausalLM
        whole.from_config(config).float().save_pretrained(folder / "reward")
        base = AutoModelForSequenceClassification.from_pretrained(folder / "reward", dtype=torch.float32, **labels)
        model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", **classifier.adapter))
        train(model, 3, 0.02 if isinstance(classifier.adapter.get("init_lora_weights"), str) else 0.15)
        source = "adapter"
        model.save_pretrained(folder / source)
        tokenizer.save_pretrained(folder / source)
    reward = {"objective": "told", "kind": "classifier", "model": source, "mean": 0.0, "std": 1.0}
    reward |= {key: value for key in ("label", "template") if (value := getattr(classifier, key))}
    policy = {"name": "told", "system_prompt": "mix"}
    with Engine.from_config(write_config(folder, [policy], rewards=[reward])) as engine:
        found = [rewards["told"] for rewards in engine.rewards([(*item, None) for item in ITEMS])]
    column = list(classifier.labels).index(classifier.label) if classifier.label else 0
    own = AutoTokenizer.from_pretrained(folder / "reward")
    differences = []
    for (prompt, response), value in zip(ITEMS, found, strict=True):
        ids = ids_of(own, classifier.template, prompt, response)
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits
        differences.append(value - logits[0, column].item())
    return Result(READ, largest(differences))


def ids_of(tokenizer: Any, template: str | None, prompt: str, response: str) -> list[int]:
    if template is not None:
        return tokenizer(template.replace("{prompt}", prompt).replace("{response}", response)).input_ids
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return tokenizer.apply_chat_template(messages, return_dict=False)


def rows() -> list[Row]:
    def row(name: str, classifier: Classifier) -> Row:
        return Row("rewards", name, lambda folder: measure(classifier, folder), repr(classifier))

    return [row(name, classifier) for name, classifier in CLASSIFIERS.items()]
