"""Prompts of token ids, which are read without a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import InputError
from engine.messages import TokenPrompt
from engine.models.prompt_heads import PromptHead, prompt_heads

if TYPE_CHECKING:
    from engine.models.policy_set import Policy, PolicySet


class TokenPrompts:
    """Read prompts of token ids for the policies of a PolicySet, as `MixedPolicy` reads `input_ids`.

    The reference and adapters read them unchanged, whatever their chat template. A prompted policy reads them with the
    beginning of its own prompts in place of the reference's.
    """

    def __init__(self, policy_set: PolicySet) -> None:
        self.policy_set = policy_set
        self._heads: dict[str, PromptHead] = {}

    def ids(self, policy: Policy, prompt: TokenPrompt) -> list[int]:
        """Return the ids that a policy reads.

        Raises:
            InputError: an id is not in the vocabulary; the prompt is empty and the tokenizer has no BOS token; or the
                policy is a prompted one, and the ids do not begin as the reference's prompts do.
        """
        ids = check_ids(self.policy_set, prompt.tokens, "prompt")
        if not ids:
            first = self.policy_set.tokenizer.bos_token_id
            if first is None:
                raise InputError("prompt: it has no tokens, and the tokenizer has no token to begin with; give one")
            ids = [first]
        if not (policy.system_prompt or policy.prefix):
            return ids
        try:
            return self.head(policy).put(ids)
        except InputError:
            raise InputError(
                f"prompt: its tokens begin otherwise than the prompts that policy '{policy.name}' extends; make them "
                "with the tokenizer's chat template, or set its weight to 0"
            ) from None

    def head(self, policy: Policy) -> PromptHead:
        """Return the beginning of a prompted policy's prompts. Raises InputError if it has no fixed one."""
        if self.policy_set.now():  # it may hold the date
            return prompt_heads(self.policy_set, [policy])[policy.name]
        if policy.name not in self._heads:
            self._heads |= prompt_heads(self.policy_set, [policy])
        return self._heads[policy.name]

    def read(self, prompt: TokenPrompt) -> dict[str, list[int]]:
        """Return {policy: token ids} for all policies but prompted ones that cannot read the prompt.

        Raises:
            InputError: the reference cannot read it; see `ids`.
        """
        reference, *others = self.policy_set.policies
        found = {reference.name: self.ids(reference, prompt)}
        for policy in others:
            try:
                found[policy.name] = self.ids(policy, prompt)
            except InputError:
                continue
        return found


def check_ids(policy_set: PolicySet, tokens: Sequence[int], what: str) -> list[int]:
    """Return token ids as a list. Raises InputError, which begins with `what`, if one is not in the vocabulary."""
    size = min(len(policy_set.tokenizer), policy_set.vocabulary or 2**31)
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < size:
            raise InputError(f"{what}: found {str(token)[:40]}; give token ids from 0 to {size - 1}")
    return list(tokens)
