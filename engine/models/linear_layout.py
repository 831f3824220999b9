"""The linears of a model: their weights, whichever way round, and which of them a row's gate can reach."""

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
    """[out, in], whichever way round the module keeps it."""
    assert isinstance(linear, LINEARS)
    weight = linear.weight.detach()
    return weight.T if isinstance(linear, Conv1D) else weight


@dataclass(frozen=True)
class Layout:
    """Which linears of a model can be folded. groups: those that read one and the same tensor, in the order in which
    they read it; unfit: {linear: why not}; unread: linears of towers that no text passes through (vision, audio)."""

    groups: list[list[str]]
    unfit: Mapping[str, str]
    unread: frozenset[str]


@torch.inference_mode()
def layout_of(model: nn.Module) -> Layout:
    """Watch the model read two rows of three tokens, and so for any architecture.

    A gate is a row's: a linear can be folded that is called once, with [rows, positions, in].
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
