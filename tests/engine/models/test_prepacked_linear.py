"""Packed weights do what plain ones do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine import Engine
from engine.models.prepacked_linear import PackedLinear, can_pack, pack


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 48), (5, 48), (3, 7, 48), (300, 48)])
def test_the_same_as_plain(dtype: torch.dtype, bias: bool, shape: tuple[int, ...]) -> None:
    if not can_pack(dtype):
        pytest.skip("this CPU or this torch cannot")
    linear = nn.Linear(48, 80, bias=bias, dtype=dtype)
    wide = nn.Linear(48, 80, bias=bias).double()
    wide.load_state_dict(linear.double().state_dict())
    linear.to(dtype)
    x = torch.randn(shape, dtype=dtype)
    with torch.inference_mode():
        found = PackedLinear(linear)(x)
        assert found.dtype == dtype
        assert (found - wide(x.double())).abs().max() < (1e-5 if dtype == torch.float32 else 0.02)


def test_a_slice_of_something_wider_is_read_as_it_lies() -> None:
    linear = nn.Linear(16, 8)
    x = torch.randn(4, 1, 40)[..., 9:25]
    with torch.inference_mode():
        assert torch.allclose(PackedLinear(linear)(x), linear(x), atol=1e-6)


def test_only_plain_linears_of_a_known_type_are_packed() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)), Own(4, 4), nn.Linear(4, 4).double())
    pack(model)
    assert [type(model[0]), type(model[1][0]), type(model[2]), type(model[3])] == [
        PackedLinear,
        PackedLinear,
        Own,
        nn.Linear,
    ]


def test_an_engine_on_a_cpu_is_packed(tiny_engine: Engine) -> None:
    for model in tiny_engine.policy_set.models:
        kinds = {type(module) for module in model.modules()}
        assert PackedLinear in kinds
        assert nn.Linear not in kinds
