"""Attention over blocks is torch's over the same keys and values as they lie in a row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from engine import Engine
from engine.inference.kv_cache import BLOCK
from engine.models.block_attention import BLOCKED, attend, takes_blocks
from tests.conftest import Tiny


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (1, 1)])
@pytest.mark.parametrize("lengths", [[1], [200, 3, 64, 65, 129], [5, 130, 180, 20]])
def test_the_same_as_torchs(
    lengths: list[int], heads: int, key_heads: int, window: int | None, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    rows, slots, blocks = len(lengths), len(lengths) + 3, -(-max(lengths) // BLOCK)
    # What was written before and is not seen any more is of any size.
    keys, values = (100 * torch.randn(blocks + 1, slots, key_heads, BLOCK, 16, dtype=dtype) for _ in range(2))
    mask = torch.full((rows, blocks * BLOCK), torch.finfo(dtype).min, dtype=dtype)
    for row, length in enumerate(lengths):
        for part in (keys, values):
            part[:, row] = torch.randn(blocks + 1, key_heads, BLOCK, 16)
        mask[row, max(0, length - window) if window else 0 : length] = 0
    mask = mask[:, None, None]
    reach = []
    for block in range(blocks):
        there = [row for row, length in enumerate(lengths) if length > block * BLOCK]
        reach.append((there[0], there[-1] + 1))
    query = torch.randn(rows, heads, 1, 16, dtype=dtype)

    found, _ = attend(torch.nn.Module(), query, keys, values, mask, scaling=0.3, reach=reach)

    for row, length in enumerate(lengths):
        seen = slice(max(0, length - window) if window else 0, length)
        own = [part[:blocks, row].transpose(0, 1).flatten(1, 2)[None, :, seen].double() for part in (keys, values)]
        expected = scaled_dot_product_attention(query[row : row + 1].double(), *own, scale=0.3, enable_gqa=True)
        assert torch.allclose(found[row, 0].double(), expected[0, :, 0], atol=1e-5 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("masked", [torch.bool, torch.float32, None])
@pytest.mark.parametrize("given", [{}, {"scaling": 0.3}, {"position_bias": torch.ones(2, 6, 5, 9)}])
def test_a_piece_of_a_prompt_has_the_bits_of_transformers(given: dict[str, Any], masked: torch.dtype | None) -> None:
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 3, True  # type: ignore[assignment]
    query, key, value = torch.randn(2, 6, 5, 16), *torch.randn(2, 2, 2, 9, 16).unbind()
    mask = None
    if masked:
        seen = torch.ones(5, 9, dtype=torch.bool).tril(4)[None, None]
        mask = seen if masked is torch.bool else torch.zeros(1, 1, 5, 9).masked_fill_(~seen, -1e9)
    found, _ = attend(module, query, key, value, mask, **given)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, **given)
    assert torch.equal(found, expected)


def test_a_model_that_hands_nothing_on_to_its_attention_keeps_torchs(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.models.policy_set.can_shorten", lambda model: False)
    forward = LlamaDecoderLayer.forward
    monkeypatch.setattr(
        LlamaDecoderLayer, "forward", lambda self, *args, reach=None, **kwargs: forward(self, *args, **kwargs)
    )
    with Engine.from_config(tiny.config) as engine:
        assert not any(takes_blocks(model) for model in engine.policy_set.models)
        assert engine.generate("mix", {"plain": 1}, max_new_tokens=4).tokens


def test_the_models_of_a_cpu_take_blocks(tiny_engine: Engine) -> None:
    assert {model.config._attn_implementation for model in tiny_engine.policy_set.models} == {BLOCKED}
