"""The rules on distributions small enough to work out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from engine.rules.gain import amplify
from engine.rules.geometric import geometric
from engine.rules.mixture import make_mixture
from engine.rules.power import power
from engine.rules.registry import RULES

FUNCTIONS = [
    name for name, rule in RULES.items() if rule.combine
]  # a soup is a policy of its own, with nothing to combine
P = torch.tensor([[0.8, 0.2], [0.2, 0.8]])


def test_by_hand() -> None:
    even = torch.tensor([0.5, 0.5])
    assert geometric(P.log(), even).exp().tolist() == pytest.approx([0.5, 0.5])
    uneven = torch.tensor([0.75, 0.25])  # 0.8^.75 0.2^.25 : 0.2^.75 0.8^.25 = 2 : 1
    assert geometric(P.log(), uneven).exp().tolist() == pytest.approx([2 / 3, 1 / 3])
    assert power(P.log(), uneven, 1.0).exp().tolist() == pytest.approx([0.65, 0.35])
    # harmonic: 1/(.75/.8 + .25/.2) : 1/(.75/.2 + .25/.8) = 0.457142 : 0.246153
    assert power(P.log(), uneven, -1.0).exp().tolist() == pytest.approx([0.65, 0.35], abs=1e-4)


def test_gain_by_hand() -> None:
    reference, policy = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.8, 0.2]).log()
    assert amplify(policy, reference, 2.0).exp().tolist() == pytest.approx([16 / 17, 1 / 17])
    assert amplify(policy, reference, 0.0).exp().tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("gain", [0.0, 0.5, 2.0, 4.0])
def test_gain_keeps_what_is_impossible_impossible(gain: float) -> None:
    policy, reference = torch.tensor([0.8, 0.2, 0.0]).log(), torch.tensor([0.5, 0.5, 0.0]).log()
    found = amplify(policy, reference, gain).exp()
    assert found[2] == 0 and found[0] / found[1] == pytest.approx(4.0**gain)
    # Impossible under the policy alone: without it, unless the policy has no say.
    found = amplify(torch.tensor([1.0, 0.0]).log(), torch.tensor([0.5, 0.5]).log(), gain).exp()
    assert found.tolist() == pytest.approx([0.5, 0.5] if gain == 0 else [1, 0])


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("exponent", [-3.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 3.0])
def test_normalised_in_every_shape(name: str, exponent: float) -> None:
    generator = torch.Generator().manual_seed(0)
    log_probs = (torch.randn(3, 2, 5, 11, generator=generator) * 9).log_softmax(-1)
    weights = torch.rand(2, 5, 3, generator=generator)
    mixed = RULES[name].combine(log_probs, weights / weights.sum(-1, keepdim=True), exponent)
    assert mixed.shape == (2, 5, 11)
    assert mixed.exp().sum(-1).allclose(torch.ones(2, 5), atol=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_policy_of_weight_zero_has_no_say_even_where_it_is_impossible(name: str) -> None:
    log_probs = torch.tensor([[0.7, 0.3], [0.0, 1.0]]).log()
    mixed = RULES[name].combine(log_probs, torch.tensor([1.0, 0.0]), -1.0)
    assert mixed.exp().tolist() == pytest.approx([0.7, 0.3])


def test_small_exponents_approach_the_geometric_mean() -> None:
    log_probs = (torch.randn(3, 50, generator=torch.Generator().manual_seed(2)) * 5).log_softmax(-1)
    weights = torch.tensor([0.2, 0.5, 0.3])
    assert (power(log_probs, weights, 1e-6) - geometric(log_probs, weights)).abs().max() < 1e-4


def test_needs_names_what_must_be_computed() -> None:
    assert make_mixture({"a": 1}, ["a", "b"]).needs == ["a"]
    assert make_mixture({"a": 1}, ["a", "b"], gain=2.0).needs == ["a", "reference"]
    assert make_mixture({"a": 1, "reference": 3}, ["a", "b"]).weights == {"a": 0.25, "b": 0.0, "reference": 0.75}
    assert math.isclose(sum(make_mixture(None, ["a", "b", "c"]).weights.values()), 1)
