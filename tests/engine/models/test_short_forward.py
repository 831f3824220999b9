"""The shorter forward pass of a step computes what the model's own does, and is used only where it does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PhiConfig, Qwen2Config, Qwen3Config

from engine import Engine
from engine.models import short_forward
from engine.models.short_forward import can_shorten
from tests.engine.inference.test_self_test import SHAPE, assert_right, configure, folder_of

LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16, "max_window_layers": 0}
FAMILIES = {
    "llama": LlamaConfig(vocab_size=300, **SHAPE),
    "llama with biases": LlamaConfig(vocab_size=300, attention_bias=True, mlp_bias=True, **SHAPE),
    "llama with scaled rotations": LlamaConfig(
        vocab_size=300,
        rope_parameters={
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 128,
            "rope_theta": 1e4,
        },
        **SHAPE,
    ),
    "mistral with a window": MistralConfig(vocab_size=300, sliding_window=16, **SHAPE),
    "qwen2": Qwen2Config(vocab_size=300, **SHAPE),
    "qwen2 with windows": Qwen2Config(vocab_size=300, use_sliding_window=True, **LAYERS, **SHAPE),
    "qwen3": Qwen3Config(vocab_size=300, head_dim=8, **SHAPE),
}
TARGETS = {
    "all": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "some": ["q_proj", "v_proj", "down_proj"],
}


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_says_what_peft_says(family: str, targets: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    base = folder_of(tmp_path / "base", AutoModelForCausalLM.from_config(FAMILIES[family]))
    plain, model = (AutoModelForCausalLM.from_pretrained(base).eval() for _ in range(2))
    adapted = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=TARGETS[targets], init_lora_weights=False)
    )
    adapted.save_pretrained(str(tmp_path / "x"))
    with Engine.from_config(configure(base, adapter=str(tmp_path / "x"))) as engine:
        assert list(engine.policy_set.short) == [0]
        assert_right(engine, {"reference": plain, "x": adapted.eval()})


def test_without_adapters(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["qwen2"]).eval()
    with Engine.from_config(configure(folder_of(tmp_path / "base", model))) as engine:
        assert list(engine.policy_set.short) == [0]
        assert_right(engine, {"reference": model})


def test_one_that_is_wrong_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["llama"]).eval()
    monkeypatch.setattr(short_forward, "rotate", lambda heads, turn: heads)
    with Engine.from_config(configure(folder_of(tmp_path / "base", model))) as engine:
        assert not engine.policy_set.short
        assert_right(engine, {"reference": model})


def test_one_that_fails_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise AttributeError("another release has no such thing")

    model = AutoModelForCausalLM.from_config(FAMILIES["llama"]).eval()
    monkeypatch.setattr(short_forward, "normalise", fail)
    with Engine.from_config(configure(folder_of(tmp_path / "base", model))) as engine:
        assert not engine.policy_set.short
        assert_right(engine, {"reference": model})


def test_only_models_whose_layers_are_known_and_not_watched() -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["llama"])
    assert can_shorten(model)
    model.model.layers[0].register_forward_hook(lambda *_: None)
    assert not can_shorten(model)
    own = type("Own", (type(AutoModelForCausalLM.from_config(FAMILIES["llama"])),), {})
    assert not can_shorten(own(FAMILIES["llama"]))
    assert not can_shorten(AutoModelForCausalLM.from_config(PhiConfig(vocab_size=300, **SHAPE)))
