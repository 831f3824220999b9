"""Cache the results of a model's tests at load, under a fingerprint of its weights."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import platformdirs
import torch
import transformers
from torch import nn

from engine.files import write_json

log = logging.getLogger("mixdesk")

LARGE = 100_000_000  # parameters; smaller models are hashed again faster than their weights are read
PARTS = 64  # of each weight, evenly spaced: enough to tell any two trained models apart


def weights_fingerprint(model: nn.Module) -> str | None:
    """Return a hash of a model's settings and of a sample of its weights.

    The result is None for a small model, or one with parameters that are not in memory.
    """
    parameters = list(model.named_parameters())
    small = sum(parameter.numel() for _, parameter in parameters) < LARGE
    if small or any(parameter.is_meta for _, parameter in parameters):
        return None
    found = hashlib.sha256(repr(model).encode() + str(getattr(model, "config", "")).encode())
    for name, parameter in parameters:
        flat = parameter.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // PARTS)].float().cpu()
        found.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode() + some.numpy().tobytes())
    return found.hexdigest()


def file_of(key: str) -> Path:
    """Return the path of the cached result for a key and the installed versions of torch and transformers."""
    versions = hashlib.sha256(f"{key} {torch.__version__} {transformers.__version__}".encode()).hexdigest()[:32]
    return platformdirs.user_cache_path("mixdesk") / "checks" / f"{versions}.json"


def recall(key: str | None) -> dict[str, Any] | None:
    """Return the cached result for a key; None if there is none."""
    if key is None:
        return None
    try:
        found = json.loads(file_of(key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def keep_result(key: str | None, found: dict[str, Any]) -> None:
    """Cache a result under a key; do nothing if the key is None."""
    if key is None:
        return
    try:
        write_json(file_of(key), found)
    except OSError as error:
        log.info("the check of a model is not kept: %s", error)
