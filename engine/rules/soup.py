"""The rule `soup`: the policy of the averaged adapters."""

from __future__ import annotations

from engine.rules.rule import Rule

SOUP = "soup"  # also the name of the row that the averaged adapters have in a batch

RULE = Rule(
    name=SOUP,
    paper="Rewarded Soups, arXiv 2306.04488",
    formula="the policy whose adapter is Σ λ_k of the adapters' weights",
    combine=None,
    order=3,
)
