"""Partial execution of a decoder, with several responses to one prompt in a row.

The adapters of the real configuration act on the upper half of the layers alone, so that no gradient passes through the
lower half. A row holds a prompt and all its responses in sequence; a response attends to the prompt and itself, so that
the prompt is processed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

SPLIT = 12  # layers below it are the base's own in every policy


@dataclass(frozen=True)
class Group:
    """A prompt and its responses as token ids; a complete response ends with the end-of-turn token.

    `weights` are the responses' weights in a loss; None means 1 for each.
    """

    prefix: list[int]
    responses: list[list[int]]
    weights: list[float] | None = None

    @property
    def ids(self) -> list[int]:
        """Token ids of the prompt and all responses."""
        return [*self.prefix, *(token for response in self.responses for token in response)]

    def __len__(self) -> int:
        return len(self.prefix) + sum(map(len, self.responses))


def prefix_of(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Return the token ids of a prompt, followed by the generation prompt."""
    messages = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def response_of(tokenizer: PreTrainedTokenizerBase, text: str, ended: bool = True) -> list[int]:
    """Return the token ids of a response, with the end-of-turn token if `ended`."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return [*ids, tokenizer.eos_token_id] if ended else ids


@dataclass(frozen=True)
class Packed:
    """Rows of groups, right-padded.

    Attributes:
        ids: [rows, longest].
        positions: [rows, longest].
        mask: [rows, 1, longest, longest]; 0 where a token may attend, -inf elsewhere.
        before: [tokens], flat index of the position that predicts each response token.
        target: [tokens], the response tokens.
        owner: [tokens], index of each token's response, counted over all rows.
        weights: [responses].
        responses: Number of responses.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    before: Tensor
    target: Tensor
    owner: Tensor
    weights: Tensor
    responses: int


def pack(groups: Sequence[Group]) -> Packed:
    """Pack groups into one row each."""
    longest = max(map(len, groups))
    ids = torch.zeros(len(groups), longest, dtype=torch.long)
    positions = torch.zeros(len(groups), longest, dtype=torch.long)
    seen = torch.eye(longest, dtype=torch.bool).repeat(len(groups), 1, 1)
    before, target, owner = [], [], []
    count = 0
    for row, group in enumerate(groups):
        start = len(group.prefix)
        ids[row, : len(group)] = torch.tensor(group.ids)
        positions[row, :start] = torch.arange(start)
        seen[row, :start, :start] = torch.ones(start, start, dtype=torch.bool).tril()
        for response in group.responses:
            end = start + len(response)
            positions[row, start:end] = len(group.prefix) + torch.arange(len(response))
            seen[row, start:end, : len(group.prefix)] = True
            seen[row, start:end, start:end] = torch.ones(len(response), len(response), dtype=torch.bool).tril()
            before += [row * longest + place for place in (len(group.prefix) - 1, *range(start, end - 1))]
            target += response
            owner += [count] * len(response)
            count, start = count + 1, end
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None]
    weights = [w for group in groups for w in group.weights or [1.0] * len(group.responses)]
    return Packed(
        ids,
        positions,
        mask,
        torch.tensor(before),
        torch.tensor(target),
        torch.tensor(owner),
        torch.tensor(weights),
        count,
    )


def run(model: Any, hidden: Tensor, packed: Packed, first: int, last: int) -> Tensor:
    """Run the layers from `first` up to `last`, exclusive.

    Args:
        model: The decoder (`model.model` of a causal language model).
        hidden: [rows, longest, hidden size], the output of the layers below `first`.
        packed: The rows.
        first: The first layer.
        last: The layer after the last one.
    """
    rotary = model.rotary_emb(hidden, packed.positions)
    for layer in model.layers[first:last]:
        hidden = layer(hidden, attention_mask=packed.mask, position_embeddings=rotary, position_ids=packed.positions)
    return hidden


@torch.no_grad()
def lower(model: Any, packed: Packed) -> Tensor:
    """Return the output of the layers below `SPLIT`, [rows, longest, hidden size]."""
    return run(model, model.embed_tokens(packed.ids), packed, 0, SPLIT)


def token_log_probs(model: Any, head: Any, hidden: Tensor, packed: Packed) -> Tensor:
    """Return the log-probability of every response token, [tokens], given the lower layers' output."""
    hidden = run(model, hidden, packed, SPLIT, len(model.layers))
    places = hidden.flatten(0, 1)[packed.before]
    logits = head(model.norm(places))
    return -functional.cross_entropy(logits.float(), packed.target, reduction="none")


def summed(values: Tensor, packed: Packed) -> Tensor:
    """Return the sum of the tokens' values for each response, [responses]."""
    return torch.zeros(packed.responses, dtype=values.dtype).index_add(0, packed.owner, values)


def batches(groups: Sequence[Group], tokens: int) -> list[list[int]]:
    """Group indices of groups of similar length into batches of at most `tokens` padded tokens.

    A group that is longer than `tokens` is a batch of its own.
    """
    order = sorted(range(len(groups)), key=lambda i: len(groups[i]))
    found: list[list[int]] = []
    for i in order:
        if found and len(groups[i]) * (len(found[-1]) + 1) <= tokens:
            found[-1].append(i)
        else:
            found.append([i])
    return found
