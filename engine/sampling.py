"""Sampling settings: length, stop strings, repetition penalty, bias, temperature, truncation, particles."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from engine.messages import check_encoding

MOST_STOPS, LONGEST_STOP = 16, 500  # stop strings, and characters of one
MOST_BIASED = 1024  # tokens
BANNED = -100.0  # the bias of a token that is never drawn


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
        stop: strings that end the response as soon as its text has one of them; its text ends before it. At most 16,
            of 1 to 500 characters each.
        logit_bias: (token id, number from -100 to 100) pairs, or a mapping. The number is added to the token's log-prob
            before temperature and truncation; -100 bans the token. At most 1024.
    """

    max_new_tokens: int = 80
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    particles: int = 1
    stop: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()

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
        object.__setattr__(self, "stop", check_stop(self.stop))
        object.__setattr__(self, "logit_bias", check_bias(self.logit_bias))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, without stop strings and bias where there are none."""
        return {key: value for key, value in asdict(self).items() if value != ()}

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


def check_stop(stop: Any) -> tuple[str, ...]:
    """Return stop strings as a tuple; a string is one of them.

    Raises:
        InputError: there are too many, or one is empty, too long, or no text.
    """
    strings = (stop,) if isinstance(stop, str) else stop
    if not isinstance(strings, (list, tuple)):
        raise InputError(f"stop: found {type(stop).__name__}; give a list of strings")
    if len(strings) > MOST_STOPS:
        raise InputError(f"stop: found {len(strings)} strings; give {MOST_STOPS} or fewer")
    for one in strings:
        if not isinstance(one, str):
            raise InputError(f"stop: found {str(one)[:40]}, which is {type(one).__name__}; give strings")
        if not 1 <= len(one) <= LONGEST_STOP:
            raise InputError(f"stop: found a string of {len(one)} characters; give 1 to {LONGEST_STOP}")
        check_encoding(one, "stop")
    return tuple(strings)


def check_bias(bias: Any) -> tuple[tuple[int, float], ...]:
    """Return a bias as (token id, number) pairs. Raises InputError if it is malformed or out of range."""
    pairs = list(bias.items()) if isinstance(bias, Mapping) else bias
    if not isinstance(pairs, (list, tuple)):
        raise InputError(f"logit_bias: found {type(bias).__name__}; give {{token id: number}}")
    if len(pairs) > MOST_BIASED:
        raise InputError(f"logit_bias: found {len(pairs)} tokens; give {MOST_BIASED} or fewer")
    found: dict[int, float] = {}
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise InputError(f"logit_bias: found {str(pair)[:40]}; give pairs of a token id and a number")
        token, value = pair
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise InputError(f"logit_bias: found the token {str(token)[:40]!r}; give token ids, 0 or more")
        if token in found:
            raise InputError(f"logit_bias: the token {token} is there twice; give one number for it")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -100 <= value <= 100:
            raise InputError(
                f"logit_bias: found {str(value)[:40]} for the token {token}; give a number from -100 (never) to 100"
            )
        found[token] = float(value)
    return tuple(found.items())
