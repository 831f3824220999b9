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

    Without `reach`, the arguments are those of transformers, and torch's attention is used. transformers would copy the
    keys and values of a group of heads for each of them before that, which is a quarter of the time and the same bits.

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
        plain = not kwargs.get("dropout") and kwargs.get("position_bias") is None and kwargs.get("softcap") is None
        if attention_mask is not None and key.shape[1] < query.shape[1] and plain:
            found = nn.functional.scaled_dot_product_attention(
                query, key, value, attention_mask, scale=scaling, enable_gqa=True
            )
            return found.transpose(1, 2).contiguous(), None
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
    blocks = [(i, first * key_heads, end * key_heads) for i, (first, end) in enumerate(reach)]
    whole = all(bounds == (0, rows) for bounds in reach)
    # 16 bits would be too few to sum in; the mask has 32.
    if whole:
        parts = [torch.bmm(asked, block_of(key, block).mT) for block in blocks]
        scores = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        scores = (scores.view(rows, heads, -1) + mask[:, 0]).view(rows * key_heads, group, -1)
    else:
        # Where a row has no position, the mask is all that its score is.
        scores = mask.expand(-1, key_heads, group, -1).reshape(rows * key_heads, group, -1)
        for block, first, end in blocks:
            part = scores[first:end, :, block * width : (block + 1) * width]
            part += torch.bmm(asked[first:end], block_of(key, (block, first, end)).mT)
    shares = scores.softmax(-1).to(value.dtype).split(width, -1)
    found = torch.bmm(shares[0], block_of(value, blocks[0])).to(scores.dtype)  # every row has a first position
    for block, first, end in blocks[1:]:
        part = found if whole else found[first:end]
        part += torch.bmm(shares[block] if whole else shares[block][first:end], block_of(value, (block, first, end)))
    return found.to(query.dtype).view(rows, 1, heads, -1)


def block_of(part: Tensor, block: tuple[int, int, int]) -> Tensor:
    """Return a view [count, width, size] of keys or values [blocks, slots, heads, width, size].

    Args:
        part: the keys or values of a layer.
        block: its number, and the half-open range of (slot, head) pairs, counted as one.
    """
    number, first, end = block
    stride, _, of_head, width, size = (*part.stride()[:3], *part.shape[3:])
    return part.as_strided((end - first, width, size), (of_head, size, 1), number * stride + first * of_head)


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
