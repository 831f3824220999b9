"""Rewards implied by a policy: its log-ratio to the reference."""

from __future__ import annotations

import logging

from engine.config import REFERENCE, RewardSettings
from engine.errors import InputError
from engine.models.policy_set import PolicySet
from engine.rewards.scorer import Scored, Scorer

log = logging.getLogger("mixdesk")


def implicit(settings: RewardSettings, policy_set: PolicySet) -> Scorer:
    """Return a scorer of beta (log π_k(y|x) - log π_ref(y|x)) for the policy with this objective.

    Up to a term in x alone, this is the reward that the policy optimises (DPO, arXiv 2305.18290, eq. 5).
    """
    name = next(policy.name for policy in policy_set.policies if policy.objective == settings.objective)

    def score(items: list[Scored]) -> list[float]:
        rewards = []
        for prompt, text, tokens in items:
            ids = tokens or policy_set.response_ids(text)
            if not ids:
                raise InputError("the response is empty")
            longest = max(len(row) for row in policy_set.read(policy_set.policies, prompt).values()) + len(ids)
            if longest > policy_set.context:
                raise InputError(f"{longest:,} tokens, and the policies hold {policy_set.context:,}")
            log_probs = policy_set.teacher_forced(prompt, ids)
            rewards.append(settings.beta * (sum(log_probs[name]) - sum(log_probs[REFERENCE])))
        return rewards

    return score
