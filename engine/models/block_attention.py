"""Attention of one new token per row over blocks of keys and values (engine/inference/kv_cache.py), on a CPU.

torch's attention reads all rows up to the length of the longest, at half of the memory bandwidth, because it skips the
unwritten part between two heads. A block is contiguous, and is read only for the rows that have a position in it: half
the time for 16 responses of the bundled policies, 40 to 250 tokens long.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.profiler import record_function
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BLOCKED = "mixdesk_blocked"
ATTENTION = "mixdesk: attention"  # in a profile


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    reach: list[tuple[int, int]] | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Compute attention with the interface of transformers.

    Without `reach`, the arguments are those of transformers, and torch's attention is used.

    Args:
        module: the attention module.
        query: [rows, heads, tokens, size].
        key: in a step of the running batch, [blocks, slots, key heads, width, size].
        value: as `key`.
        attention_mask: in a step of the running batch, [rows, 1, 1, seen], float32, added to the scores.
        scaling: the factor of the scores; 1/√size if None.
        reach: the half-open range of rows with a position in each block, in a step of the running batch.
        kwargs: further arguments of transformers.

    Returns:
        [rows, tokens, heads, size], and None in place of the attention weights.
    """
    if reach is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    assert attention_mask is not None
    with record_function(ATTENTION):
        found = attend_to_blocks(query, key, value, attention_mask, scaling, reach)
    return found, None


def attend_to_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scaling: float | None,
    reach: list[tuple[int, int]],
) -> Tensor:
    """Compute the attention of a step of the running batch; see `attend`."""
    rows, heads, _, size = query.shape
    _, _, key_heads, width, _ = key.shape
    group = heads // key_heads
    asked = (query * (size**-0.5 if scaling is None else scaling)).reshape(rows * key_heads, group, size)
    # Where a row has no position the mask is all that its score is; 16 bits would be too few to sum in.
    scores = mask.expand(-1, key_heads, group, -1).clone(memory_format=torch.contiguous_format)
    scores = scores.view(rows * key_heads, group, -1)
    parts = [
        (slice(first * key_heads, end * key_heads), slice(block * width, (block + 1) * width), block, slice(first, end))
        for block, (first, end) in enumerate(reach)
    ]
    for of, columns, block, slots in parts:
        scores[of, :, columns] += torch.bmm(asked[of], key[block, slots].flatten(0, 1).mT)
    shares = scores.softmax(-1).to(value.dtype)
    found = scores.new_zeros(rows * key_heads, group, value.shape[-1])
    for of, columns, block, slots in parts:
        found[of] += torch.bmm(shares[of, :, columns], value[block, slots].flatten(0, 1))
    return found.to(query.dtype).view(rows, 1, heads, -1)


AttentionInterface.register(BLOCKED, attend)
AttentionMaskInterface.register(BLOCKED, sdpa_mask)


def takes_blocks(model: nn.Module) -> bool:
    """Return whether the model uses block attention."""
    return isinstance(model, PreTrainedModel) and model.config.get_text_config()._attn_implementation == BLOCKED


def use_blocks(model: nn.Module, wanted: bool = True) -> None:
    """Switch a model on a CPU from torch's attention to block attention, or back if `wanted` is false."""
    if isinstance(model, PreTrainedModel) and model.device.type == "cpu" and model._supports_attention_backend:
        now, then = ("sdpa", BLOCKED) if wanted else (BLOCKED, "sdpa")
        if model.config.get_text_config()._attn_implementation == now:
            model.set_attn_implementation(then)
