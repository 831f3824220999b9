"""A finished response and its tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.inference.top_logprobs import Candidates
from engine.messages import Prompt
from engine.rules.mixture import Mixture
from engine.sampling import Sampling

if TYPE_CHECKING:
    from engine.rewards.missing import Rewards


@dataclass(frozen=True)
class Token:
    """One token as it was drawn. text is what it adds to the response; log_probs {policy: log-prob of this token};
    mixture is what it was drawn from; candidates, where they are kept, what else could have been. A token that the
    response was told to begin with has neither: its mixture is the one that goes on from there."""

    id: int
    text: str
    log_probs: dict[str, float]
    mixture: Mixture
    candidates: Candidates | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Completion:
    """A response with all that is needed to generate it again, and its rewards {objective: float}; missing_rewards
    {objective: why there is none} of those that could not be computed.

    prompt: a text; of a conversation of several turns its messages.
    mixture is the last one that it was steered to; steered {token's place: mixture from there on} is empty if it never
    was. begins_with: how many of the tokens were given rather than drawn; the seed drew the rest. log_normaliser, with
    particles: an estimate of log Σ_y Π_k π_k(y|x)^{λ_k}, y being what was drawn. date: today's when it was drawn, if
    the chat template writes it into the prompt; else empty.
    """

    prompt: Prompt
    text: str
    tokens: list[int]
    mixture: Mixture
    sampling: Sampling
    seed: int
    finish_reason: str  # end, length, time or stopped
    trace: list[dict[str, float]] = field(repr=False)
    rewards: dict[str, float] = field(default_factory=dict)
    missing_rewards: dict[str, str] = field(default_factory=dict)
    steered: dict[int, Mixture] = field(default_factory=dict)
    begins_with: int = 0
    log_normaliser: float | None = None
    date: str = ""

    def score(self, rewards: Rewards) -> None:
        """Take rewards that were computed after the response."""
        self.rewards.update(rewards)
        self.missing_rewards.update(rewards.missing)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words, without the trace."""
        return {
            "prompt": self.prompt,
            "text": self.text,
            "tokens": self.tokens,
            "mixture": self.mixture.as_dict(),
            "sampling": self.sampling.as_dict(),
            "seed": self.seed,
            "finish_reason": self.finish_reason,
            "rewards": self.rewards,
            "missing_rewards": self.missing_rewards,
            "steered": {place: mixture.as_dict() for place, mixture in self.steered.items()},
            "begins_with": self.begins_with,
            "log_normaliser": self.log_normaliser,
            "date": self.date,
        }
