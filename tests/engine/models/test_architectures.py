"""Decoder models of several families, random and tiny: their mixtures against peft's own forwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from engine import Engine, InputError
from tests.conftest import make_tokenizer

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "initializer_range": 0.2}
GEMMA = {**GROUPED, "sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]}
PROMPT = "move the faders over the lazy dog and jump"

CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict, list[str] | str]] = {
    "qwen2": (Qwen2Config, GROUPED, "all-linear"),
    "qwen3": (Qwen3Config, GROUPED, "all-linear"),
    "mistral": (MistralConfig, {**GROUPED, "sliding_window": 7}, "all-linear"),
    "gemma2": (Gemma2Config, {**GEMMA, "query_pre_attn_scalar": 8}, "all-linear"),
    "gemma3": (Gemma3TextConfig, {**GEMMA, "query_pre_attn_scalar": 8}, "all-linear"),
    "gpt2": (
        GPT2Config,
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2},
        ["c_attn", "c_proj", "c_fc"],
    ),
}


@pytest.mark.parametrize("family", CONFIGS)
def test_a_mixture_equals_peft(family: str, tmp_path: Path) -> None:
    kind, shape, targets = CONFIGS[family]
    tokenizer = make_tokenizer(tmp_path / "base")
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(vocab_size=len(tokenizer), **shape, **special))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(std=0.2)  # they start at zero, and would show nothing
    model.save_pretrained(tmp_path / "base")
    for seed, name in enumerate(("one", "two"), 1):
        fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        fan = {"fan_in_fan_out": True} if family == "gpt2" else {}
        lora = get_peft_model(
            fresh, LoraConfig(task_type="CAUSAL_LM", r=2 + seed, lora_alpha=5, target_modules=targets, **fan)
        )
        for key, parameter in lora.named_parameters():
            if "lora_" in key:
                parameter.data.normal_(std=0.3)
        lora.save_pretrained(tmp_path / name)
    config = tmp_path / "config.yaml"
    policies = [{"name": name, "objective": name, "adapter": name} for name in ("one", "two")]
    config.write_text(yaml.safe_dump({"name": family, "base": "base", "policies": policies}))

    with Engine.from_config(config) as engine:
        assert [policy.note for policy in engine.policy_set.policies] == ["", "", ""]
        # Others of other lengths are beside it in the batch.
        others = [engine.submit(text, engine.mixture()) for text in ("mix", PROMPT * 2)]
        completion = engine.generate(PROMPT, {"one": 0.4, "two": 0.6}, max_new_tokens=20, temperature=1.0, seed=1)
        assert all(other.completion().tokens for other in others)
    prompt = tokenizer(f"<|user|>{PROMPT}<|end|><|assistant|>").input_ids
    for name in ("reference", "one", "two"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        if name != "reference":
            model = PeftModel.from_pretrained(model, tmp_path / name)
        with torch.no_grad():
            log_probs = model.eval()(input_ids=torch.tensor([prompt + completion.tokens])).logits[0].log_softmax(-1)
        expected = [log_probs[len(prompt) - 1 + i, token].item() for i, token in enumerate(completion.tokens)]
        assert [step[name] for step in completion.trace] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=300), "model 'mamba' cannot be decoded here"),
        (BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=300), "model 'bloom' cannot be decoded here"),
    ],
    ids=["mamba", "bloom"],
)
def test_what_cannot_be_decoded_is_refused(config: PreTrainedConfig, said: str, tmp_path: Path) -> None:
    make_tokenizer(tmp_path / "base")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    path = tmp_path / "config.yaml"
    policies = [{"name": "told", "objective": "a", "system_prompt": "mix"}]
    path.write_text(yaml.safe_dump({"name": "refused", "base": "base", "policies": policies}))
    with pytest.raises(InputError, match=said) as caught:
        Engine.from_config(path)
    assert "\n" not in str(caught.value)
