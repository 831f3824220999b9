"""Top log-probs: the likeliest tokens at each position, recorded while decoding, to be mixed with other weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from engine.errors import InputError
from engine.rules.mixture import Mixture

LEAST = 1e-9  # of probability: what the tokens that are not kept have at least, so that its logarithm is a number


@dataclass(frozen=True, eq=False)
class TopLogprobs:
    """The likeliest tokens at one position, under every policy that was computed, before temperature and truncation.

    Attributes:
        policies: the names of the K policies.
        mixture: the mixture that the token was drawn from.
        seen: [M], token ids, the drawn one first, possibly with duplicates; on the CPU. M is at most 1 + (K + 1) N for
            the N likeliest tokens under each policy and the mixture.
        found: [K, M], their log-probs; on the CPU.
        mixed: [M], their log-probs under the mixture; on the CPU.
    """

    policies: list[str]
    mixture: Mixture
    seen: Tensor
    found: Tensor
    mixed: Tensor

    @cached_property
    def _places(self) -> list[int]:
        """The index of the first occurrence of each distinct token."""
        first: dict[int, int] = {}
        for place, token in enumerate(self.seen.tolist()):
            first.setdefault(token, place)
        return list(first.values())

    @cached_property
    def ids(self) -> list[int]:
        """The distinct tokens, the drawn one first."""
        return self.seen[self._places].tolist()

    @cached_property
    def log_probs(self) -> Tensor:
        """Each policy's log-probs of `ids` and, last, of all other tokens together, [K, len(ids) + 1]."""
        known = self.found[:, self._places].double()
        rest = (1 - known.exp().sum(-1, keepdim=True)).clamp(min=LEAST).log()
        return torch.cat([known, rest], -1)

    def likeliest(self, count: int) -> list[tuple[int, float]]:
        """Return (token id, log-prob) of the `count` likeliest tokens under the mixture, the likeliest first.

        Raises:
            InputError: fewer tokens were kept, so that the likeliest are not known.
        """
        kept = (len(self.seen) - 1) // (len(self.policies) + 1)
        if not 0 <= count <= kept:
            raise InputError(f"top_logprobs: found {count}; {kept} per policy were kept here, ask for as many at first")
        # After the drawn token come the mixture's likeliest, sorted.
        return list(zip(self.seen[1 : count + 1].tolist(), self.mixed[1 : count + 1].tolist(), strict=True))

    def of(self, policy: str) -> list[float]:
        """Return the probabilities of `ids` under a policy and, last, of all other tokens together."""
        return self.log_probs[self.policies.index(policy)].exp().tolist()

    def under(self, mixture: Mixture) -> list[float]:
        """Return the probabilities of `ids` and, last, of all other tokens, under any mixture, without a forward pass.

        The other tokens are mixed as a single token with each policy's total mass on them. This is exact if the
        policies distribute that mass in the same proportions, and for the power rule with exponent 1 in any case. For
        the geometric rule with gain 1 the mass of the other tokens is an upper bound (Hölder:
        Σ_v Π π_k(v)^λ_k <= Π (Σ_v π_k(v))^λ_k), so that the probabilities of `ids` are lower bounds. The last number
        bounds the error.

        Raises:
            InputError: the mixture is a soup other than the one that was computed, whose probabilities need a forward
                pass, or a policy that it needs was not computed.
        """
        if mixture.averages_adapters and mixture != self.mixture:
            raise InputError("rule: what a soup would say is known only after a forward pass; take another rule")
        if missing := [name for name in mixture.needs if name not in self.policies]:
            raise InputError(f"weights: {', '.join(missing)} was not computed here; ask for a trace")
        return mixture.log_probs(self.log_probs, self.policies).exp().tolist()


def likeliest(
    log_probs: Tensor, mixed: Tensor, tokens: Tensor, count: int, policies: list[str], mixtures: list[Mixture]
) -> list[TopLogprobs]:
    """Return the drawn token and the `count` likeliest tokens under each policy and the mixture, for each sequence.

    Args:
        log_probs: [K, sequences, V].
        mixed: [sequences, V], log-probs of the mixtures.
        tokens: [sequences], the tokens drawn.
        count: the number of tokens to keep per distribution.
        policies: the names of the K policies.
        mixtures: the mixture of each sequence.
    """
    count = min(count, log_probs.shape[-1])
    top = log_probs.topk(count).indices.transpose(0, 1).flatten(1)  # [sequences, K N]
    seen = torch.cat([tokens.unsqueeze(1), mixed.topk(count).indices, top], 1)  # [sequences, M]
    found = log_probs.gather(-1, seen.expand(len(log_probs), -1, -1)).transpose(0, 1).cpu()  # [sequences, K, M]
    own = mixed.gather(-1, seen).cpu()  # [sequences, M]
    return [
        TopLogprobs(policies, mixture, ids, values, of_mixture)
        for mixture, ids, values, of_mixture in zip(mixtures, seen.cpu(), found, own, strict=True)
    ]
