"""Drawing tokens from mixtures: repetition penalty, temperature, top-k, top-p, min-p, seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engine.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. temperature 0 takes the likeliest token; top_k 0, top_p 1, min_p 0 and repetition_penalty 1
    mean off. The penalty is on tokens that the response has. particles: above 1 samples from the exact mixture of whole
    responses (engine/particles.py), 1 token by token."""

    max_new_tokens: int = 80
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    particles: int = 1

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens: found {self.max_new_tokens}; give 1 or more")
        if not math.isfinite(self.temperature) or not 0 <= self.temperature <= 10:
            raise InputError(f"temperature: found {self.temperature}; give a number from 0 (the likeliest token) to 10")
        if self.top_k < 0:
            raise InputError(f"top_k: found {self.top_k}; give 1 or more, or 0 for off")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p: found {self.top_p}; give a number above 0, 1 is off")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p: found {self.min_p}; give a number from 0 (off) to 1")
        if not 0 < self.repetition_penalty <= 10:
            raise InputError(
                f"repetition_penalty: found {self.repetition_penalty}; give a number above 0 up to 10, 1 is off"
            )

        if isinstance(self.particles, bool) or not isinstance(self.particles, int) or self.particles < 1:
            raise InputError(f"particles: found {self.particles}; give a whole number, 1 or more")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def warpers(self) -> LogitsProcessorList:
        """transformers' own warpers, in the order in which transformers applies them."""
        chosen = LogitsProcessorList()
        if self.temperature not in (0, 1):
            chosen.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.top_k:
            chosen.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            chosen.append(TopPLogitsWarper(self.top_p))
        if self.min_p:
            chosen.append(MinPLogitsWarper(self.min_p))
        return chosen


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
