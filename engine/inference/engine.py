"""The public API: submit prompts, stream and steer their responses, score them. Every method is thread-safe."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine.config import DEMO, REFERENCE, Config, load_config
from engine.config_errors import locate_error
from engine.errors import InputError
from engine.inference.completion import Completion, Token
from engine.inference.familiarity import Familiarity
from engine.inference.request import Request, Stream
from engine.inference.request_checks import TokenIds, check_biased, check_date, check_readable, check_tokens
from engine.inference.sampler import Sampler
from engine.inference.scheduler import Scheduler
from engine.inference.self_test import check_decoding
from engine.inference.sequence import Record, Sequence
from engine.inference.smc import check_particles
from engine.inference.text_api import TextApi
from engine.messages import Prompt, TokenPrompt, check_messages, checked_prompt
from engine.models.hub import check_hub
from engine.models.policy_set import Policy, PolicySet
from engine.reward_kind import Scored
from engine.rewards.missing import Rewards
from engine.rewards.reward_set import RewardSet
from engine.rules.mixture import Mixture
from engine.rules.registry import DEFAULT_RULE
from engine.sampling import Sampling

log = logging.getLogger("mixdesk")


class Engine(TextApi):
    """All policies and rewards of a configuration, ready to generate. Thread-safe."""

    def __init__(self, config: Config, report: Callable[[str], None] = log.debug) -> None:
        """Load the policies and rewards of a configuration, test them, and start the worker.

        Args:
            config: the configuration.
            report: called with one line before each part is loaded.

        Raises:
            InputError: a model, adapter or reward cannot be loaded, or fails its self-test.
        """
        self.config = config
        try:
            self.policy_set = PolicySet(config, report)
            self.reward_set = RewardSet(config.rewards, self.policy_set, report)
            check_decoding(self.policy_set)
        except InputError as error:
            raise locate_error(config, error) from None
        self._scheduler = Scheduler(self.policy_set, self.reward_set)
        self.telemetry = self._scheduler.telemetry
        self._familiarity = Familiarity(self.policy_set, config, self._scheduler.run_in_parts)

    @classmethod
    def from_config(cls, file: str | Path = DEMO) -> Engine:
        """Return the engine of a configuration file. Raises InputError."""
        config = load_config(file)
        check_hub(config)
        return cls(config)

    def mixture(
        self,
        weights: Mapping[str, float] | None = None,
        rule: str = DEFAULT_RULE,
        gain: float = 1.0,
        exponent: float = 1.0,
    ) -> Mixture:
        """Return a checked mixture of this engine's policies.

        Args:
            weights: {policy: weight of 0 or more}, normalised to sum to one; uniform if None. The key "reference" is
                allowed.
            rule: "geometric", "power" or "soup"; see `engine.rules`.
            gain: from 0 (the reference) to 10; 1 is the mixture itself, and above 1 extrapolates beyond it.
            exponent: of the rule "power", from -20 to 20.

        Raises:
            InputError: an argument is not valid, or the rule cannot combine these policies.
        """
        return self.policy_set.mixture(weights, rule, gain, exponent)

    @property
    def notes(self) -> list[str]:
        """Remarks on the policies from loading, one sentence each; the log has them too."""
        return self.policy_set.notes

    @property
    def max_rows(self) -> int:
        """The largest number of rows, i.e. (sequence, policy) pairs, that are decoded together."""
        return self._scheduler.batch.max_rows

    @property
    def rows(self) -> int:
        """The number of rows that are being decoded."""
        return self._scheduler.batch.rows

    @property
    def busy(self) -> bool:
        """Whether a response is running, waits to be admitted, or waits for its rewards."""
        return self._scheduler.busy

    @property
    def waiting(self) -> int:
        """The number of requests that wait to be admitted."""
        return len(self._scheduler.queue)

    @property
    def restarts(self) -> int:
        """The number of times that the worker has recovered from an unexpected error."""
        return self.telemetry.restarts

    def submit(
        self,
        prompt: Prompt,
        mixture: Mixture,
        sampling: Sampling | None = None,
        seed: int = 0,
        trace: bool = True,
        rewards: bool = True,
        client: object = None,
        time_limit: float | None = None,
        steered: Mapping[int, Mixture] | None = None,
        record: Record | None = None,
        tokens: TokenIds = (),
        top_logprobs: int = 0,
        date: str = "",
    ) -> Request:
        """Queue a response to a prompt and return its request without waiting.

        Args:
            prompt: a text; messages with the keys "role" and "content"; or a `TokenPrompt`, whose response has no
                rewards, and no trace of prompted policies that cannot read it.
            mixture: the mixture that the tokens are drawn from; see `mixture`.
            sampling: temperature, length and so on; the defaults of `Sampling` if None.
            seed: from 0 to 2^63 - 1; the same seed draws the same response.
            trace: compute every policy, so that each token has a log-prob under each; otherwise only the policies that
                the mixture needs are computed.
            rewards: compute the rewards of the finished response.
            client: the sender; queued requests are admitted round-robin over clients. A request without one counts as
                a client of its own; see `Scheduler.submit` for a tuple.
            time_limit: seconds from now after which the response is cut off with finish_reason 'time'.
            steered: {token index: mixture from that token on}, as in `Completion.steered`. It reproduces a steered
                completion, except one that was steered between a soup and another rule: there the soup has read the
                earlier tokens with other weights.
            record: filled in while the response is drawn; the policies that its mixtures need are computed too.
            tokens: token ids that the response begins with, followed by up to max_new_tokens new ones. With `trace`
                they take one more forward pass.
            top_logprobs: the number of likeliest tokens per policy to keep at each position; it costs memory and time.
            date: ISO date for chat templates that write one, to reproduce an earlier completion; now if empty.

        Raises:
            InputError: the prompt, sampling, seed, tokens or date is not valid, or does not fit the models.
        """
        request = self._request(
            *(prompt, mixture, sampling or Sampling(), seed, trace, rewards, time_limit),
            steered=steered or {},
            tokens=tokens,
            top_logprobs=top_logprobs,
            record=record,
            date=date,
        )
        self._scheduler.submit([request], client)
        return request

    def submit_all(
        self,
        prompt: Prompt,
        mixtures: list[Mixture],
        sampling: Sampling | list[Sampling],
        seeds: list[int],
        client: object = None,
        time_limit: float | None = None,
        top_logprobs: int = 0,
        trace: bool = True,
        rewards: bool = True,
    ) -> list[Request]:
        """Queue several responses to one prompt, which are admitted together and share the reading of the prompt.

        Args:
            prompt: see `submit`.
            mixtures: the mixture of each response.
            sampling: one for all responses, or one for each.
            seeds: the seed of each response.
            client, time_limit, top_logprobs, trace, rewards: see `submit`.

        Raises:
            InputError: one of the responses is not valid; none is queued then.
        """
        samplings = sampling if isinstance(sampling, list) else [sampling] * len(mixtures)
        date = self.policy_set.now()
        prompt_ids = self.check_prompt(prompt, max((one.max_new_tokens for one in samplings), default=1), date=date)
        shared: dict[str, Any] = {"date": date, "prompt_ids": prompt_ids}
        shared |= {"time_limit": time_limit, "top_logprobs": top_logprobs, "trace": trace, "rewards": rewards}
        requests = [self._request(prompt, *each, **shared) for each in zip(mixtures, samplings, seeds, strict=True)]
        self._scheduler.submit(requests, client)
        return requests

    def _request(
        self,
        prompt: Prompt,
        mixture: Mixture,
        sampling: Sampling,
        seed: int,
        trace: bool = True,
        rewards: bool = True,
        time_limit: float | None = None,
        steered: Mapping[int, Mixture] = MappingProxyType({}),
        tokens: TokenIds = (),
        top_logprobs: int = 0,
        record: Record | None = None,
        date: str = "",
        prompt_ids: dict[str, list[int]] | None = None,
    ) -> Request:
        prompt, date = checked_prompt(prompt), check_date(date) or self.policy_set.now()
        sampler = Sampler(sampling, seed)
        given = check_tokens(self.policy_set, tokens)
        begun = [place for place in steered if place <= len(given)]
        mixture = steered[max(begun)] if begun else mixture
        policies = self.policy_set.rows_of(mixture, trace)
        others = [*steered.values(), *(record.mixtures.values() if record else ())]
        for other in others:
            policies += [
                policy
                for policy in self.policy_set.rows_of(other, False)
                if policy.name not in [one.name for one in policies]
            ]
        prompt_ids = prompt_ids or self.check_prompt(prompt, len(given) + sampling.max_new_tokens, date=date)
        if isinstance(prompt, TokenPrompt):
            needed = [name for one in (mixture, *others) for name in one.needs]
            policies = check_readable(self.policy_set, prompt, prompt_ids, policies, needed)
            rewards = False
        check_biased(self.policy_set, sampling)
        if sampling.particles > 1:
            check_particles(mixture, sampling, len(policies), self.max_rows)
            if steered:
                raise InputError("particles: a response that was steered is drawn token by token; give 1 particle")
        deadline = None if time_limit is None else time.monotonic() + time_limit
        sequence = Sequence(
            *(prompt, mixture, sampling, sampler, policies, prompt_ids, given),
            trace=self._read_again(prompt, given, policies, date) if trace else [{} for _ in given],
            drawn_with=[steered.get(0, mixture)] * len(given),
            mixture_schedule=steered,
            prefix_length=len(given),
            n_top_logprobs=top_logprobs,
            record=record,
            date=date,
        )
        return Request(self._scheduler, sequence, seed, rewards, deadline)

    def _read_again(
        self, prompt: Prompt, tokens: list[int], policies: list[Policy], date: str
    ) -> list[dict[str, float]]:
        """Return the trace of tokens that were given rather than drawn; it has no log-probs of a soup."""
        if not tokens:
            return []
        known = [policy.name for policy in policies if policy.name in self.policy_set.by_name]
        found = self._scheduler.run(lambda: self.policy_set.teacher_forced(prompt, tokens, date, known))
        return [{name: found[name][place] for name in known} for place in range(len(tokens))]

    def stream(self, prompt: Prompt, weights: Mapping[str, float] | None = None, **settings: Any) -> Stream:
        """Return an iterator over the tokens of a response as they are drawn.

        `.steer(weights=, rule=, gain=)` changes the mixture of the tokens to come. Leaving the iteration, or calling
        `.cancel()`, stops the response. The arguments are those of `generate`. Raises InputError.
        """
        date = settings.pop("date", "")
        return Stream(self.submit(prompt, *self._settings(weights, settings), date=date))

    def generate(self, prompt: Prompt, weights: Mapping[str, float] | None = None, **settings: Any) -> Completion:
        """Generate a response and return it when it is complete.

        Args:
            prompt: a text, or messages {"role": "user" or "assistant", "content": text} that alternate, the first and
                the last being the user's.
            weights: {policy: weight}; see `mixture`.
            settings: rule, gain and exponent of the mixture; seed and date (see `submit`); and the fields of
                `Sampling`.

        Raises:
            InputError: an argument is not valid.
        """
        date = settings.pop("date", "")
        return self.submit(prompt, *self._settings(weights, settings), date=date).completion()

    def generate_batch(
        self, prompts: list[str], mixture: Mixture, sampling: Sampling, seeds: list[int]
    ) -> list[Completion]:
        """Return a response to every prompt, decoded together and without traces; rewards are computed in batches."""
        client = object()
        requests = [
            self.submit(prompt, mixture, sampling, seed, trace=False, rewards=False, client=client)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        completions = [request.completion() for request in requests]
        rewards = self.rewards([(c.prompt, c.text, c.tokens) for c in completions])
        for completion, scored in zip(completions, rewards, strict=True):
            completion.score(scored)
        return completions

    def prompt_warning(self, prompt: Prompt) -> str:
        """Return a one-line warning for a prompt that is far from the configuration's own, otherwise "".

        The first call measures the configuration's prompts. Raises InputError.
        """
        prompt = check_messages(prompt)
        self.check_prompt(prompt, 1)
        return self._familiarity.warning(prompt)

    def rewards(self, items: list[Scored], objectives: Collection[str] | None = None) -> list[Rewards]:
        """Return {objective: reward} for every item.

        Args:
            items: tuples (prompt, response, token ids of the response or None).
            objectives: the rewards to compute; all of them if None.

        Returns:
            One `Rewards` per item. A reward that cannot be computed is absent, with the reason in `Rewards.missing`.
        """
        return self._scheduler.score(items, objectives)

    def close(self) -> None:
        """Stop the worker; running responses are cut off with finish_reason 'stopped'."""
        self._scheduler.close()

    def release(self) -> None:
        """Close the engine and free the models, even while references to the engine remain."""
        self.close()
        self._scheduler.release()
        self.policy_set.release()
        self.reward_set.release()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settings(self, weights: Mapping[str, float] | None, settings: dict[str, Any]) -> tuple[Mixture, Sampling, int]:
        seed = settings.pop("seed", 0)
        mixing = {key: settings.pop(key) for key in ("rule", "gain", "exponent") if key in settings}
        try:
            return self.mixture(weights, **mixing), Sampling(**settings), seed
        except TypeError as error:
            raise InputError(f"settings: {error}") from None


__all__ = ["REFERENCE", "Completion", "Engine", "Request", "Stream", "Token"]
