"""What else could have been said at a token's place: kept while it is drawn, mixed again later with other weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from engine.errors import InputError
from engine.rules.mixture import Mixture

LEAST = 1e-9  # of probability: what the tokens that are not kept have at least, so that its logarithm is a number


@dataclass(frozen=True, eq=False)
class Candidates:
    """The likeliest tokens at one place, under every policy that was computed, before temperature and what else warps.

    policies: K names. mixture: what the token was drawn from. seen: [M] token ids, the drawn one first, some of them
    twice. found: [K, M] their log-probs. Both are on the CPU: M is at most 1 + (K + 1) N.
    """

    policies: list[str]
    mixture: Mixture
    seen: Tensor
    found: Tensor

    @cached_property
    def _places(self) -> list[int]:
        """Where each token is seen for the first time."""
        first: dict[int, int] = {}
        for place, token in enumerate(self.seen.tolist()):
            first.setdefault(token, place)
        return list(first.values())

    @cached_property
    def ids(self) -> list[int]:
        """Different tokens, the drawn one first."""
        return self.seen[self._places].tolist()

    @cached_property
    def log_probs(self) -> Tensor:
        """[K, len(ids) + 1], each policy's of the ids and, last, of all other tokens together."""
        known = self.found[:, self._places].double()
        rest = (1 - known.exp().sum(-1, keepdim=True)).clamp(min=LEAST).log()
        return torch.cat([known, rest], -1)

    def of(self, policy: str) -> list[float]:
        """[len(ids) + 1] probabilities under a policy, those of all other tokens together last."""
        return self.log_probs[self.policies.index(policy)].exp().tolist()

    def under(self, mixture: Mixture) -> list[float]:
        """[len(ids) + 1] probabilities under any mixture of the policies, with no forward pass.

        The tokens that are not kept are mixed as if they were one token, of each policy's mass on all of them. That is
        exact where the policies spread this mass over them in the same proportions, and for power with exponent 1 in
        any case. For geometric with gain 1 it is too much (Hölder: Σ_v Π π_k(v)^λ_k <= Π (Σ_v π_k(v))^λ_k), so that
        the probabilities of the ids are never too high. How far it can be off is bounded by the last number returned.

        Raises InputError for a soup other than the one that was computed: its probabilities need a forward pass.
        """
        if mixture.averages_adapters and mixture != self.mixture:
            raise InputError("rule: what a soup would say is known only after a forward pass; take another rule")
        if missing := [name for name in mixture.needs if name not in self.policies]:
            raise InputError(f"weights: {', '.join(missing)} was not computed here; ask for a trace")
        return mixture.log_probs(self.log_probs, self.policies).exp().tolist()


def likeliest(
    log_probs: Tensor, mixed: Tensor, tokens: Tensor, count: int, policies: list[str], mixtures: list[Mixture]
) -> list[Candidates]:
    """One for each sequence: the drawn token, and the `count` likeliest under each policy and under its mixture.

    log_probs: [K, sequences, V]; mixed: [sequences, V], their mixtures; tokens: [sequences], drawn from it.
    """
    count = min(count, log_probs.shape[-1])
    top = log_probs.topk(count).indices.transpose(0, 1).flatten(1)  # [sequences, K N]
    seen = torch.cat([tokens.unsqueeze(1), mixed.topk(count).indices, top], 1)  # [sequences, M]
    found = log_probs.gather(-1, seen.expand(len(log_probs), -1, -1)).transpose(0, 1).cpu()  # [sequences, K, M]
    return [
        Candidates(policies, mixture, ids, values)
        for mixture, ids, values in zip(mixtures, seen.cpu(), found, strict=True)
    ]
