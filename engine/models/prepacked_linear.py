"""Linears with weights in oneDNN's blocked layout, for faster matrix products on a CPU.

A step multiplies a few rows with every weight once, and reordering a weight into that layout each time costs as much as
the product: 4 float32 rows take half the time with prepacked weights, and no size takes longer.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor, nn

from engine.models.gated_linear import ADAPTERS, GatedLinears, UpProjection
from engine.models.int8_linear import Int8Linear

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
def pack(model: nn.Module, int8: bool = False) -> None:
    """Pack all linears of a model that are on a CPU, in place. The model can then be used for inference only.

    Args:
        model: The model.
        int8: Round their weights to 8-bit integers, those of folded adapters excepted.
    """
    for module in list(model.modules()):
        if int8 and isinstance(module, GatedLinears):
            module.separate()
        for name, child in module.named_children():
            # Not a subclass: what it adds would be lost. Nor one of rank 0.
            if type(child) is not nn.Linear or not child.in_features or child.weight.device.type != "cpu":
                continue
            if int8 and not isinstance(module, UpProjection) and name != ADAPTERS:
                setattr(module, name, Int8Linear(child))
            elif can_pack(child.weight.dtype):
                setattr(module, name, PackedLinear(child))


def memory_of(model: nn.Module) -> int:
    """Return the bytes of a model's weights, packed ones included."""
    packed = (part.weight for part in model.modules() if isinstance(part, (PackedLinear, Int8Linear)))
    return sum(part.numel() * part.element_size() for part in (*model.parameters(), *packed))
