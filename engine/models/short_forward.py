"""The forward pass of a decoding step of Llama-like models, with less around the products than in transformers' own.

A step computes one position for a few rows. On a CPU half of its time is then not spent on the products, but on
starting small operations: normalisation, rotary embedding, views. Here queries and keys are turned at once, and Python
has fewer calls to make. The modules that multiply with weights are the model's own, so that adapters act as in its own
forward pass. The self-test (engine/inference/self_test.py) compares the two before this one is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from engine.models.block_attention import ATTENTION, attend_to_blocks
from engine.models.gated_linear import GatedLinear, GatedLinears

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")  # their layers differ only in biases and norms of queries and keys


class ShortForward:
    """A decoding step of one model, with its keys and values in blocks (engine/inference/kv_cache.py)."""

    def __init__(self, model: Any) -> None:
        """Prepare the steps of a model that `can_shorten` accepts."""
        self.model = model.model
        self.head = model.lm_head
        self.layers = [ShortLayer(layer) for layer in self.model.layers[: model.config.num_hidden_layers]]
        self.kinds = getattr(model.config, "layer_types", None) or ["full_attention"] * len(self.layers)

    def __call__(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor | Mapping[str, Tensor],
        cache: Sequence[Any],
        reach: list[tuple[int, int]],
    ) -> Tensor:
        """Write one position per row to the cache, and return the logits of the next one, [rows, 1, V].

        Args:
            ids: [rows, 1], the tokens.
            positions: [rows, 1].
            mask: [rows, 1, 1, seen], added to the scores, or {layer type: mask}.
            cache: the layers of keys and values.
            reach: the half-open range of rows with a position in each block.
        """
        hidden = self.model.embed_tokens(ids)
        cos, sin = self.model.rotary_emb(hidden, positions)
        half = sin.shape[-1] // 2
        turn = cos.unsqueeze(2), torch.cat([-sin[..., :half], sin[..., half:]], -1).unsqueeze(2)  # [rows, 1, 1, size]
        for layer, one, kind in zip(self.layers, cache, self.kinds, strict=True):
            own = mask if isinstance(mask, Tensor) else mask[kind]
            hidden = layer(hidden, turn, own, one, reach)
        return self.head(normalise(hidden, self.model.norm))


class ShortLayer:
    """A decoding step of one layer."""

    def __init__(self, layer: Any) -> None:
        self.norms = layer.input_layernorm, layer.post_attention_layernorm
        self.attention, self.mlp = layer.self_attn, layer.mlp
        self.size = self.attention.head_dim
        self.projections = self.attention.q_proj, self.attention.k_proj, self.attention.v_proj
        self.group = gated_group(self.projections)
        self.gate_and_up = gated_group((self.mlp.gate_proj, self.mlp.up_proj))
        self.head_norms = [getattr(self.attention, name, None) for name in ("q_norm", "k_norm")]

    def __call__(
        self, hidden: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor, cache: Any, reach: list[tuple[int, int]]
    ) -> Tensor:
        """Return the layer's output, [rows, 1, size], for the one of the layer before; see `ShortForward`."""
        rows = len(hidden)
        queries, keys, values = self._heads(normalise(hidden, self.norms[0]), turn)
        key, value = cache.update(keys.transpose(1, 2), values.transpose(1, 2))
        with record_function(ATTENTION):
            found = attend_to_blocks(queries.transpose(1, 2), key, value, mask, self.attention.scaling, reach)
        hidden = hidden + self.attention.o_proj(found.view(rows, 1, -1))
        x = normalise(hidden, self.norms[1])
        gate, up = self.gate_and_up(x) if self.gate_and_up else (self.mlp.gate_proj(x), self.mlp.up_proj(x))
        return hidden + self.mlp.down_proj(self.mlp.act_fn(gate) * up)

    def _heads(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each [rows, 1, heads, size], the former two with their positions."""
        if self.group and not any(self.head_norms):
            # Queries and keys lie side by side, and are turned at once.
            both = self.group.joint(x)
            outs = self.group.sizes
            turned = rotate(both[..., : outs[0] + outs[1]].unflatten(-1, (-1, self.size)), turn)
            queries, keys = turned.split([outs[0] // self.size, outs[1] // self.size], 2)
            return queries, keys, both[..., outs[0] + outs[1] :].unflatten(-1, (-1, self.size))
        found = self.group(x) if self.group else [projection(x) for projection in self.projections]
        queries, keys, values = (part.unflatten(-1, (-1, self.size)) for part in found)
        if any(self.head_norms):
            queries, keys = normalise(queries, self.head_norms[0]), normalise(keys, self.head_norms[1])
        return rotate(queries, turn), rotate(keys, turn), values


def rotate(heads: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Return queries or keys [rows, 1, heads, size] with rotary positions (arXiv 2104.09864).

    Args:
        heads: [rows, 1, heads, size].
        turn: the cosines, and the sines with the first half negated, both [rows, 1, 1, size].
    """
    cos, sin = turn
    swapped = heads.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    return (heads * cos).addcmul_(swapped, sin)


def normalise(x: Tensor, norm: Any) -> Tensor:
    """Return x with the root mean square of its last dimension normalised by a norm of a model."""
    wide = x.float()
    scale = wide.square().mean(-1, keepdim=True).add_(norm.variance_epsilon).rsqrt_()
    return (wide * scale).to(x.dtype) * norm.weight


def gated_group(linears: Sequence[nn.Module]) -> GatedLinears | None:
    """Return the group of which these are all linears, in this order; None if there is none."""
    gated = [linear for linear in linears if isinstance(linear, GatedLinear)]
    if len(gated) < len(linears) or len(gated[0].group.sizes) != len(linears):
        return None
    whole = all(one.group is gated[0].group and one.index == index for index, one in enumerate(gated))
    return gated[0].group if whole else None


def can_shorten(model: Any) -> bool:
    """Return whether a model's steps may be computed by ShortForward: the self-test has the last word."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in FAMILIES or type(model).__module__ != f"transformers.models.{kind}.modeling_{kind}":
        return False
    if not type(model).__name__.endswith("ForCausalLM") or model.device.type != "cpu":
        return False
    # A hook sees modules that are not called here.
    return not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
