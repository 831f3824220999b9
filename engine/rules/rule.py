"""A rule: how the policies' next-token distributions are combined into one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """A rule, as a module of this package defines it under the name RULE.

    Attributes:
        name: in configurations, on the command line, in links and in the database.
        paper: the source, with an arXiv number or a citation.
        formula: the mixture of policies π_k with weights λ_k, in plain text.
        combine: `(log_probs [K, ..., V], weights [..., K], exponent) -> [..., V]`, normalised log-probabilities. None
            if the policies' adapters are averaged instead: the mixture is then a policy of its own.
        takes_exponent: whether the exponent changes the mixture.
        is_product: whether the mixture is the normalised product Π π_k^{λ_k}, of which banks and SMC are exact.
        order: the position in lists.
    """

    name: str
    paper: str
    formula: str
    combine: Callable[[Tensor, Tensor, float], Tensor] | None
    takes_exponent: bool = False
    is_product: bool = False
    order: int = 100

    @property
    def averages_adapters(self) -> bool:
        """Whether the adapters are averaged, rather than the distributions combined."""
        return self.combine is None
