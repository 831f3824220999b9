"""peft's settings: adapters as peft saves them, on tiny bases, against the forward pass of the model that was saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft.utils import get_peft_model_state_dict
from torch import nn
from transformers import AutoModelForCausalLM

from engine.config import REFERENCE
from tests.compatibility.decoding import compare, log_probs_of, write_config
from tests.compatibility.families import Family
from tests.compatibility.rows import SKIPPED, Result, Row
from tests.conftest import ALL_LINEARS, make_tokenizer

ATTENTION = ["q_proj", "v_proj"]
BASES = {
    "llama": Family("llama"),
    "tied": Family("llama", {"tie_word_embeddings": True}),
    "biased": Family("llama", {"attention_bias": True, "mlp_bias": True}),
    "gpt2": Family("gpt2"),
    "mixtral": Family("mixtral"),
}


@dataclass(frozen=True)
class Setting:
    """configs: (class of peft, its settings) of each adapter, stacked in this order. noise: the standard deviation of
    what is added to the weights that an adapter begins with, as training would."""

    configs: tuple[tuple[str, dict[str, Any]], ...]
    base: str = "llama"
    noise: float = 0.15


def lora(base: str = "llama", **changes: Any) -> Setting:
    return Setting((lora_config(**changes),), base)


def lora_config(**changes: Any) -> tuple[str, dict[str, Any]]:
    return "LoraConfig", {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION, **changes}


def other(kind: str, noise: float = 0.15, base: str = "llama", **settings: Any) -> Setting:
    return Setting(((kind, {"target_modules": ATTENTION, **settings}),), base, noise)


def prompts(kind: str, **settings: Any) -> Setting:
    return Setting(((kind, settings),))


SETTINGS: dict[str, Setting] = {
    "rank 1": lora(r=1),
    "rank 16": lora(r=16),
    "rank above the width": lora(r=48),
    "alpha 1": lora(lora_alpha=1),
    "alpha 64": lora(lora_alpha=64),
    "rsLoRA": lora(use_rslora=True),
    "rsLoRA, rank 6, all linears": lora(use_rslora=True, r=6, target_modules=ALL_LINEARS),
    "DoRA": lora(use_dora=True),
    "DoRA with rsLoRA, all linears": lora(use_dora=True, use_rslora=True, target_modules=ALL_LINEARS),
    "all linears": lora(target_modules="all-linear"),
    "MLP": lora(target_modules=["gate_proj", "up_proj", "down_proj"]),
    "one projection": lora(target_modules=["o_proj"]),
    "targets by a pattern": lora(target_modules=r".*layers\.1\.(self_attn\.q|mlp\.up)_proj"),
    "targets excluded": lora(target_modules=ALL_LINEARS, exclude_modules=["down_proj"]),
    "one layer": lora(layers_to_transform=[1]),
    "one layer, named pattern": lora(layers_to_transform=0, layers_pattern="layers"),
    "rank pattern": lora(rank_pattern={"q_proj": 2}),
    "alpha pattern": lora(alpha_pattern={"v_proj": 32}),
    "rank and alpha patterns, rsLoRA": lora(
        use_rslora=True, rank_pattern={"q_proj": 8}, alpha_pattern={"layers.0.self_attn.v_proj": 3}
    ),
    "bias all": lora("biased", bias="all"),
    "bias lora_only": lora("biased", bias="lora_only", target_modules=ALL_LINEARS),
    "LoRA bias": lora(lora_bias=True),
    "base with biases": lora("biased", target_modules=ALL_LINEARS),
    "saved head": lora(modules_to_save=["lm_head"]),
    "saved embeddings": lora(modules_to_save=["embed_tokens"]),
    "saved norms": lora(modules_to_save=["input_layernorm", "norm"]),
    "saved head and embeddings": lora(modules_to_save=["lm_head", "embed_tokens"]),
    "LoRA on the head": lora(target_modules=["q_proj", "lm_head"]),
    "LoRA on the embeddings": lora(target_modules=["q_proj", "embed_tokens"]),
    "LoRA on both": lora(target_modules=["lm_head", "embed_tokens"]),
    "tied, LoRA on the head": lora("tied", target_modules=["q_proj", "lm_head"]),
    "tied, LoRA on the embeddings": lora("tied", target_modules=["q_proj", "embed_tokens"]),
    "tied, saved head": lora("tied", modules_to_save=["lm_head"]),
    "tied, saved embeddings": lora("tied", modules_to_save=["embed_tokens"]),
    "tied, all linears": lora("tied", target_modules="all-linear"),
    "init gaussian": lora(init_lora_weights="gaussian"),
    "init orthogonal": lora(init_lora_weights="orthogonal"),
    "init at random": lora(init_lora_weights=False),
    "init PiSSA": Setting((lora_config(init_lora_weights="pissa"),), noise=0.02),
    "init PiSSA, niter": Setting((lora_config(init_lora_weights="pissa_niter_4"),), noise=0.02),
    "init OLoRA": Setting((lora_config(init_lora_weights="olora"),), noise=0.02),
    "dropout": lora(lora_dropout=0.3),
    "trainable tokens": lora(trainable_token_indices=[20, 21, 30]),
    "layer replication": lora(layer_replication=[[0, 2], [1, 2]]),
    "target parameters": lora("mixtral", target_parameters=["mlp.experts.gate_up_proj"]),
    "activated LoRA": lora(alora_invocation_tokens=[3]),
    "GPT-2, c_attn": lora("gpt2", target_modules=["c_attn"], fan_in_fan_out=True),
    "GPT-2, all linears": lora("gpt2", target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True),
    "GPT-2, DoRA": lora("gpt2", target_modules=["c_attn"], fan_in_fan_out=True, use_dora=True),
    "GPT-2, LoRA on the embeddings": lora("gpt2", target_modules=["wte"]),
    "two stacked": Setting((lora_config(), lora_config(r=2, target_modules=ALL_LINEARS))),
    "LoRA on DoRA": Setting((lora_config(use_dora=True), lora_config(r=2))),
    "LoRA on rank pattern": Setting((lora_config(rank_pattern={"q_proj": 2}), lora_config(target_modules=["up_proj"]))),
    "IA3": other("IA3Config", feedforward_modules=[]),
    "IA3, MLP": Setting(
        (("IA3Config", {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),)
    ),
    "LoHa": other("LoHaConfig", r=4, alpha=8),
    "LoKr": other("LoKrConfig", r=4, alpha=8),
    "AdaLoRA": other("AdaLoraConfig", init_r=6, target_r=4, total_step=10),
    "OFT": other("OFTConfig", noise=0.05, oft_block_size=8, r=0),
    "BOFT": other("BOFTConfig", noise=0.05, boft_block_size=8),
    "HRA": other("HRAConfig", r=4),
    "VeRA": other("VeraConfig", r=8, target_modules=["q_proj", "o_proj"]),
    "FourierFT": other("FourierFTConfig", n_frequency=40),
    "VB-LoRA": other("VBLoRAConfig", num_vectors=8, vector_length=8, r=2, target_modules=["q_proj", "o_proj"]),
    "RandLoRA": other("RandLoraConfig", r=4, target_modules=["q_proj", "o_proj"]),
    "SHiRA": other("ShiraConfig", r=2),
    "MiSS": other("MissConfig", r=4),
    "C3A": other("C3AConfig", block_size=8),
    "RoAd": other("RoadConfig", group_size=8),
    "WaveFT": other("WaveFTConfig", n_frequency=40),
    "DeLoRA": other("DeloraConfig", r=4),
    "GraLoRA": other("GraloraConfig", r=4, gralora_k=2),
    "LN tuning": Setting((("LNTuningConfig", {"target_modules": ["input_layernorm", "norm"]}),)),
    "trainable tokens alone": Setting((("TrainableTokensConfig", {"token_indices": [20, 21, 30]}),)),
    "prompt tuning": prompts("PromptTuningConfig", num_virtual_tokens=3),
    "prefix tuning": prompts("PrefixTuningConfig", num_virtual_tokens=3),
    "p-tuning": prompts("PromptEncoderConfig", num_virtual_tokens=3, encoder_hidden_size=16),
    "adaption prompt": prompts("AdaptionPromptConfig", adapter_len=3, adapter_layers=1, target_modules="self_attn"),
}


def train(model: nn.Module, seed: int, noise: float) -> None:
    """Change all that peft would save, so that nothing is where it began and would show nothing."""
    saved = {tensor.data_ptr() for tensor in get_peft_model_state_dict(model, save_embedding_layers=False).values()}
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.is_floating_point() and (parameter.requires_grad or parameter.data_ptr() in saved):
            parameter.data += torch.randn(parameter.shape, generator=generator) * noise


def measure(setting: Setting, folder: Path) -> Result:
    """Compare with the model as it was before it was saved; of stacked ones, with the sum of what they change."""
    missing = [kind for kind, _ in setting.configs if not hasattr(peft, kind)]
    if missing:
        return Result(SKIPPED, None, f"peft {peft.__version__} has no {missing[0]}")
    tokenizer = make_tokenizer(folder / "base")
    BASES[setting.base].build().save_pretrained(folder / "base")
    paths = []
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    for number, (kind, settings) in enumerate(setting.configs, 1):
        torch.manual_seed(number)
        config = getattr(peft, kind)(task_type="CAUSAL_LM", **settings)
        alone = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32), config)
        train(alone, number, setting.noise)
        alone.eval().save_pretrained(folder / f"adapter{number}", save_embedding_layers=False)
        paths.append(f"adapter{number}")
        if len(setting.configs) == 1:
            model = alone
        else:  # merged one after the other, which is what stacking them means
            model = peft.PeftModel.from_pretrained(model, folder / paths[-1]).merge_and_unload()
    reference = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    expected = {REFERENCE: log_probs_of(reference.eval()), "adapted": log_probs_of(model.eval())}
    policy = {"name": "adapted", "adapter": paths if len(paths) > 1 else paths[0]}
    return compare(write_config(folder, [policy]), tokenizer, expected)


def rows() -> list[Row]:
    def row(name: str, setting: Setting) -> Row:
        return Row("adapters", name, lambda folder: measure(setting, folder), repr(setting))

    return [row(name, setting) for name, setting in SETTINGS.items()]
