"""A random tiny Llama with a tokenizer, and adapters of every shape on it, saved as their owners would save them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.shelf import Shelf, environment, serving

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# One thread: tiny models gain nothing from more, and threads that wait for each other spin.
torch.set_num_threads(1)

WORDS = ["the quick brown fox jumps over the lazy dog", "mix the policies and move the faders", "Grüße an alle 你好"]


def make_tokenizer(folder: Path, vocab_size: int = 300) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = CHAT
    fast.save_pretrained(folder)
    return fast


def make_base(folder: Path, hidden: int = 32, seed: int = 0, vocab_size: int = 300, **settings) -> None:
    """A random Llama, with grouped-query attention, large enough weights that its distributions are not flat."""
    tokenizer = make_tokenizer(folder, vocab_size)
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    LlamaForCausalLM(LlamaConfig(**shape | settings)).save_pretrained(folder)


def make_adapter(base: Path, folder: Path, seed: int, **settings) -> None:
    """A LoRA with random A and B (peft starts B at zero, which would be no adapter at all)."""
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    model.save_pretrained(folder)


@dataclass(frozen=True)
class Tiny:
    """Where the tiny model, its adapters and its configuration are."""

    folder: Path
    base: Path
    config: Path
    adapters: dict[str, Path]

    def write(self, name: str, /, **changes) -> Path:
        """Another configuration beside the first, with these keys changed."""
        path = self.folder / name
        path.write_text(yaml.safe_dump({**yaml.safe_load(self.config.read_text()), **changes}))
        return path


ALL_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def make_tiny(folder: Path) -> Tiny:
    """The tiny model, its adapters and its configuration in a folder."""
    base = folder / "base"
    make_base(base)
    adapters = {
        "plain": {"r": 4, "lora_alpha": 8, "target_modules": ALL_LINEARS},
        "stabilized": {"r": 6, "lora_alpha": 5, "target_modules": ALL_LINEARS, "use_rslora": True},
        "narrow": {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "v_proj"]},
    }
    for seed, (name, settings) in enumerate(adapters.items(), 1):
        make_adapter(base, folder / name, seed, **settings)
    config = folder / "tiny.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "name": "tiny",
                "base": "base",
                "policies": [{"name": name, "objective": name, "adapter": name} for name in adapters],
                "rewards": [
                    {"objective": "plain", "kind": "implicit", "beta": 0.1},
                    {"objective": "narrow", "kind": "function", "function": "engine.rewards:brevity"},
                ],
            }
        )
    )
    return Tiny(folder, base, config, {name: folder / name for name in adapters})


@pytest.fixture(scope="session")
def tiny_engine(tiny: Tiny):
    from engine import Engine

    with Engine.from_config(tiny.config) as engine:
        yield engine


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """A server that stands in for the hub, a mirror and a package index."""
    with serving(Shelf()) as shelf:
        yield shelf


@pytest.fixture
def shelf_alone(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """The shelf as the only hub and index, with an empty cache."""
    for name, value in environment(tmp_path / "cache", shelf).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return shelf
