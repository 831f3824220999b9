"""The beginnings of prompted policies' prompts, which replace that of the reference's prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import InputError

if TYPE_CHECKING:
    from engine.models.policy_set import Policy, PolicySet

PROBES = ("probe", "Another one, with 2 words?")  # prompts to compare


@dataclass(frozen=True)
class PromptHead:
    """The beginning of a prompted policy's prompts.

    Attributes:
        policy: the name of the policy.
        own: the token ids that its prompts begin with.
        plain: the token ids that the reference's prompts have in their place.
    """

    policy: str
    own: list[int]
    plain: list[int]

    @property
    def longer(self) -> int:
        """The number of tokens by which the policy's prompts are longer than the reference's; may be negative."""
        return len(self.own) - len(self.plain)

    def put(self, ids: list[int]) -> list[int]:
        """Return the policy's prompt for a prompt of the reference. Raises InputError if its beginning differs."""
        if ids[: len(self.plain)] != self.plain:
            raise InputError(
                f"input_ids: they begin otherwise than the prompts that policy '{self.policy}' reads; make them with "
                "the tokenizer's chat template"
            )
        return [*self.own, *ids[len(self.plain) :]]


def prompt_heads(policy_set: PolicySet, policies: Sequence[Policy]) -> dict[str, PromptHead]:
    """Return {name: head} of the prompted policies.

    Raises:
        InputError: a policy's prompts differ from the reference's in more than a fixed beginning.
    """
    heads = {}
    for policy in policies:
        if not (policy.system_prompt or policy.prefix):
            continue
        found = [head_of(policy_set, policy, probe) for probe in PROBES]
        if found[0] != found[1]:
            raise InputError(
                f"policy '{policy.name}': the chat template mixes its prompt with what is asked, token by token; a "
                "mixture as one model cannot take it: use the engine, or leave it out"
            )
        heads[policy.name] = found[0]
    return heads


def head_of(policy_set: PolicySet, policy: Policy, prompt: str) -> PromptHead:
    """Return the parts of both prompts before their longest common suffix."""
    plain = policy_set.prompt_ids(policy_set.policies[0], prompt)
    own = policy_set.prompt_ids(policy, prompt)
    common = 0
    while common < min(len(plain), len(own)) and plain[-1 - common] == own[-1 - common]:
        common += 1
    return PromptHead(policy.name, own[: len(own) - common], plain[: len(plain) - common])
