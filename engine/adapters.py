"""LoRA adapters folded into the base's linears, selected per row by a gate vector.

K adapters on one base do not need K forward passes. With the down-projections A_1..A_K stacked under the base weight
W, `[y, a] = x [W ; A]ᵀ` is one matrix product, and `y += (gate ⊙ a) B` a second, small one. A row's gate is one-hot
for one adapter, zeros for the reference, a weight vector for the weight-space average of the adapters (Rewarded Soups,
arXiv 2306.04488). LoRA: arXiv 2106.09685; rsLoRA: arXiv 2312.03732.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import InputError


@dataclass(frozen=True)
class Lora:
    """One adapter as read from disk. modules: name -> (A [r, in], B [out, r] with the scale folded in);
    saved: whole parameters that it replaces (peft's modules_to_save), such as a score head."""

    source: str
    base: str | None
    modules: dict[str, tuple[Tensor, Tensor]]
    saved: dict[str, Tensor]


class Unfoldable(Exception):  # noqa: N818 (no error: it chooses the way)
    """The adapter is sound, but is not a plain LoRA on linears: it takes the general path. The message says why."""


def adapter_folder(source: str) -> Path:
    """The local folder of an adapter, downloaded if `source` is a hub id."""
    folder = Path(source)
    if not folder.is_dir():
        try:
            folder = Path(
                snapshot_download(source, allow_patterns=["adapter_*", "tokenizer*", "special_tokens_map.json"])
            )
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"adapter '{source}': not a folder here, and not to be had from the hub ({reason})"
            ) from None
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise InputError(f"adapter '{source}': {name} is missing; expected a folder saved by peft (safetensors)")
    return folder


def read_lora(source: str) -> Lora:
    """Read a peft LoRA. Raises InputError if it is not an adapter, Unfoldable if it needs the general path."""
    folder = adapter_folder(source)
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
    except ValueError as error:
        raise InputError(f"adapter '{source}': adapter_config.json is not JSON ({error})") from None
    if config.get("peft_type") != "LORA":
        raise Unfoldable(f"{config.get('peft_type')} is not LoRA")
    plain = {"bias": "none", "init_lora_weights": config.get("init_lora_weights")}
    for key in (
        *("bias", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias"),
        *("layer_replication", "trainable_token_indices", "target_parameters", "use_qalora", "alora_invocation_tokens"),
    ):
        if config.get(key) and config[key] != plain.get(key):
            raise Unfoldable(f"it uses {key}")
    try:
        tensors = load_file(folder / "adapter_model.safetensors")
    except Exception as error:
        raise InputError(f"adapter '{source}': adapter_model.safetensors is unreadable ({error})") from None
    modules, saved = {}, {}
    for key, a in tensors.items():
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        if not key.endswith("lora_A.weight"):
            if "lora_" in key and not key.endswith("lora_B.weight"):
                raise Unfoldable(f"it has {key}")
            if "lora_" not in key:
                saved[name] = a
            continue
        b = tensors.get(key.replace("lora_A", "lora_B"))
        if b is None:
            raise InputError(f"adapter '{source}': {name} has lora_A but no lora_B")
        if a.dim() != 2 or b.dim() != 2:
            raise Unfoldable(f"{name} is not a linear")
        rank = a.shape[0]
        scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        modules[name] = (a.float(), b.float() * scale)
    if not modules:
        raise InputError(f"adapter '{source}': adapter_model.safetensors holds no LoRA weights")
    return Lora(source, config.get("base_model_name_or_path"), modules, saved)


class Gate:
    """The gates of the rows of the forward pass to come, shared by all folded linears of a model."""

    def __init__(self, adapters: int) -> None:
        self.adapters = adapters
        self._values = torch.zeros(0, adapters)
        self._columns: dict[tuple[int, ...], Tensor] = {}

    def set(self, values: Tensor) -> None:
        """values: [rows, adapters]"""
        self._values = values
        self._columns.clear()

    def columns(self, owners: tuple[int, ...]) -> Tensor:
        """[rows, 1, ranks]: for each stacked rank the gate of the adapter that owns it. Kept until the gates change,
        since most linears have the same owners."""
        if owners not in self._columns:
            self._columns[owners] = self._values[:, list(owners)].unsqueeze(1)
        return self._columns[owners]


class GatedLinear(nn.Module):
    """A linear with adapters folded in: the base's own where the gate is zero."""

    def __init__(self, linear: nn.Linear, gate: Gate, adapters: dict[int, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        weight = linear.weight
        downs = [a.to(weight) for a, _ in adapters.values()]
        ups = [b.to(weight).T for _, b in adapters.values()]
        self.gate = gate
        self.out_features = linear.out_features
        self.owners = tuple(index for index, (a, _) in adapters.items() for _ in range(a.shape[0]))
        self.stacked = nn.Parameter(torch.cat([weight.detach(), *downs]), requires_grad=False)  # [out + ranks, in]
        self.up = nn.Parameter(torch.cat(ups).contiguous(), requires_grad=False)  # [ranks, out]
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        # x: [rows, positions, in]
        both = nn.functional.linear(x, self.stacked)
        y, a = both[..., : self.out_features], both[..., self.out_features :]
        y = y + (a * self.gate.columns(self.owners)) @ self.up
        return y if self.bias is None else y + self.bias


def fold(model: nn.Module, loras: list[Lora]) -> Gate:
    """Replace the linears that the adapters touch, in place. Adapter k is the gate's column k.

    Raises InputError for an adapter that does not fit the model, Unfoldable for one that touches more than linears.
    """
    gate = Gate(len(loras))
    touched: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
    for index, lora in enumerate(loras):
        check_foldable(model, lora)
        for name, pair in lora.modules.items():
            touched.setdefault(name, {})[index] = pair
    for name, adapters in touched.items():
        parent = model.get_submodule(name.rpartition(".")[0])
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(parent, name.rpartition(".")[2], GatedLinear(linear, gate, adapters))
    return gate


@torch.no_grad()
def merge(model: nn.Module, lora: Lora) -> None:
    """Add one adapter to the model's weights, in place. Raises as `check_fit` does."""
    check_fit(model, lora)
    for name, (a, b) in lora.modules.items():
        weight = model.get_parameter(f"{name}.weight")
        weight.add_((b @ a).to(weight))
    for name, tensor in lora.saved.items():
        model.get_parameter(name).copy_(tensor)


def check_foldable(model: nn.Module, lora: Lora) -> None:
    """Raises InputError if the adapter was trained from another base, Unfoldable if it needs the general path."""
    if lora.saved:
        raise Unfoldable(f"it replaces {next(iter(lora.saved))}")
    check_fit(model, lora)


def check_fit(model: nn.Module, lora: Lora) -> None:
    """Raises InputError if the adapter was trained from another base, Unfoldable if a module is no linear."""
    mend = "give an adapter that was trained from this base"
    for name, (a, b) in lora.modules.items():
        try:
            module = model.get_submodule(name)
        except AttributeError:
            raise InputError(f"adapter '{lora.source}' is for another base: the base has no {name}; {mend}") from None
        if not isinstance(module, nn.Linear):
            raise Unfoldable(f"{name} is a {type(module).__name__}")
        if (module.in_features, module.out_features) != (a.shape[1], b.shape[0]):
            raise InputError(
                f"adapter '{lora.source}' is for another base: {name} is {module.in_features} to "
                f"{module.out_features}, the adapter's {a.shape[1]} to {b.shape[0]}; {mend}"
            )
