"""Linears with weights in oneDNN's blocked layout, for faster matrix products on a CPU.

A step multiplies a few rows with every weight once, and reordering a weight into that layout each time costs as much as
the product: 4 float32 rows take half the time with prepacked weights, and no size takes longer.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor, nn

log = logging.getLogger("mixdesk")

ROWS = 16  # what the layout is chosen for; from 1 to 1,024 rows it was the fastest or within a few per cent


class PackedLinear(nn.Module):
    """A linear with a packed weight, for inference only. The original weight is not referenced."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)  # opaque
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out] for x [..., in]."""
        # x: [..., in]
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


@functools.cache
def can_pack(dtype: torch.dtype) -> bool:
    """Return whether torch has the operators, and their result on this CPU equals that of a plain linear."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    linear = nn.Linear(32, 32, dtype=dtype)
    x = torch.ones(2, 32, dtype=dtype)
    try:
        with torch.inference_mode():
            return torch.allclose(PackedLinear(linear)(x), linear(x), rtol=0.02, atol=0.02)
    except (RuntimeError, AttributeError) as error:  # another torch, or a CPU without 16 bit
        log.info("weights are not packed: %s", error)
        return False


@torch.inference_mode()
def pack(model: nn.Module) -> None:
    """Pack all linears of a model that are on a CPU, in place. The model can then be used for inference only."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            # Not a subclass: what it adds would be lost. Nor one of rank 0.
            if (
                type(child) is nn.Linear
                and child.in_features
                and child.weight.device.type == "cpu"
                and can_pack(child.weight.dtype)
            ):
                setattr(module, name, PackedLinear(child))


def memory_of(model: nn.Module) -> int:
    """Return the bytes of a model's weights, packed ones included."""
    packed = (part.weight for part in model.modules() if isinstance(part, PackedLinear))
    return sum(part.numel() * part.element_size() for part in (*model.parameters(), *packed))
