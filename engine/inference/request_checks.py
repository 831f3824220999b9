"""Checks of what a caller gives with a request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from engine.errors import InputError
from engine.messages import TokenPrompt
from engine.models.policy_set import Policy, PolicySet
from engine.models.token_prompts import check_ids
from engine.sampling import BANNED, Sampling

TokenIds = list[int] | tuple[int, ...]


def check_tokens(policy_set: PolicySet, tokens: TokenIds) -> list[int]:
    """Return the tokens as a list. Raises InputError unless a response can begin with them."""
    for token in check_ids(policy_set, tokens, "tokens"):
        if token in policy_set.stop_ids:
            raise InputError(f"tokens: {token} ends a response; give those before it")
    return list(tokens)


def check_biased(policy_set: PolicySet, sampling: Sampling) -> None:
    """Raise InputError if a bias is for a token that is not in the vocabulary, or bans all tokens."""
    if not sampling.logit_bias:
        return
    check_ids(policy_set, [token for token, _ in sampling.logit_bias], "logit_bias")
    if sum(value == BANNED for _, value in sampling.logit_bias) >= len(policy_set.tokenizer):
        raise InputError("logit_bias: it bans all tokens; leave some")


def check_readable(
    policy_set: PolicySet,
    prompt: TokenPrompt,
    prompt_ids: Mapping[str, list[int]],
    policies: list[Policy],
    needed: Collection[str],
) -> list[Policy]:
    """Return the policies that can read a prompt of token ids.

    Args:
        policy_set: the policies.
        prompt: the prompt.
        prompt_ids: {policy: the prompt as it reads it}.
        policies: the policies to compute.
        needed: the names of those without which nothing can be drawn.

    Raises:
        InputError: a policy that is needed cannot read it.
    """
    for policy in policies:
        if policy.name in needed and policy.name not in prompt_ids:
            policy_set.prompt_ids(policy, prompt)  # which says why
    return [policy for policy in policies if policy.name in prompt_ids]


def check_date(date: str) -> str:
    """Return an ISO date to the second, or "" unchanged. Raises InputError for any other text."""
    try:
        return date and datetime.fromisoformat(date).isoformat(timespec="seconds")
    except (TypeError, ValueError):
        raise InputError(f"date: found {str(date)[:40]!r}; give one such as 2026-01-31T12:00:00") from None
