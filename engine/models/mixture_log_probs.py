"""The mixture's log-probs of a text of token ids, by one forward pass in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache

from engine.errors import TooLongError
from engine.messages import TokenPrompt
from engine.models.cache_argument import CACHE
from engine.models.policy_set import Policy, PolicySet
from engine.rules.mixture import Mixture

LOGITS = 2**25  # in one piece: 128 MiB in float32, of which up to four copies are there at once
POSITIONS = 8192  # in one piece, over all policies


@dataclass(frozen=True)
class PositionLogProb:
    """A token of a text under a mixture.

    Attributes:
        log_prob: the mixture's log-prob of the token given those before it. None for the first token, and, with a
            prompted policy in the mixture, for the tokens that its own prompt replaces.
        top: (token id, log-prob) of the likeliest tokens at this position, the likeliest first; empty where
            `log_prob` is None.
    """

    log_prob: float | None
    top: list[tuple[int, float]] = field(default_factory=list)


class Rows:
    """Texts of equal end under policies of one model, which are read in pieces."""

    def __init__(self, policy_set: PolicySet, index: int, policies: list[Policy], texts: list[list[int]]) -> None:
        self.policy_set = policy_set
        self.index = index
        self.policies = policies
        self.ids, self.mask = policy_set.pad(texts)
        self.cache = DynamicCache()
        self.read = 0  # columns that the cache holds

    def log_probs(self, stop: int, keep: int, whole: bool) -> Tensor:
        """Return the log-probs [rows, keep, V] after the last columns before column `stop`.

        Args:
            stop: the column to read up to; later calls read on.
            keep: the number of columns.
            whole: read all columns again without a cache.
        """
        mask = self.mask[:, :stop]
        if whole:
            ids = self.ids[:, :stop]
            logits = self.policy_set.forward(self.index, self.policies, ids, mask, use_cache=False, logits_to_keep=keep)
            return self.policy_set.log_probs(logits[:, -keep:])
        # Between two pieces the batch may have set other gates.
        self.policy_set.set_gates(self.index, self.policies)
        logits = self.policy_set.models[self.index](
            input_ids=self.ids[:, self.read : stop],
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, self.read :],
            use_cache=True,
            logits_to_keep=keep,
            **{CACHE: self.cache},
        ).logits
        self.read = stop
        return self.policy_set.log_probs(logits[:, -keep:])


class MixturePass:
    """A forward pass over a text of token ids.

    `pieces` may be consumed between the steps of the batch, on the thread that owns the models.
    """

    def __init__(self, policy_set: PolicySet, tokens: list[int], mixture: Mixture, top: int) -> None:
        """Prepare the pass.

        Args:
            policy_set: the policies.
            tokens: at least one token id.
            mixture: the mixture.
            top: the number of likeliest tokens to return at each position.

        Raises:
            InputError: a prompted policy in the mixture cannot read these tokens, or they do not fit the models.
        """
        self.tokens, self.mixture, self.top = tokens, mixture, top
        self.vocabulary = max(model.config.get_text_config().vocab_size for model in policy_set.models)
        prompt = TokenPrompt(tuple(tokens))
        policies = policy_set.rows_of(mixture, False)
        texts = [policy_set.prompt_ids(policy, prompt) for policy in policies]
        longest = max(map(len, texts)) - 1  # nothing follows the last token
        if longest > policy_set.context:
            raise TooLongError(
                f"tokens: they are {longest + 1:,}, and these models hold {policy_set.context:,}; give fewer"
            )
        # The first token that has a log-prob: all policies read the same tokens from there on.
        heads = [policy_set.token_prompts.head(policy) for policy in policies if policy.system_prompt or policy.prefix]
        self.first = max([1, *(len(head.plain) for head in heads)])
        self.rows: list[Rows] = []
        self.names: list[str] = []
        self.whole = False
        for index in sorted({policy.model for policy in policies}):
            own = [(policy, text[:-1]) for policy, text in zip(policies, texts, strict=True) if policy.model == index]
            self.names += [policy.name for policy, _ in own]
            groups = [[one] for one in own] if index in policy_set.apart else [own]
            if len(tokens) > self.first:
                self.rows += [Rows(policy_set, index, *map(list, zip(*group, strict=True))) for group in groups]
            self.whole |= index in policy_set.apart or index in policy_set.reread

    def pieces(self) -> Iterator[list[PositionLogProb]]:
        """Yield the tokens' log-probs, a piece of the text at a time."""
        yield [PositionLogProb(None) for _ in self.tokens[: self.first]]
        count = len(self.names)
        # A rule with an exponent computes in double precision.
        most = LOGITS // 2 if self.mixture.takes_exponent else LOGITS
        size = max(1, min(most // (count * self.vocabulary), POSITIONS // count))
        for start in range(self.first, len(self.tokens), size):
            stop = min(start + size, len(self.tokens))
            yield self._piece(start, stop, self.whole or (start == self.first and stop == len(self.tokens)))

    @torch.inference_mode()
    def _piece(self, start: int, stop: int, whole: bool) -> list[PositionLogProb]:
        """Return the log-probs of the tokens from `start` to before `stop`."""
        after = len(self.tokens) - stop  # columns at the end that are not read yet
        parts = [rows.log_probs(rows.ids.shape[1] - after, stop - start, whole) for rows in self.rows]
        log_probs = parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0].device) for part in parts])
        mixed = Mixture.mix([self.mixture] * (stop - start), log_probs, self.names)
        del log_probs, parts
        if mixed.isnan().any():
            raise ValueError("the mixture's log-probs are not numbers")
        wanted = torch.tensor(self.tokens[start:stop], device=mixed.device).unsqueeze(-1)
        values = mixed.gather(-1, wanted)[:, 0].tolist()
        best = mixed.topk(min(self.top, mixed.shape[-1]))
        return [
            PositionLogProb(value, list(zip(ids, own, strict=True)))
            for value, ids, own in zip(values, best.indices.tolist(), best.values.tolist(), strict=True)
        ]
