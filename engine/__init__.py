"""Mixdesk's engine: policies, their mixtures, rewards, banks and solvers."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Read when torch is imported: how long its threads spin before they sleep. If they slept at once, a step on 2 cores
# would take 1.6 times as long; if they spun as long as is usual, two processes side by side would take ten times as
# long.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")
# How many compiled products oneDNN keeps: one for each number of rows and each shape, about 0.2 MB each.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")

if TYPE_CHECKING:
    from engine.errors import InputError
    from engine.inference.completion import Completion, Token
    from engine.inference.engine import Engine
    from engine.inference.request import Request, Stream
    from engine.models.hf_model import MixedPolicy
    from engine.rules.mixture import Mixture
    from engine.rules.registry import RULES
    from engine.sampling import Sampling

# Imported on first use: torch and transformers take seconds, and a mistake on a command line should not wait for them.
_HOMES = {
    "Completion": "engine.inference.completion",
    "Engine": "engine.inference.engine",
    "InputError": "engine.errors",
    "MixedPolicy": "engine.models.hf_model",
    "Mixture": "engine.rules.mixture",
    "RULES": "engine.rules.registry",
    "Request": "engine.inference.request",
    "Sampling": "engine.sampling",
    "Stream": "engine.inference.request",
    "Token": "engine.inference.completion",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


__all__ = [
    "RULES",
    "Completion",
    "Engine",
    "InputError",
    "MixedPolicy",
    "Mixture",
    "Request",
    "Sampling",
    "Stream",
    "Token",
]
