"""All rules by name."""

from __future__ import annotations

from engine.registry import Registry
from engine.rules.geometric import RULE as GEOMETRIC
from engine.rules.rule import Rule

RULES: Registry[Rule] = Registry("engine.rules", "RULE")
DEFAULT_RULE = GEOMETRIC.name
