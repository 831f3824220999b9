"""A finished response and its tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.inference.finish_reason import FinishReason
from engine.inference.top_logprobs import TopLogprobs
from engine.messages import Prompt, TokenPrompt
from engine.rules.mixture import Mixture
from engine.sampling import Sampling

if TYPE_CHECKING:
    from engine.rewards.missing import Rewards


@dataclass(frozen=True)
class Token:
    """One token of a response.

    Attributes:
        id: the token's id.
        text: the text that it adds to the response; text that may be the beginning of a stop string is added by a
            later token, or by none.
        log_probs: {policy: log-prob of the token}.
        mixture: the mixture that it was drawn from; for a given token, the mixture that the response starts with.
        log_prob: the mixture's log-prob of the token, normalised and with its gain, before the bias, the repetition
            penalty, temperature and truncation; None for a given token.
        top_logprobs: the likeliest tokens at its position, if they were recorded; None for a given token.
    """

    id: int
    text: str
    log_probs: dict[str, float]
    mixture: Mixture
    log_prob: float | None = None
    top_logprobs: TopLogprobs | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Completion:
    """A finished response, with everything that is needed to reproduce it, and its rewards.

    Attributes:
        prompt: a text, the messages of a conversation of several turns, or token ids.
        text: the response; it ends before a stop string that ended it.
        tokens: its token ids, all that were drawn.
        mixture: the mixture; the last one if the response was steered.
        sampling: the sampling settings.
        seed: the seed.
        finish_reason: why it ended.
        trace: of each token, {policy: log-prob}.
        rewards: {objective: reward}.
        missing_rewards: {objective: reason} for rewards that could not be computed.
        steered: {token index: mixture from that token on}; empty if the response was not steered.
        prefix_length: the number of leading tokens that were given rather than drawn.
        log_normaliser: with particles, an estimate of log Σ_y Π_k π_k(y|x)^{λ_k} over responses y.
        date: the date in the prompt, if the chat template writes one; otherwise empty.
        log_probs: the mixture's log-prob of each token that was drawn, i.e. of `tokens[prefix_length:]`; see
            `Token.log_prob`. `Engine.token_log_probs` and `Engine.mixture_log_probs` score given tokens.
    """

    prompt: Prompt
    text: str
    tokens: list[int]
    mixture: Mixture
    sampling: Sampling
    seed: int
    finish_reason: FinishReason
    trace: list[dict[str, float]] = field(repr=False)
    rewards: dict[str, float] = field(default_factory=dict)
    missing_rewards: dict[str, str] = field(default_factory=dict)
    steered: dict[int, Mixture] = field(default_factory=dict)
    prefix_length: int = 0
    log_normaliser: float | None = None
    date: str = ""
    log_probs: list[float] = field(default_factory=list, repr=False)

    def score(self, rewards: Rewards) -> None:
        """Add rewards that were computed after the response."""
        self.rewards.update(rewards)
        self.missing_rewards.update(rewards.missing)

    def as_dict(self) -> dict[str, Any]:
        """Return the completion for JSON, without the trace."""
        return {
            "prompt": {"tokens": list(self.prompt.tokens)} if isinstance(self.prompt, TokenPrompt) else self.prompt,
            "text": self.text,
            "tokens": self.tokens,
            "mixture": self.mixture.as_dict(),
            "sampling": self.sampling.as_dict(),
            "seed": self.seed,
            "finish_reason": self.finish_reason,
            "rewards": self.rewards,
            "missing_rewards": self.missing_rewards,
            "steered": {place: mixture.as_dict() for place, mixture in self.steered.items()},
            "begins_with": self.prefix_length,
            "log_normaliser": self.log_normaliser,
            "date": self.date,
        }
