"""Rewards implied by a policy: its log-ratio to the reference."""

from __future__ import annotations

import logging

from pydantic import Field

from engine.config import REFERENCE
from engine.errors import InputError
from engine.models.policy_set import PolicySet
from engine.reward_kind import Number, RewardKind, RewardSettings, Scored, Scorer

log = logging.getLogger("mixdesk")


class ImplicitSettings(RewardSettings):
    """The settings of an implicit reward."""

    beta: Number = Field(default=0.1, gt=0, allow_inf_nan=False, description="the factor of the log-ratio")


def implicit(settings: ImplicitSettings, policy_set: PolicySet) -> Scorer:
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


REWARD = RewardKind(
    name="implicit",
    paper="DPO, arXiv 2305.18290, eq. 5",
    formula="β (log π_k(y|x) - log π_ref(y|x)) of the policy with this objective",
    settings=ImplicitSettings,
    load=implicit,
    of_policy=True,
    order=4,
)
