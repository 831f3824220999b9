"""A response that is being decoded, and its record for a bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.inference.finish_reason import FinishReason
from engine.inference.sampler import Sampler
from engine.inference.stop_strings import StopFinder
from engine.inference.token_events import StepRecord
from engine.inference.top_logprobs import TopLogprobs
from engine.messages import Prompt
from engine.models.policy_set import Policy
from engine.rules.mixture import Mixture
from engine.sampling import Sampling


@dataclass(eq=False)
class Record:
    """Log-probs of a response for a bank or a particle, under every policy that has a row and under `mixtures`.

    All are at the temperature that the response is drawn at.
    """

    mixtures: dict[str, Mixture]
    log_probs: dict[str, float] = field(default_factory=dict)  # summed over the tokens so far
    drawn: float = 0.0  # the same under what the tokens were drawn from
    steps: StepRecord | None = None  # if it is to keep what each token was drawn among

    def add(self, log_probs: dict[str, float], drawn: float) -> None:
        """Add one token's log-probs: by policy and mixture, and under the distribution that it was drawn from."""
        self.drawn += drawn
        for name, value in log_probs.items():
            self.log_probs[name] = self.log_probs.get(name, 0.0) + value


@dataclass(eq=False)
class Sequence:
    """A response that is being decoded. `mixture` may change between steps, within the policies that have rows."""

    prompt: Prompt
    mixture: Mixture
    sampling: Sampling
    sampler: Sampler
    policies: list[Policy]
    prompt_ids: dict[str, list[int]]  # {policy: the prompt as it reads it}
    tokens: list[int] = field(default_factory=list)
    trace: list[dict[str, float]] = field(default_factory=list)  # of each token: {policy: log-prob}
    drawn_with: list[Mixture] = field(default_factory=list)  # of each token
    log_probs: list[float] = field(default_factory=list)  # of each drawn token, under the mixture
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    # {token's place: what it and the rest come from}
    mixture_schedule: Mapping[int, Mixture] = field(default_factory=dict)
    soup_mixture: Mixture | None = None  # with a soup: what its row was computed from
    record: Record | None = None
    prefix_length: int = 0  # how many of the tokens were given, and not drawn
    n_top_logprobs: int = 0  # of every policy's likeliest tokens at each place that is drawn
    top_logprobs: list[TopLogprobs] = field(default_factory=list)  # of each drawn token, if they are kept
    stop_finder: StopFinder | None = None  # made when the first token is drawn, if there are stop strings
    text_end: int | None = None  # where in the text its stop string begins, once there is one
    date: str = ""  # that the chat template was given, if it writes one

    @property
    def names(self) -> list[str]:
        """The names of the policies that have a row."""
        return [policy.name for policy in self.policies]

    @property
    def drawing(self) -> Mixture:
        """The mixture that the next token is drawn from. A soup follows one token late: its row is computed already."""
        return self.soup_mixture if self.mixture.averages_adapters and self.soup_mixture else self.mixture

    @property
    def longest(self) -> int:
        """The largest number of positions that one of its rows can hold."""
        return max(len(ids) for ids in self.prompt_ids.values()) + self.prefix_length + self.sampling.max_new_tokens


Row = tuple[Sequence, Policy]
