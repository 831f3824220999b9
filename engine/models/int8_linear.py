"""Linears whose weights are 8-bit integers, on a CPU (`dtype: int8`).

A step reads every weight once, so its time falls with their bytes. Weights are w ≈ scale · q, with one scale for each
output and q from -127 to 127. Inputs keep 16 bits: a row x is rounded to t / c with integers t below 2¹⁵ in size, and
t = 256 · high + low is multiplied as two rows of 8 bits by oneDNN, which sums integers exactly. So the output is that
of the rounded weights to about four digits, and does not depend on what other rows there are.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from engine.errors import InputError

INT8 = "int8"  # in `dtype` of a configuration
LARGEST = 32639  # of the integers t, so that 128 * 257 more fits into 16 bits without a sign
TINY = 1e-30  # a row of zeros is divided by this


class Int8Linear(nn.Module):
    """A linear with a weight of 8-bit integers, for inference only. The original weight is not referenced."""

    def __init__(self, linear: nn.Linear) -> None:
        """Round the weight of a linear on a CPU."""
        super().__init__()
        weight = linear.weight.detach().float()
        self.out_features, self.in_features = weight.shape
        self.bias = None if linear.bias is None else linear.bias.detach().float()
        scale = weight.abs().amax(1).clamp_min_(TINY).div_(127)
        rounded = (weight / scale[:, None]).round_().to(torch.int8)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(self.out_features, dtype=torch.int32))
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, [16, self.in_features])  # opaque

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out] for x [..., in], in x's dtype."""
        if not x.numel():
            return x.new_empty(*x.shape[:-1], self.out_features)
        wide = x.reshape(-1, self.in_features).float()
        largest = torch.linalg.vector_norm(wide, torch.inf, -1, keepdim=True).clamp_min_(TINY)
        # In memory the low byte comes first.
        t = (wide * (LARGEST / largest)).add_(128 * 257 + 0.5).to(torch.int32).view(torch.uint8)
        halves = t.view(len(wide), -1, 4)[..., :2].permute(2, 0, 1).flatten(0, 1)  # [2 * rows, in]
        low, high = torch.ops.onednn.qlinear_pointwise(
            halves, 1.0, 128, self.weight, self.scale, self.zero, None, 1.0, 0, torch.float32, "none", [], ""
        ).chunk(2)
        y = torch.add(low, high, alpha=256).mul_(largest / LARGEST)
        if self.bias is not None:
            y += self.bias
        return y.to(x.dtype).unflatten(0, x.shape[:-1])


@functools.cache
def check_int8() -> None:
    """Raise InputError if torch or this CPU does not multiply 8-bit integers exactly."""
    linear = nn.Linear(64, 32, bias=False)
    nn.init.ones_(linear.weight)
    x = torch.ones(3, 64)
    try:
        with torch.inference_mode():
            found = Int8Linear(linear)(x)
    except (RuntimeError, AttributeError) as error:  # another torch
        raise InputError(f"dtype: int8 is not available in this torch ({error}); give auto") from None
    # A CPU without VNNI sums pairs of products in 16 bits, which the largest values overflow.
    if not torch.allclose(found, torch.full_like(found, 64.0), rtol=1e-4):
        raise InputError("dtype: int8 needs a CPU that multiplies 8-bit integers exactly, with VNNI; give auto")
