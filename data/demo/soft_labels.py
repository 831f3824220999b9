"""Learning from soft preferences between the responses of one group: reward models, and policies relative to them.

A group of m responses has m (m - 1) / 2 pairs, and each pair a probability that the first one is preferred. All pairs
of a group are learned from one forward pass of its responses. Nothing here runs under autocast, which would keep
16-bit copies of the LoRA weights for as long as it lasts and so hide every update.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

TokenIds = list[int]


def soft_preference_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy between σ(target_i - target_j) and σ(score_i - score_j) over all pairs i < j.

    Args:
        scores: What is learned, [..., m] for m responses of one group.
        targets: What their differences should be, [..., m].
    """
    i, j = torch.triu_indices(scores.shape[-1], scores.shape[-1], offset=1)
    wanted = torch.sigmoid(targets[..., i] - targets[..., j])
    return functional.binary_cross_entropy_with_logits(scores[..., i] - scores[..., j], wanted)


def padded(rows: Sequence[TokenIds], pad: int) -> tuple[Tensor, Tensor]:
    """Return token ids [rows, longest], padded on the right, and their attention mask."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def by_length(rows: Sequence[TokenIds], forward: Callable[[list[int]], Tensor], most: int = 12) -> Tensor:
    """Return forward's values of all rows, [rows], computed for `most` of like length at a time: little is padding."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    values = torch.cat([forward(order[start : start + most]) for start in range(0, len(order), most)])
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return values[back]


def log_probs(model: nn.Module, prompts: Sequence[TokenIds], responses: Sequence[TokenIds], pad: int) -> Tensor:
    """Return log π(response | prompt) of each row, [rows], in float32."""
    rows = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]

    def forward(chosen: list[int]) -> Tensor:
        ids, mask = padded([rows[i] for i in chosen], pad)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        found = -functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        places = torch.arange(1, ids.shape[1])
        first = torch.tensor([len(prompts[i]) for i in chosen])[:, None]
        last = torch.tensor([len(rows[i]) for i in chosen])[:, None]
        return (found * ((places >= first) & (places < last))).sum(-1)

    return by_length(rows, forward)


def scores(model: nn.Module, rows: Sequence[TokenIds], pad: int) -> Tensor:
    """Return the outputs of a sequence classifier for each row, [rows, outputs]."""

    def forward(chosen: list[int]) -> Tensor:
        ids, mask = padded([rows[i] for i in chosen], pad)
        return model(input_ids=ids, attention_mask=mask).logits.float()

    return by_length(rows, forward)


def epochs(count: int, batch: int, rng: random.Random) -> Iterator[list[int]]:
    """Yield batches of the numbers below `count`, in a new order each time round, without end."""
    while True:
        order = rng.sample(range(count), count)
        yield from (order[start : start + batch] for start in range(0, count - batch + 1, batch))


def within(values: Tensor) -> Tensor:
    """Return values [prompts, m] less their mean for each prompt: what a policy does not know is log Z(x)."""
    return (values - values.mean(-1, keepdim=True)).flatten()


def slope(log_ratios: Tensor, rewards: Tensor) -> tuple[float, float]:
    """Regress log π/π_ref on the reward within prompts, both [prompts, m].

    Returns:
        The slope, 1/β for π ∝ π_ref exp(r/β), and the correlation, which is 1 for it.
    """
    x, y = within(rewards), within(log_ratios)
    both = (x * y).mean()
    return (both / x.square().mean()).item(), (both / (x.square().mean() * y.square().mean()).sqrt()).item()
