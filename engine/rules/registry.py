"""All rules by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from engine.rules.geometric import geometric
from engine.rules.power import power

Rule = Callable[..., Tensor]
# soup: the policy of the averaged adapters (Rewarded Soups, arXiv 2306.04488); nothing is left to combine.
SOUP = "soup"
RULES: dict[str, Rule | None] = {"geometric": geometric, "power": power, SOUP: None}
