"""Sampling settings as columns of a table: numbers as they are, stop strings and biases as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from engine import Sampling

LISTS = ("stop", "logit_bias")


def sampling_columns(sampling: Sampling) -> dict[str, Any]:
    """Return {column: value}; stop strings and biases only if there are any."""
    settings = sampling.as_dict()
    return {**settings, **{name: json.dumps(settings[name]) for name in LISTS if name in settings}}


def stored_sampling(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a row, as `Sampling.as_dict` has them after a round trip through JSON."""
    # A database that no newer app has opened lacks the newer columns.
    found = {field.name: row.get(field.name, field.default) for field in fields(Sampling) if field.name not in LISTS}
    lists = {name: json.loads(row.get(name) or "[]") for name in LISTS}
    return {**found, **{name: value for name, value in lists.items() if value}}
