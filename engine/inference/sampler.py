"""Draw tokens from a next-token distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    RepetitionPenaltyLogitsProcessor,
)

from engine.errors import InputError
from engine.sampling import Sampling


class Sampler:
    """One sequence's randomness: the same seed gives the same draws, whatever else is generated beside it."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InputError(f"seed: found {seed}; give a whole number from 0 to 2^63 - 1")
        self.sampling = sampling
        # On the CPU whatever the device, so that a seed means the same everywhere.
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self) -> Tensor:
        """A number from 0 up to 1, in double precision."""
        return torch.rand((), dtype=torch.float64, generator=self.generator)


def warp(log_probs: Tensor, sampling: Sampling, said: Sequence[list[int]]) -> Tensor:
    """[sequences, V] -> [sequences, V], the scores that tokens are drawn by. said: the tokens of each response."""
    if log_probs.isnan().any():
        raise ValueError("the mixture's log-probs are not numbers")
    scores = log_probs
    if sampling.repetition_penalty != 1:
        penalty = RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty))
        rows = [torch.tensor([tokens], dtype=torch.long, device=scores.device) for tokens in said]
        scores = torch.cat([penalty(row, scores[i : i + 1]) for i, row in enumerate(rows)])
    if sampling.temperature == 0:
        return scores
    # The warpers look at scores only.
    return sampling.warpers()(torch.empty(len(scores), 0, dtype=torch.long), scores)


def draw(scores: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """One token for each of [sequences, V], whose samplers have one and the same Sampling.

    A draw inverts the cumulative distribution at the sequence's next uniform number, so that it is the same alone as
    among others, but for rounding where a number falls between two tokens.
    """
    if samplers[0].sampling.temperature == 0:
        return scores.argmax(-1).tolist()
    cumulative = scores.softmax(-1).double().cumsum(-1)
    uniform = torch.stack([sampler.uniform() for sampler in samplers]).to(cumulative.device)
    # The first token whose cumulative probability is above the number, and so one of probability above zero.
    tokens = torch.searchsorted(cumulative, (uniform * cumulative[:, -1]).unsqueeze(-1), right=True)
    return tokens.squeeze(-1).clamp(max=scores.shape[-1] - 1).tolist()
