"""Sampling settings: length, repetition penalty, temperature, top-k, top-p, min-p, particles."""

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
    """Settings for drawing tokens. Raises InputError if a value is out of range.

    Attributes:
        max_new_tokens: the largest number of tokens to draw.
        temperature: from 0 to 10; 0 takes the likeliest token.
        top_k: keep only the k likeliest tokens; 0 is off.
        top_p: keep only the likeliest tokens whose probabilities sum to p; 1 is off.
        min_p: keep only tokens at least p times as likely as the likeliest; 0 is off.
        repetition_penalty: above 1 makes tokens of the response so far less likely; 1 is off.
        particles: above 1, sample from the exact mixture of whole responses with this many particles
            (engine/inference/smc.py); 1 decodes token by token.
    """

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
        """Return the fields by name."""
        return asdict(self)

    def warpers(self) -> LogitsProcessorList:
        """Return transformers' warpers for these settings, in the order in which transformers applies them."""
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
