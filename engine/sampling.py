"""Drawing a token from the mixture: temperature, top-k, top-p, min-p, seeds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engine.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. temperature 0 takes the likeliest token; top_k 0, top_p 1 and min_p 0 mean off."""

    max_new_tokens: int = 80
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

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
    """One sequence's draws: the same seed gives the same draws, whatever else is generated beside it."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InputError(f"seed: found {seed}; give a whole number from 0 to 2^63 - 1")
        self.greedy = sampling.temperature == 0
        self.warpers = sampling.warpers()
        # On the CPU whatever the device, so that a seed means the same everywhere.
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, log_probs: Tensor) -> int:
        """log_probs [V] -> token id"""
        if self.greedy:
            return int(log_probs.argmax())
        # The warpers look at scores only; they take a batch.
        warped = self.warpers(torch.empty(1, 0, dtype=torch.long), log_probs.unsqueeze(0))
        return int(torch.multinomial(warped.softmax(-1).cpu(), 1, generator=self.generator))
