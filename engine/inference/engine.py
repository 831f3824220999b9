"""The public API: submit prompts, stream and steer their responses, score them. Every method is thread-safe."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine.config import DEMO, REFERENCE, Config, load_config
from engine.config_errors import locate_error
from engine.errors import InputError
from engine.inference.completion import Completion, Token
from engine.inference.familiarity import Familiarity
from engine.inference.request import Request, Stream
from engine.inference.sampler import Sampler
from engine.inference.scheduler import Scheduler
from engine.inference.self_test import check_decoding
from engine.inference.sequence import Record, Sequence
from engine.inference.smc import check_particles
from engine.messages import Prompt, check_messages, messages_of
from engine.models.hub import check_hub
from engine.models.policy_set import Policy, PolicySet
from engine.rewards.missing import Rewards
from engine.rewards.reward_set import RewardSet
from engine.rewards.scorer import Scored
from engine.rules.mixture import Mixture
from engine.rules.registry import DEFAULT_RULE
from engine.rules.soup import SOUP
from engine.sampling import Sampling

TokenIds = list[int] | tuple[int, ...]
log = logging.getLogger("mixdesk")


class Engine:
    """All policies and rewards of a configuration, ready to generate. Thread-safe."""

    def __init__(self, config: Config, tell: Callable[[str], None] = log.debug) -> None:
        """tell: is told what is being loaded, as it begins. Raises InputError."""
        self.config = config
        try:
            self.policy_set = PolicySet(config, tell)
            self.reward_set = RewardSet(config.rewards, self.policy_set, tell)
            check_decoding(self.policy_set)
        except InputError as error:
            raise locate_error(config, error) from None
        self._scheduler = Scheduler(self.policy_set, self.reward_set)
        self._familiarity = Familiarity(self.policy_set, config, self._scheduler.run)

    @classmethod
    def from_config(cls, file: str | Path = DEMO) -> Engine:
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
        """Return a checked mixture of this engine's policies. Raises InputError."""
        return self.policy_set.mixture(weights, rule, gain, exponent)

    @property
    def notes(self) -> list[str]:
        """What there is to know of the policies, a sentence each: also in the log, from loading."""
        return self.policy_set.notes

    @property
    def max_rows(self) -> int:
        """The number of rows (sequences times their policies) that are decoded together at most."""
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
        """How often the worker has recovered from an unexpected error."""
        return self._scheduler.restarts

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
        candidates: int = 0,
        date: str = "",
    ) -> Request:
        """Ask for a response. Raises InputError.

        trace: compute every policy, so that each token has a log-prob of each; else only those that the mixture needs.
        client: who asks; where there is a queue, clients take turns. Whoever names none is a client of their own.
        time_limit: seconds from now after which the response ends as it is, with finish_reason 'time'.
        steered: {token's place: mixture from there on}, as a completion that was steered has it: generates it again,
        unless it was steered between a soup and another rule, where the soup has read the past in another way.
        record: is filled in while the response is drawn; the policies of its mixtures are computed too.
        tokens: what the response begins with; max_new_tokens come after them. With a trace they are read once more.
        candidates: with each token keep so many of the likeliest under each policy; above 0 it costs memory and time.
        date: of a completion that is generated again, where the chat template writes today's; now unless given.
        """
        request = self._request(
            *(prompt, mixture, sampling or Sampling(), seed, trace, rewards, time_limit),
            steered=steered or {},
            tokens=tokens,
            candidates=candidates,
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
        candidates: int = 0,
    ) -> list[Request]:
        """Ask for several responses to one prompt, each with its own sampling or all with one. They begin together, and
        the prompt is read once. Raises InputError, and then asks for none."""
        samplings = sampling if isinstance(sampling, list) else [sampling] * len(mixtures)
        requests = [
            self._request(prompt, *asked, time_limit=time_limit, candidates=candidates)
            for asked in zip(mixtures, samplings, seeds, strict=True)
        ]
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
        candidates: int = 0,
        record: Record | None = None,
        date: str = "",
    ) -> Request:
        prompt, date = check_messages(prompt), check_date(date) or self.policy_set.now()
        sampler = Sampler(sampling, seed)
        given = self._check_tokens(tokens)
        begun = [place for place in steered if place <= len(given)]
        mixture = steered[max(begun)] if begun else mixture
        policies = self.policy_set.rows_of(mixture, trace)
        for other in (*steered.values(), *(record.mixtures.values() if record else ())):
            policies += [
                policy for policy in self.policy_set.rows_of(other, False) if policy.name not in names(policies)
            ]
        prompt_ids = self.check_prompt(prompt, len(given) + sampling.max_new_tokens, date=date)
        if sampling.particles > 1:
            check_particles(mixture, sampling, len(policies), self.max_rows)
            if steered:
                raise InputError("particles: a response that was steered is drawn token by token; give 1 particle")
        deadline = None if time_limit is None else time.monotonic() + time_limit
        sequence = Sequence(
            *(prompt, mixture, sampling, sampler, policies, prompt_ids, given),
            trace=self._read_again(prompt, given, policies, date) if trace else [{} for _ in given],
            drawn_with=[steered.get(0, mixture)] * len(given),
            plan=steered,
            begins_with=len(given),
            keep=candidates,
            record=record,
            date=date,
        )
        return Request(self._scheduler, sequence, seed, rewards, deadline)

    def _check_tokens(self, tokens: TokenIds) -> list[int]:
        """Raises InputError for what no response can begin with."""
        size = len(self.policy_set.tokenizer)
        for token in tokens:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < size:
                raise InputError(f"tokens: found {token}; give token ids from 0 to {size - 1}")
            if token in self.policy_set.stop_ids:
                raise InputError(f"tokens: {token} ends a response; give those before it")
        return list(tokens)

    def _read_again(
        self, prompt: Prompt, tokens: list[int], policies: list[Policy], date: str
    ) -> list[dict[str, float]]:
        """The trace of tokens that were not drawn; a soup's part is unknown."""
        if not tokens:
            return []
        found = self._scheduler.run(lambda: self.policy_set.teacher_forced(prompt, tokens, date))
        known = [name for name in names(policies) if name in found]
        return [{name: found[name][place] for name in known} for place in range(len(tokens))]

    def stream(self, prompt: Prompt, weights: Mapping[str, float] | None = None, **settings: Any) -> Stream:
        """Tokens as they are drawn, steered by `.steer(weights=, rule=, gain=)`; the settings are those of `generate`.
        Leaving the iteration, and `.cancel()`, stop the response."""
        date = settings.pop("date", "")
        return Stream(self.submit(prompt, *self._settings(weights, settings), date=date))

    def generate(self, prompt: Prompt, weights: Mapping[str, float] | None = None, **settings: Any) -> Completion:
        """A whole response. prompt: a text, or messages {"role": "user" or "assistant", "content": text} that take
        turns, the user's first and last. Settings: rule, gain, exponent; seed; date (see `submit`); those of
        Sampling."""
        date = settings.pop("date", "")
        return self.submit(prompt, *self._settings(weights, settings), date=date).completion()

    def generate_batch(
        self, prompts: list[str], mixture: Mixture, sampling: Sampling, seeds: list[int]
    ) -> list[Completion]:
        """A response to every prompt, computed together and without traces; rewards are computed in batches."""
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

    def token_log_probs(self, prompt: Prompt, response: str | list[int], date: str = "") -> dict[str, list[float]]:
        """{policy or "reference": log-probs of the response's tokens}, teacher-forced. A text is read as a whole
        response, its end of turn included; token ids are taken as they are. date: see `submit`."""
        prompt, date = check_messages(prompt), check_date(date)
        self.check_prompt(prompt, 1)
        tokens = self.policy_set.response_ids(response) if isinstance(response, str) else response
        if not tokens:
            raise InputError("response: it is empty; give some text or tokens")
        self.check_prompt(prompt, len(tokens), "the response's")
        return self._scheduler.run(lambda: self.policy_set.teacher_forced(prompt, tokens, date))

    def prompt_warning(self, prompt: Prompt) -> str:
        """Return one line on a prompt that is far from the configuration's own; empty where it is not.

        The first call measures the configuration's prompts. Raises InputError.
        """
        prompt = check_messages(prompt)
        self.check_prompt(prompt, 1)
        return self._familiarity.warning(prompt)

    def rewards(self, items: list[Scored], objectives: Collection[str] | None = None) -> list[Rewards]:
        """{objective: reward} of every (prompt, response, its tokens or None), of these objectives or of all. A reward
        that cannot be computed is left out, and `missing` of its row says why."""
        return self._scheduler.score(items, objectives)

    def check_prompt(self, prompt: Prompt, room: int, whose: str = "new", date: str = "") -> dict[str, list[int]]:
        """{policy: token ids of the prompt as it reads it}. Raises InputError if the prompt is empty, has messages of
        wrong roles, or does not fit the models with `room` more tokens."""
        prompt = check_messages(prompt)
        # Far too long to fit whatever the tokenizer makes of it: not worth reading.
        length = sum(len(message["content"]) for message in messages_of(prompt))
        if length > 64 * self.policy_set.context:
            raise InputError(
                f"prompt: it is {length:,} characters long, and these models hold {self.policy_set.context:,} "
                "tokens; shorten it"
            )
        prompt_ids = self.policy_set.read(self.policy_set.policies, prompt, date)
        longest = max(len(ids) for ids in prompt_ids.values())
        if longest + room > self.policy_set.context:
            longer = "" if isinstance(prompt, str) else ", or leave out turns"
            raise InputError(
                f"prompt: it is {longest:,} tokens long, and these models hold {self.policy_set.context:,}, of which "
                f"{room:,} are for {whose} tokens; shorten the prompt or the response{longer}"
            )
        # A soup reads what the reference reads.
        return {**prompt_ids, SOUP: prompt_ids[REFERENCE]}

    def close(self) -> None:
        """Stop the worker. Running responses end as they are."""
        self._scheduler.close()

    def release(self) -> None:
        """Close the engine and free the models, whatever still refers to it."""
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


def check_date(date: str) -> str:
    """Raises InputError for what is no date of a completion."""
    try:
        return date and datetime.fromisoformat(date).isoformat(timespec="seconds")
    except (TypeError, ValueError):
        raise InputError(f"date: found {str(date)[:40]!r}; give one such as 2026-01-31T12:00:00") from None


def names(policies: list[Policy]) -> list[str]:
    """Return the policies' names."""
    return [policy.name for policy in policies]


__all__ = ["REFERENCE", "Completion", "Engine", "Request", "Stream", "Token"]
