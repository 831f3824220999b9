"""LoRA adapters folded into the base's linears, selected per row by a gate vector.

K adapters on one base do not need K forward passes. With the down-projections A_1..A_K stacked under the base weight
W, `[y, a] = x [W ; A]ᵀ` is one matrix product, and `y += (gate ⊙ a) B` a second, small one. Linears that read the same
input, such as q, k and v, share the first. A row's gate is one-hot for one adapter, zeros for the reference, a weight
vector for the weight-space average of the adapters (Rewarded Soups, arXiv 2306.04488).
LoRA: arXiv 2106.09685; rsLoRA: arXiv 2312.03732.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engine.models.adapter_files import Pair
from engine.models.linear_layout import weight_of

ADAPTERS = "adapters"  # the name of a separate linear of down-projections in GatedLinears


class Gate:
    """The gates of the rows of the next forward pass, shared by all folded linears of a model.

    Linears read them at a fixed address for each number of rows, so that a captured CUDA graph reads new gates.
    """

    def __init__(self, adapters: int) -> None:
        self.adapters = adapters
        self._values = torch.zeros(0, adapters)
        self._columns: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def set(self, values: Tensor) -> None:
        """Set the gates, [rows, adapters]."""
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
        """Return the gates [rows, 1, ranks] of the adapters that own each stacked rank."""
        key = (len(self._values), owners)
        if key not in self._columns:
            with torch.inference_mode(False):
                self._columns[key] = self._pick(owners)
        return self._columns[key]

    def _pick(self, owners: tuple[int, ...]) -> Tensor:
        return self._values[:, list(owners)].unsqueeze(1)


class UpProjection(nn.Module):
    """The stacked up-projections of one linear, from ranks to out.

    In float32 on a CPU, BLAS adds their product in place, in a fifth of the time of a packed linear, which takes 50 µs
    before it computes anything. Its sums do not depend on the number of rows, a single one excepted. In 16 bits they
    would, and take as long as a packed linear.
    """

    def __init__(self, up: Tensor) -> None:
        """Take the up-projections, [out, ranks]."""
        super().__init__()
        self.linear: nn.Module | None = None
        if up.dtype == torch.float32 and up.device.type == "cpu":
            self.weight = nn.Parameter(up.T.contiguous(), requires_grad=False)  # [ranks, out]
        else:
            self.linear = linear_of(up, None)

    def add_to(self, y: Tensor, down: Tensor) -> None:
        """Add the product of `down`, [rows, ranks], to `y`, [rows, out], in place."""
        if self.linear is not None:
            y += self.linear(down)
        elif len(y) > 1:
            y.addmm_(down, self.weight)
        else:
            # Of one row BLAS sums in another order than of several.
            y.copy_(torch.addmm(y.expand(2, -1), down.expand(2, -1), self.weight)[:1])


class GatedLinears(nn.Module):
    """Linears with the same input (q, k and v; gate and up), with adapters folded in.

    One product computes the weights and down-projections of all of them, and a small one the up-projections of each.
    With gates of zero, the outputs are those of the base's linears.
    """

    def __init__(self, linears: list[nn.Module], gate: Gate, adapters: list[dict[int, Pair]]) -> None:
        """Stack the weights.

        Args:
            linears: the linears, in the order in which the model calls them.
            gate: the model's gate.
            adapters: for each linear, {column of the gate: pair}.
        """
        super().__init__()
        weights = [weight_of(linear) for linear in linears]
        every = [pair for pairs in adapters for pair in pairs.values()]
        downs = [pair.down.to(weights[0]) for pair in every]
        ups = [
            torch.cat([weight.new_zeros(len(weight), 0), *(pair.up.to(weight) for pair in pairs.values())], 1)
            for pairs, weight in zip(adapters, weights, strict=True)
        ]
        self.gate = gate
        self.sizes = [len(weight) for weight in weights]
        self.ranks = [up.shape[1] for up in ups]
        self.owners = tuple(k for pairs in adapters for k, pair in pairs.items() for _ in range(len(pair.down)))
        self.ups: Any = nn.ModuleList(UpProjection(up) for up in ups)
        biases: list[Any] = [linear.bias for linear in linears]
        bias = None  # [outs + ranks]
        if any(bias is not None for bias in biases) or any(pair.shift is not None for pair in every):
            parts = [w.new_zeros(len(w)) if b is None else b.detach() for w, b in zip(weights, biases, strict=True)]
            for pair, down in zip(every, downs, strict=True):
                parts.append(down.new_zeros(len(down)) if pair.shift is None else pair.shift.to(down))
            bias = torch.cat(parts)
        self.stacked: nn.Module = linear_of(torch.cat([*weights, *downs]), bias)  # in to outs + ranks
        self.adapters: nn.Module | None = None  # in to ranks, once it is separate
        self._input: Tensor | None = None
        self._outputs: list[Tensor] = []

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the output of each linear, [rows, positions, out], for x [rows, positions, in]."""
        return list(self.joint(x).split(self.sizes, -1))

    def joint(self, x: Tensor) -> Tensor:
        """Return the outputs of all linears side by side, [rows, positions, outs], for x [rows, positions, in]."""
        outs = sum(self.sizes)
        both = self.stacked(x)
        downs = both[..., outs:] if self.adapters is None else self.adapters(x)
        outputs = both[..., :outs]
        downs = (downs * self.gate.columns(self.owners).to(both.device)).flatten(0, 1)
        each = outputs.flatten(0, 1).split(self.sizes, -1)
        for y, down, up in zip(each, downs.split(self.ranks, -1), self.ups, strict=True):
            if down.shape[-1]:
                up.add_to(y, down)
        return outputs

    def separate(self) -> None:
        """Compute the adapters' down-projections apart from the base's weights, which can then be rounded."""
        outs = sum(self.sizes)
        stacked = self.stacked
        assert isinstance(stacked, nn.Linear)
        weight, bias = stacked.weight, stacked.bias
        self.stacked = linear_of(weight[:outs].clone(), None if bias is None else bias[:outs].clone())
        self.adapters = linear_of(weight[outs:].clone(), None if bias is None else bias[outs:].clone())

    def output(self, i: int, x: Tensor) -> Tensor:
        """Return the output of linear i for x. All are computed at the first call, and dropped after the last one."""
        if self._input is not x:
            self._input, self._outputs = x, self.forward(x)
        y = self._outputs[i]
        if i == len(self.sizes) - 1:
            self._input, self._outputs = None, []
        return y


class GatedLinear(nn.Module):
    """A replacement for one linear of a group."""

    def __init__(self, group: GatedLinears, index: int) -> None:
        super().__init__()
        self.group = group
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """Return this linear's output, [rows, positions, out], for x [rows, positions, in]."""
        return self.group.output(self.index, x)


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear with these tensors, without gradients: weight [out, in], bias [out] or None."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear
