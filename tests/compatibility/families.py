"""Families of decoders: tiny random models with two LoRA adapters."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.compatibility.decoding import compare, peft_log_probs, write_config
from tests.compatibility.rows import Result, Row
from tests.conftest import make_tokenizer

VOCABULARY = 300
WINDOW = 8  # tokens; the shortest prompt has fewer
# What most families name alike. Weights large enough that the distributions are not flat.
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "sliding_window": WINDOW,
    "bos_token_id": None,
    "eos_token_id": 4,
    "pad_token_id": 0,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
# Multi-head latent attention.
LATENT = {
    "num_key_value_heads": 4,
    "head_dim": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_n_groups": 1}
PER_LAYER = {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0}


@dataclass(frozen=True)
class Family:
    """A family's configuration: SHAPE with these changes, without what its class does not take.

    targets: peft's target_modules. fan: whether its linears are Conv1D.
    """

    kind: str
    changes: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    targets: str | list[str] = "all-linear"
    fan: bool = False

    def build(self) -> PreTrainedModel:
        settings = {key: value for key, value in SHAPE.items() if key not in self.without}
        if not hasattr(CONFIG_MAPPING[self.kind], "sliding_window"):
            settings.pop("sliding_window", None)
        config = AutoConfig.for_model(self.kind, **{**settings, **self.changes})
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.data.normal_(std=0.2)  # they start at zero, and would show nothing
        return model.eval()


def rope(**settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 10_000.0, **settings}}


PLAIN = """
afmoe apertus arcee aria_text biogpt bitnet bloom cohere cohere2_moe ctrl diffllama doge dots1 ernie4_5 ernie4_5_moe
exaone_moe flex_olmo gemma glm glm4 glm4_moe gpt_bigcode gpt_neox gpt_neox_japanese gpt_oss granite granite_swa
granitemoe granitemoe_swa granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hyperclovax jais2 jetmoe llama
mimo_v2_flash minimax_m2 ministral3 mistral mixtral mpt nanochat nemotron olmo olmo2 olmoe opt persimmon phi phi3
phimoe qwen3 qwen3_moe seed_oss solar_open stablelm starcoder2 vaultgemma xglm cpmant hrm_text laguna
"""

FAMILIES: dict[str, Family] = {
    **{kind: Family(kind) for kind in PLAIN.split()},
    "bamba": Family("bamba", {**MAMBA, "attn_layer_indices": [1]}, targets=["q_proj", "v_proj", "up_proj"]),
    "codegen": Family("codegen", {"rotary_dim": 4}),
    "cohere2": Family("cohere2", MIXED),
    "cwm": Family("cwm", {"bos_token_id": 1, **MIXED}),
    "deepseek_v2": Family("deepseek_v2", LATENT),
    "deepseek_v3": Family("deepseek_v3", LATENT),
    "exaone4": Family("exaone4", MIXED),
    "falcon": Family("falcon", without=("head_dim",)),
    "falcon, ALiBi": Family("falcon", {"alibi": True}, without=("head_dim",)),
    "falcon_h1": Family("falcon_h1", {**MAMBA, "mamba_d_ssm": 64}, targets=["q_proj", "v_proj"]),
    "falcon_mamba": Family("falcon_mamba", targets=["x_proj", "embeddings"]),
    "gemma2": Family("gemma2", {**MIXED, "query_pre_attn_scalar": 8}),
    "gemma3, text": Family("gemma3_text", {**MIXED, "query_pre_attn_scalar": 8}),
    "gemma3, with vision": Family(
        "gemma3",
        {
            "text_config": {**SHAPE, **MIXED, "query_pre_attn_scalar": 8},
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
            "mm_tokens_per_image": 4,
        },
        without=tuple(SHAPE),
        targets=r".*language_model.*(q_proj|v_proj|up_proj)",
    ),
    "gemma3n, text": Family("gemma3n_text", {**MIXED, **PER_LAYER, "laurel_rank": 4}),
    "gemma4, text": Family("gemma4_text", {**MIXED, **PER_LAYER, "global_head_dim": 8}),
    "glm4_moe_lite": Family("glm4_moe_lite", LATENT),
    "gpt2": Family("gpt2", targets=["c_attn", "c_proj", "c_fc"], fan=True),
    "gpt_neo": Family("gpt_neo", {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW}),
    "gptj": Family("gptj", {"rotary_dim": 4}),
    "granitemoehybrid": Family(
        "granitemoehybrid",
        {**MAMBA, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 16},
        targets=["q_proj", "v_proj"],
    ),
    "jamba": Family(
        "jamba",
        {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "mamba_dt_rank": 4},
        targets=["q_proj", "v_proj", "up_proj"],
    ),
    "lfm2": Family("lfm2", {"layer_types": ["conv", "full_attention"]}, targets=["q_proj", "v_proj", "w1"]),
    "llama, a window that it does not have": Family("llama", {"sliding_window": WINDOW}),
    "llama, attention bias": Family("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, tied embeddings": Family("llama", {"tie_word_embeddings": True}),
    "llama, linear RoPE": Family("llama", rope(rope_type="linear", factor=4.0)),
    "llama, dynamic RoPE": Family("llama", {**rope(rope_type="dynamic", factor=4.0), "max_position_embeddings": 96}),
    "llama, YaRN": Family("llama", rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)),
    "llama, Llama 3 RoPE": Family(
        "llama",
        rope(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "llama4, text": Family(
        "llama4_text",
        {
            "attention_chunk_size": WINDOW,
            "layer_types": ["chunked_attention", "full_attention"],
            "intermediate_size_mlp": 48,
            "moe_layers": [1],
        },
    ),
    "longcat_flash": Family(
        "longcat_flash", {**LATENT, "zero_expert_num": 2, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 16}
    ),
    "mamba": Family("mamba", targets=["x_proj", "embeddings"]),
    "mamba2": Family(
        "mamba2", {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 16}, targets=["in_proj", "embeddings"]
    ),
    "mellum": Family("mellum", MIXED),
    "minicpm3": Family("minicpm3", LATENT),
    "minimax": Family("minimax", {"layer_types": ["linear_attention", "full_attention"]}),
    "ministral": Family("ministral", MIXED),
    "modernbert-decoder": Family("modernbert-decoder", {"bos_token_id": 1, "local_attention": WINDOW}),
    "nemotron_h": Family(
        "nemotron_h", {**MAMBA, "mamba_num_heads": 8, "mamba_head_dim": 8}, targets=["q_proj", "v_proj"]
    ),
    "olmo3": Family("olmo3", MIXED),
    "olmo_hybrid": Family("olmo_hybrid", targets=["q_proj", "v_proj", "up_proj"]),
    "phi3, LongRoPE": Family(
        "phi3",
        {
            **rope(rope_type="longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4, partial_rotary_factor=1.0),
            "original_max_position_embeddings": 32,
        },
    ),
    "qwen2": Family("qwen2"),
    "qwen2, sliding": Family("qwen2", {"use_sliding_window": True, "max_window_layers": 1}),
    "qwen2_moe": Family("qwen2_moe", {"shared_expert_intermediate_size": 16}),
    "qwen3.5, text": Family("qwen3_5_text", LINEAR, targets=["q_proj", "v_proj", "up_proj"]),
    "qwen3_next": Family("qwen3_next", {**LINEAR, "shared_expert_intermediate_size": 16}, targets=["q_proj", "v_proj"]),
    "recurrent_gemma": Family(
        "recurrent_gemma",
        {"block_types": ["recurrent", "attention"], "attention_window_size": WINDOW, "num_hidden_layers": 2},
        targets=["q_proj", "v_proj", "up_proj"],
    ),
    "rwkv": Family("rwkv", {"attention_hidden_size": 32}, targets=["key", "value"]),
    "smollm3": Family("smollm3", {"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True}),
    "openai-gpt": Family("openai-gpt", targets=["c_attn", "c_fc"], fan=True),
    "youtu": Family("youtu", LATENT),
}


def measure(family: Family, folder: Path) -> Result:
    """Compare the base and two adapters that are folded into it, or not, with peft."""
    tokenizer = make_tokenizer(folder / "base")
    family.build().save_pretrained(folder / "base")
    names = ["one", "two"]
    for seed, name in enumerate(names, 1):
        model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        fan = {"fan_in_fan_out": True} if family.fan else {}
        settings = LoraConfig(task_type="CAUSAL_LM", r=2 + seed, lora_alpha=5, target_modules=family.targets, **fan)
        lora = get_peft_model(model, settings)
        torch.manual_seed(seed)
        for key, parameter in lora.named_parameters():
            if "lora_" in key:
                parameter.data.normal_(std=0.2)
        lora.save_pretrained(folder / name)
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    expected = PeftModel.from_pretrained(base, folder / "one", adapter_name="one")
    expected.load_adapter(folder / "two", "two")
    config = write_config(folder, [{"name": name, "adapter": name} for name in names])
    return compare(config, tokenizer, peft_log_probs(expected.eval(), names))


def rows() -> list[Row]:
    def row(name: str, family: Family) -> Row:
        return Row("families", name, lambda folder: measure(family, folder), repr((SHAPE, family)))

    return [row(name, family) for name, family in sorted(FAMILIES.items())]
