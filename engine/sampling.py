"""Drawing tokens from mixtures: repetition penalty, temperature, top-k, top-p, min-p, seeds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

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
    """How tokens are drawn. temperature 0 takes the likeliest token; top_k 0, top_p 1, min_p 0 and repetition_penalty 1
    mean off. The penalty is on tokens that the response has. particles: above 1 samples from the exact mixture of whole
    responses (engine/inference/smc.py), 1 token by token."""

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
