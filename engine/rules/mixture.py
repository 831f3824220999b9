"""Mixtures: a rule that combines the policies' distributions into one, its weights, and a gain.

A rule combines normalised log-probs, or averages the adapters: the mixture is then a policy of its own, a row whose
gate is the weights. `engine/rules/rule.py` says what a rule is; all are in RULES by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from engine.config import REFERENCE
from engine.errors import InputError
from engine.rules.gain import amplify
from engine.rules.registry import DEFAULT_RULE, RULES
from engine.rules.soup import SOUP


@dataclass(frozen=True)
class Mixture:
    """A mixture of policies.

    Attributes:
        weights: {policy: weight}, on the simplex.
        rule: the name of a rule in RULES.
        gain: the factor of the mixture's distance from the reference; see `amplify`.
        exponent: of rules that take one.
    """

    weights: Mapping[str, float]
    rule: str = DEFAULT_RULE
    gain: float = 1.0
    exponent: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    @property
    def kind(self) -> tuple[str, float, float]:
        """The rule, gain and exponent. Mixtures of one kind differ only in their weights, and are computed together."""
        return self.rule, self.gain, self.exponent

    @staticmethod
    def mix(mixtures: Sequence[Mixture], log_probs: Tensor, policies: list[str]) -> Tensor:
        """Return the log-probs of one mixture per sequence, [sequences, V].

        Args:
            mixtures: one per sequence, all of one kind.
            log_probs: [K, sequences, V], log-probs of `policies`.
            policies: the names of the K policies, which must include all that the mixtures need.
        """
        first = mixtures[0]
        combine = RULES[first.rule].combine
        if combine is None:
            mixed = log_probs[policies.index(SOUP)]
        else:
            weights = torch.tensor([[m.weights.get(name, 0.0) for name in policies] for m in mixtures])
            mixed = combine(log_probs, weights.to(log_probs), first.exponent)
        if first.gain == 1:
            return mixed
        return amplify(mixed, log_probs[policies.index(REFERENCE)], first.gain)

    def log_probs(self, log_probs: Tensor, policies: list[str]) -> Tensor:
        """Return the mixture's log-probs [V] from those of `policies`, [K, V], which must include all that it needs."""
        return self.mix([self], log_probs.unsqueeze(1), policies)[0]

    @property
    def powers(self) -> dict[str, float] | None:
        """{policy: the power of its probability in the product}; None if the rule is not a product."""
        if not RULES[self.rule].is_product:
            return None
        powers = {name: self.gain * weight for name, weight in self.weights.items()}
        powers[REFERENCE] = powers.get(REFERENCE, 0.0) + 1 - self.gain
        return {name: power for name, power in powers.items() if power}

    @property
    def averages_adapters(self) -> bool:
        """Whether the mixture is the policy of the averaged adapters."""
        return RULES[self.rule].averages_adapters

    @property
    def takes_exponent(self) -> bool:
        """Whether the exponent changes the mixture."""
        return RULES[self.rule].takes_exponent

    @property
    def needs(self) -> list[str]:
        """The policies to compute: those with weight, or their soup; and the reference if the gain is not 1."""
        names = [SOUP] if self.averages_adapters else [name for name, weight in self.weights.items() if weight > 0]
        return names if self.gain == 1 or REFERENCE in names else [*names, REFERENCE]


def make_mixture(
    weights: Mapping[str, float] | None,
    policies: list[str],
    rule: str = DEFAULT_RULE,
    gain: float = 1.0,
    exponent: float = 1.0,
) -> Mixture:
    """Return a checked mixture with its weights normalised to sum to one.

    Args:
        weights: {policy: weight of 0 or more}, which may include the reference; equal weights of all policies if None.
        policies: the names of the policies.
        rule: the name of a rule in RULES.
        gain: from 0 to 10.
        exponent: of rules that take one, from -20 to 20.

    Raises:
        InputError: a policy or rule is unknown, a number is out of range, or all weights are zero.
    """
    known = [*policies, REFERENCE]
    if weights is None:
        weights = dict.fromkeys(policies, 1.0)
    for name, weight in weights.items():
        if name not in known:
            raise InputError(f"weights: no policy is called '{name}'; there are {', '.join(known)}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise InputError(f"weights: {name} is {weight}; give a finite number, 0 or more")
        if weight < 0:
            raise InputError(f"weights: {name} is {weight:g}; weights cannot be negative, give 0 or more")
    # Divided by the largest first, so that huge weights do not overflow their sum.
    largest = max(weights.values(), default=0)
    if largest == 0:
        raise InputError("weights: all are zero; raise at least one above 0")
    total = math.fsum(weight / largest for weight in weights.values())
    if rule not in RULES:
        raise InputError(f"rule: no rule is called '{rule}'; there are {', '.join(RULES)}")
    if not math.isfinite(gain) or not 0 <= gain <= 10:
        raise InputError(f"gain: found {gain}; give a number from 0 (the reference) to 10, 1 is plain")
    if not math.isfinite(exponent) or abs(exponent) > 20:
        raise InputError(f"exponent: found {exponent}; give a number from -20 to 20, 0 is geometric")
    shares = {name: weights.get(name, 0.0) / largest / total for name in known}
    if REFERENCE not in weights:
        del shares[REFERENCE]
    return Mixture(shares, rule, float(gain), float(exponent))
