"""Why a response ended."""

from __future__ import annotations

from enum import Enum


class FinishReason(str, Enum):
    """Why a response ended. The values are those of JSON and of the database."""

    END = "end"  # a stop token
    STOP_STRING = "stop_string"  # a stop string of the sampling settings
    LENGTH = "length"  # the most new tokens
    TIME = "time"  # the time limit
    STOPPED = "stopped"  # cancelled, or the engine was closed
    ERROR = "error"  # `Sequence.error` has it; such a response has no completion

    def __str__(self) -> str:
        return self.value
