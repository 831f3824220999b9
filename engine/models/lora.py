"""Fold LoRA adapters into gated linears, or merge them into the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.models.adapter_files import Lora, Pair
from engine.models.adapter_fit import fit_adapter
from engine.models.gated_linear import Gate, GatedLinear, GatedLinears
from engine.models.linear_layout import Layout, layout_of, weight_of


def fold(model: nn.Module, loras: list[Lora], layout: Layout | None = None) -> Gate:
    """Replace the linears that adapters change by gated linears, in place.

    Args:
        model: The model.
        loras: The adapters, as `fit_to_fold` returns them. Adapter k has column k of the gate.
        layout: The layout of the model's linears, if it is known.

    Returns:
        The gate that selects the adapters of each row.
    """
    gate = Gate(len(loras))
    touched: dict[str, dict[int, Pair]] = {}
    for index, lora in enumerate(loras):
        for name, pair in lora.modules.items():
            touched.setdefault(name, {})[index] = pair
    if not touched:
        return gate
    for names in (layout or layout_of(model)).groups:
        if not any(name in touched for name in names):
            continue
        group = GatedLinears(
            [model.get_submodule(name) for name in names], gate, [touched.pop(name, {}) for name in names]
        )
        for i, name in enumerate(names):
            setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], GatedLinear(group, i))
    assert not touched, f"the base does not use {next(iter(touched))}"
    return gate


@torch.no_grad()
def merge(model: nn.Module, lora: Lora) -> None:
    """Add one adapter to the model's weights, in place.

    A shared weight is changed only in the module that the adapter names.

    Raises:
        InputError: The adapter was trained from another base.
        Unfoldable: A module is not a linear.
    """
    lora, _ = fit_adapter(model, lora)
    for name, pair in lora.modules.items():
        module: Any = model.get_submodule(name)
        weight = weight_of(module)
        weight = weight + (pair.up @ pair.down).to(weight)
        module.weight = nn.Parameter(weight.T if isinstance(module, Conv1D) else weight, requires_grad=False)
        if pair.shift is not None:
            added = (pair.up @ pair.shift).to(weight)
            module.bias = nn.Parameter(added if module.bias is None else module.bias + added, requires_grad=False)
    for name, tensor in lora.saved.items():
        old = model.get_parameter(name)
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, nn.Parameter(tensor.to(old), requires_grad=False))
