"""The linears of a model: their weights in either orientation, and the ones that can be folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

# What a LoRA on linears may touch; GPT-2 keeps its linears' weights the other way round. A subclass may do more.
LINEARS = (nn.Linear, Conv1D)


def weight_of(linear: nn.Module) -> Tensor:
    """Return the weight of a linear as [out, in], also if the module stores it transposed."""
    assert isinstance(linear, LINEARS)
    weight = linear.weight.detach()
    return weight.T if isinstance(linear, Conv1D) else weight


@dataclass(frozen=True)
class Layout:
    """The linears of a model that can be folded, and the others.

    Attributes:
        groups: the linears that can be folded, grouped by their input tensor, in the order of the calls.
        unfit: {linear: reason why it cannot be folded}.
        unread: the linears of towers that process no text (vision, audio).
    """

    groups: list[list[str]]
    unfit: Mapping[str, str]
    unread: frozenset[str]


@torch.inference_mode()
def layout_of(model: nn.Module) -> Layout:
    """Return the layout of a model of any architecture, from the calls in a forward pass of two rows of three tokens.

    Gates are per row, so a linear can be folded if it is called once, with an input [rows, positions, in].
    """
    rows, positions = 2, 3
    calls: list[tuple[str, Any]] = []  # the inputs are kept, so that no two can have one identity
    run: set[str] = set()

    def watch(name: str) -> Callable[[nn.Module, tuple], None]:
        def hook(_: nn.Module, inputs: tuple) -> None:
            run.add(name)
            calls.append((name, inputs[0] if inputs else None))

        return hook

    def tower(name: str) -> Callable[[nn.Module, tuple], None]:
        return lambda *_: run.add(name)

    modules = dict(model.named_modules())
    linears = {name: module for name, module in modules.items() if type(module) in LINEARS}
    towers = {name: module for name, module in modules.items() if name and isinstance(module, PreTrainedModel)}
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in linears.items()]
    hooks += [module.register_forward_pre_hook(tower(name)) for name, module in towers.items()]
    device = next(model.parameters()).device
    try:
        model(input_ids=torch.zeros(rows, positions, dtype=torch.long, device=device), use_cache=False)
    finally:
        for handle in hooks:
            handle.remove()
    times = Counter(name for name, _ in calls)
    groups: list[list[str]] = []
    unfit = {}
    last = None
    for name, read in calls:
        if times[name] > 1:
            unfit[name] = "is called more than once"
        elif not isinstance(read, Tensor) or read.dim() != 3 or read.shape[:2] != (rows, positions):
            shape = list(read.shape) if isinstance(read, Tensor) else "something else"
            unfit[name] = f"reads {shape} of {rows} rows with {positions} positions"
        elif read is last:
            groups[-1].append(name)
        else:
            groups.append([name])
            last = read
            continue
        last = read if name not in unfit else None
    silent = [f"{name}." for name in towers if name not in run]
    unread = {name for name in linears if name not in run and name.startswith(tuple(silent))}
    unfit |= {name: "is not always used" for name in linears if name not in run and name not in unread}
    return Layout(groups, unfit, frozenset(unread))
