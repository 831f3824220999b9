"""How the prompts of prompted policies begin, in the place of what the reference's prompts begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import InputError
from engine.models.policy_set import Policy, PolicySet

PROBES = ("probe", "Another one, with 2 words?")  # prompts to compare


@dataclass(frozen=True)
class PromptHead:
    """The token ids that a prompted policy's prompts begin with, and those that stand there in the reference's."""

    policy: str
    own: list[int]
    plain: list[int]

    @property
    def longer(self) -> int:
        return len(self.own) - len(self.plain)

    def put(self, ids: list[int]) -> list[int]:
        """Return what the policy reads where the reference reads these. Raises InputError."""
        if ids[: len(self.plain)] != self.plain:
            raise InputError(
                f"input_ids: they begin otherwise than the prompts that policy '{self.policy}' reads; make them with "
                "the tokenizer's chat template"
            )
        return [*self.own, *ids[len(self.plain) :]]


def prompt_heads(policy_set: PolicySet, policies: Sequence[Policy]) -> dict[str, PromptHead]:
    """Return {policy: its head} of the prompted ones. Raises InputError where a prompt differs in more than that."""
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
    """Return what differs before the end that both prompts have in common."""
    plain = policy_set.prompt_ids(policy_set.policies[0], prompt)
    own = policy_set.prompt_ids(policy, prompt)
    common = 0
    while common < min(len(plain), len(own)) and plain[-1 - common] == own[-1 - common]:
        common += 1
    return PromptHead(policy.name, own[: len(own) - common], plain[: len(plain) - common])
