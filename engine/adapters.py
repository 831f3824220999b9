"""LoRA adapters folded into the base's linears, selected per row by a gate vector.

K adapters on one base do not need K forward passes. With the down-projections A_1..A_K stacked under the base weight
W, `[y, a] = x [W ; A]ᵀ` is one matrix product, and `y += (gate ⊙ a) B` a second, small one. Linears that read the same
input, such as q, k and v, share the first. A row's gate is one-hot for one adapter, zeros for the reference, a weight
vector for the weight-space average of the adapters (Rewarded Soups, arXiv 2306.04488).
LoRA: arXiv 2106.09685; rsLoRA: arXiv 2312.03732.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from engine.errors import InputError


@dataclass(frozen=True)
class Lora:
    """One adapter as read from disk. modules: name -> (A [r, in], B [out, r] with the scale folded in);
    saved: whole parameters that it replaces (peft's modules_to_save), such as a score head."""

    source: str
    base: str | None
    modules: dict[str, tuple[Tensor, Tensor]]
    saved: dict[str, Tensor]


# What a LoRA on linears may touch; GPT-2 keeps its linears' weights the other way round.
LINEARS = (nn.Linear, Conv1D)


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
        *("bias", "use_dora", "rank_pattern", "alpha_pattern", "lora_bias"),
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
    """The gates of the rows of the forward pass to come, shared by all folded linears of a model.

    What linears read stays at one address for each number of rows, so that a captured CUDA graph sees new gates.
    """

    def __init__(self, adapters: int) -> None:
        self.adapters = adapters
        self._values = torch.zeros(0, adapters)
        self._columns: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def set(self, values: Tensor) -> None:
        """values: [rows, adapters]"""
        rows = len(values)
        # Captured graphs compute powers of two; of other numbers only the newest is kept.
        self._columns = {
            key: kept for key, kept in self._columns.items() if key[0] in (rows, 1 << key[0].bit_length() - 1)
        }
        with torch.inference_mode(False):
            self._values = values.clone()
            for (count, owners), columns in self._columns.items():
                if count == rows:
                    columns.copy_(self._pick(owners))

    def columns(self, owners: tuple[int, ...]) -> Tensor:
        """[rows, 1, ranks]: for each stacked rank the gate of the adapter that owns it."""
        key = (len(self._values), owners)
        if key not in self._columns:
            with torch.inference_mode(False):
                self._columns[key] = self._pick(owners)
        return self._columns[key]

    def _pick(self, owners: tuple[int, ...]) -> Tensor:
        return self._values[:, list(owners)].unsqueeze(1)


class GatedLinears(nn.Module):
    """Linears that read the same input (q, k and v; gate and up), with the adapters folded in: one product for the
    weights and down-projections of them all, and a small one for each one's up-projections.

    adapters[i]: {adapter: (A [r, in], B [out, r])} of linear i. Where the gates are zero it is the base's own linears.
    """

    def __init__(self, linears: list[nn.Module], gate: Gate, adapters: list[dict[int, tuple[Tensor, Tensor]]]) -> None:
        super().__init__()
        weights = [weight_of(linear) for linear in linears]
        downs = [a.to(weights[0]) for pairs in adapters for a, _ in pairs.values()]
        ups = [
            torch.cat([weight.new_zeros(len(weight), 0), *(b.to(weight) for _, b in pairs.values())], 1)
            for pairs, weight in zip(adapters, weights, strict=True)
        ]
        self.gate = gate
        self.sizes = [len(weight) for weight in weights]
        self.ranks = [up.shape[1] for up in ups]
        self.owners = tuple(k for pairs in adapters for k, (a, _) in pairs.items() for _ in range(len(a)))
        self.ups = nn.ModuleList(linear_of(up, None) for up in ups)  # ranks to out
        biases: list[Any] = [linear.bias for linear in linears]
        bias = None  # [outs + ranks]
        if any(bias is not None for bias in biases):
            parts = [w.new_zeros(len(w)) if b is None else b.detach() for w, b in zip(weights, biases, strict=True)]
            bias = torch.cat([*parts, weights[0].new_zeros(len(self.owners))])
        self.stacked = linear_of(torch.cat([*weights, *downs]), bias)  # in to outs + ranks
        self._input: Tensor | None = None
        self._outputs: list[Tensor] = []

    def forward(self, x: Tensor) -> list[Tensor]:
        # x: [rows, positions, in]
        both = self.stacked(x)
        *outputs, downs = both.split([*self.sizes, len(self.owners)], -1)
        downs = downs * self.gate.columns(self.owners).to(both.device)
        for y, down, up in zip(outputs, downs.split(self.ranks, -1), self.ups, strict=True):
            if down.shape[-1]:
                y += up(down)
        return outputs

    def output(self, i: int, x: Tensor) -> Tensor:
        """What linear i makes of x. All are computed when the first of them is asked, in the model's own order."""
        if self._input is not x:
            self._input, self._outputs = x, self.forward(x)
        y = self._outputs[i]
        if i == len(self.sizes) - 1:
            self._input, self._outputs = None, []
        return y


class GatedLinear(nn.Module):
    """Stands where one linear of a group stood."""

    def __init__(self, group: GatedLinears, index: int) -> None:
        super().__init__()
        self.group = group
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        return self.group.output(self.index, x)


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def weight_of(linear: nn.Module) -> Tensor:
    """[out, in], whichever way round the module keeps it."""
    assert isinstance(linear, LINEARS)
    weight = linear.weight.detach()
    return weight.T if isinstance(linear, Conv1D) else weight


@torch.inference_mode()
def shared_inputs(model: nn.Module) -> list[list[str]]:
    """The names of all linears, in groups that read one and the same tensor, in the order in which they read it.

    Found by watching the model read one token, and so for any architecture.
    """
    groups: list[list[str]] = []
    seen: list[Tensor] = []  # kept, so that no two inputs can have one identity

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor]) -> None:
            if seen and seen[-1] is inputs[0]:
                groups[-1].append(name)
            else:
                groups.append([name])
            seen.append(inputs[0])

        return hook

    linears = [(name, module) for name, module in model.named_modules() if isinstance(module, LINEARS)]
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in linears]
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device))
    finally:
        for handle in hooks:
            handle.remove()
    return groups


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
    if not touched:
        return gate
    for names in shared_inputs(model):
        if not any(name in touched for name in names):
            continue
        group = GatedLinears(
            [model.get_submodule(name) for name in names], gate, [touched.pop(name, {}) for name in names]
        )
        for i, name in enumerate(names):
            setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], GatedLinear(group, i))
    if touched:
        raise InputError(f"adapters: the base has {next(iter(touched))} but does not use it")
    return gate


@torch.no_grad()
def merge(model: nn.Module, lora: Lora) -> None:
    """Add one adapter to the model's weights, in place. Raises as `check_fit` does."""
    check_fit(model, lora)
    for name, (a, b) in lora.modules.items():
        weight = weight_of(model.get_submodule(name))
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
        if not isinstance(module, LINEARS):
            raise Unfoldable(f"{name} is a {type(module).__name__}")
        out_features, in_features = weight_of(module).shape
        if (in_features, out_features) != (a.shape[1], b.shape[0]):
            raise InputError(
                f"adapter '{lora.source}' is for another base: {name} is {in_features} to "
                f"{out_features}, the adapter's {a.shape[1]} to {b.shape[0]}; {mend}"
            )
