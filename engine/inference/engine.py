"""Engine: one worker thread owns the policies, one the rewards; anyone may submit, stream, steer and cancel."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from engine.config import DEMO, REFERENCE, Config, load_config
from engine.config_errors import located
from engine.errors import InputError
from engine.inference.batch import Batch
from engine.inference.completion import Completion, Token
from engine.inference.fair_queue import FairQueue
from engine.inference.familiarity import Familiarity
from engine.inference.request import Request, Stream
from engine.inference.reward_worker import Scoring
from engine.inference.sampler import Sampler
from engine.inference.self_test import check
from engine.inference.sequence import Record, Sequence
from engine.inference.smc import check_particles
from engine.messages import Prompt, check_messages, messages_of
from engine.models.hub import check_hub
from engine.models.policy_set import Policy, PolicySet
from engine.rewards.missing import Rewards
from engine.rewards.reward_set import RewardSet
from engine.rewards.scorer import Scored
from engine.rules.mixture import Mixture, make_mixture
from engine.rules.registry import SOUP
from engine.sampling import Sampling

T = TypeVar("T")
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
            check(self.policy_set)
        except InputError as error:
            raise located(config, error) from None
        self._batch = Batch(self.policy_set)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        self._waiting: FairQueue[Request] = FairQueue()
        self._running: dict[Request, None] = {}  # in the order in which they joined
        self._scoring = Scoring(self.reward_set, self.policy_set, self._jobs.put)
        self._familiarity = Familiarity(self.policy_set, config, self._on_worker)
        self.restarts = 0  # how often the worker had to begin again
        self._worker = threading.Thread(target=self._work, name="mixdesk-engine", daemon=True)
        self._worker.start()

    @classmethod
    def from_config(cls, file: str | Path = DEMO) -> Engine:
        config = load_config(file)
        check_hub(config)
        return cls(config)

    # ---------------------------------------- what callers use

    def mixture(
        self,
        weights: Mapping[str, float] | None = None,
        rule: str = "geometric",
        gain: float = 1.0,
        exponent: float = 1.0,
    ) -> Mixture:
        """A checked mixture of this engine's policies. Raises InputError."""
        mixture = make_mixture(weights, self.policy_set.names, rule, gain, exponent)
        if rule == SOUP:
            self.policy_set.soup(mixture.weights)
        return mixture

    @property
    def notes(self) -> list[str]:
        """What there is to know of the policies, a sentence each: also in the log, from loading."""
        return self.policy_set.notes

    @property
    def max_rows(self) -> int:
        """How many rows (a sequence's policies) fit into the batch."""
        return self._batch.max_rows

    @property
    def busy(self) -> bool:
        """Whether any response is under way, or waits for its turn."""
        return bool(self._running or self._scoring.responses) or self.waiting > 0

    @property
    def waiting(self) -> int:
        """How many requests wait for room in the batch."""
        return len(self._waiting)

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
        self._put(lambda: self._waiting.put(request if client is None else client, request))
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

        def put() -> None:
            for request in requests:
                self._waiting.put(request if client is None else client, request)

        self._put(put)
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
        return Request(self, sequence, seed, rewards, deadline)

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
        found = self._on_worker(lambda: self.policy_set.teacher_forced(prompt, tokens, date))
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
        return self._on_worker(lambda: self.policy_set.teacher_forced(prompt, tokens, date))

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
        if self._closed:
            raise RuntimeError("the engine is closed")
        return self._scoring.score(items, self._on_worker, objectives)

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
        """Stop the worker. Responses under way end as they are."""
        self._closed = True
        self._jobs.put(None)
        self._worker.join()
        self._scoring.close()

    def release(self) -> None:
        """Close, and let go of the models, whoever still holds the engine."""
        self.close()
        self._batch = Batch(self.policy_set)
        self.policy_set.release()
        self.reward_set.release()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------- the worker's side

    def _settings(self, weights: Mapping[str, float] | None, settings: dict[str, Any]) -> tuple[Mixture, Sampling, int]:
        seed = settings.pop("seed", 0)
        mixing = {key: settings.pop(key) for key in ("rule", "gain", "exponent") if key in settings}
        try:
            return self.mixture(weights, **mixing), Sampling(**settings), seed
        except TypeError as error:
            raise InputError(f"settings: {error}") from None

    def _put(self, job: Callable[[], None]) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")
        self._jobs.put(job)

    def _on_worker(self, call: Callable[[], T]) -> T:
        """Run a call between two steps, on the thread that owns the models."""
        future: Future[T] = Future()

        def job() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        self._put(job)
        return future.result()

    def _work(self) -> None:
        """The worker's whole life. Whatever goes wrong, those who wait are told, and it begins again."""
        while True:
            try:
                while self._take_jobs():
                    self._step()
                return self._end_all()
            except BaseException as error:
                log.exception("the engine's worker begins again")
                self.restarts += 1
                self._begin_again(error)

    def _take_jobs(self) -> bool:
        """Do what was asked since the last step; with nothing under way, wait for something. False at the end."""
        while True:
            idle = not self._running and not self._scoring.due and not len(self._waiting)
            try:
                job = self._jobs.get(block=idle)
            except queue.Empty:
                return True
            if job is None:
                return False
            try:
                job()
            except Exception:
                log.exception("something that was asked of the engine failed")

    def _step(self) -> None:
        """Let in those that wait, as far as there is room, and draw one token for everybody."""
        now = time.monotonic()
        for request in list(self._running):
            if request._deadline is not None and now > request._deadline:
                self._end(request, "time")
        joining: list[Sequence] = []
        while len(self._waiting):
            # Of particles some may be finished, when they are here again.
            sequences = [seq for seq in self._waiting.peek()._sequences if seq.finish_reason is None]
            if (self._running or joining) and not self._batch.fits([*joining, *sequences]):
                break
            self._running[self._waiting.pop()] = None
            joining += sequences
        failure: Exception | None = None
        try:
            if joining:
                self._batch.join(joining)
                # To read prompts takes as long as a few tokens: what was asked meanwhile need not wait for one more.
                if not self._take_jobs():
                    self._jobs.put(None)
            if self._running:
                # While the tokens are read, those who wait for them have them: they see each a step earlier.
                self._batch.step(self._hand_over_all)
            for request in self._running:
                if request._particles:
                    request._particles.resample(self._batch)
        except Exception as error:
            failure = error
        self._hand_over_all(resampled=True)
        if isinstance(failure, torch.OutOfMemoryError):
            self._make_do(failure)
        elif failure is not None:
            self._sort_out(failure)
        self._scoring.go_on()

    def _hand_over_all(self, resampled: bool = False) -> None:
        """resampled: particles too, which may be finished then."""
        for request in list(self._running):
            if resampled or not request._particles:
                self._hand_over(request)

    def _hand_over(self, request: Request) -> None:
        """Give out the new tokens, and the whole when they are the last."""
        if request._particles and not self._chosen(request):
            return
        sequence = request._sequence
        if sequence.error is None:
            try:
                request._emit()
            except Exception as error:
                sequence.error, sequence.finish_reason = error, "error"
        if sequence.finish_reason is not None:
            self._finish(request)

    def _chosen(self, request: Request) -> bool:
        """Whether a request's particles are finished; one of them is its response then."""
        particles = request._particles
        assert particles is not None
        if particles.error is not None:
            self._batch.take_out(particles.sequences)
            request._sequence.error, request._sequence.finish_reason = particles.error, "error"
        elif particles.finished:
            request._sequence = particles.choose()
        return particles.finished or particles.error is not None

    def _finish(self, request: Request) -> None:
        self._running.pop(request, None)
        request._tokens.put(None)
        if request._sequence.error is not None:
            request._future.set_exception(request._sequence.error)
        elif request._with_rewards:
            self._scoring.begin(request)
        else:
            request._finish(Rewards(), self.policy_set)

    def _end(self, request: Request, reason: str) -> None:
        """End a response as it is, and free its rows at once."""
        for seq in request._sequences:
            seq.finish_reason = seq.finish_reason or reason
        self._batch.leave()
        if request._particles:
            request._sequence = request._particles.choose()
        self._finish(request)

    def _stop(self, request: Request) -> None:
        if self._waiting.remove(request) or request in self._running:
            self._end(request, "stopped")

    def _steer(self, request: Request, mixture: Mixture) -> None:
        sequence = request._sequence
        if sequence.finish_reason is not None:
            return
        sequence.mixture = mixture
        sequence.plan = {}
        missing = [name for name in mixture.needs if name not in sequence.names]
        if not missing:
            return
        # What was not computed so far joins with all that has been said.
        sequence.policies = [
            *sequence.policies,
            *(p for p in self.policy_set.rows_of(mixture, False) if p.name in missing),
        ]
        if request in self._running:
            self._batch.take_out([sequence])
            del self._running[request]
            self._waiting.put(request, request, first=True)

    def _end_all(self) -> None:
        waiting = []
        while len(self._waiting):
            waiting.append(self._waiting.pop())
        for request in [*self._running, *waiting]:
            self._end(request, "stopped")
        while self._scoring.responses:
            self._scoring.go_on()
            # What is computed apart comes as a job.
            if self._scoring.responses and not self._scoring.due and (job := self._jobs.get()):
                job()

    # ---------------------------------------- when something goes wrong

    def _put_back(self, requests: list[Request]) -> None:
        """An empty batch, and these before all others in the queue; they go on where they were."""
        self._batch = Batch(self.policy_set, self._batch.max_rows, self._batch.memory)
        self._running.clear()
        for request in reversed(requests):
            self._waiting.put(request, request, first=True)

    def _make_do(self, error: Exception) -> None:
        """Out of memory: half as many at once from now on."""
        running = list(self._running)
        if not running:
            self._put_back([])
            return
        rows = max(self._batch.rows, sum(len(seq.policies) for request in running for seq in request._sequences))
        if len(running) == 1:
            self._put_back([])
            sequence = running[0]._sequence
            sequence.error = InputError(
                f"out of memory: one response of {len(sequence.policies)} policies and up to {sequence.longest:,} "
                "tokens does not fit; shorten the prompt or the response, or mix fewer policies"
            )
            self._finish(running[0])
            return
        log.warning("out of memory with %d rows: no more than %d at once from now on (%s)", rows, rows // 2, error)
        self._batch.max_rows = max(1, rows // 2)
        self._put_back(running)

    def _sort_out(self, error: Exception) -> None:
        """A step failed: whoever fails alone as well is told, the others go on."""
        log.error("a step failed: %s; its requests are tried one by one", error)
        running, sound = list(self._running), []
        for request in running:
            request._trials += 1
            try:
                if len(running) == 1 or request._trials > 3:
                    raise error
                trial = Batch(self.policy_set)
                trial.join([seq for seq in request._sequences if seq.finish_reason is None])
                sound.append(request)
            except Exception as own:
                request._sequence.error = own
        self._put_back(sound)
        for request in running:
            if request._sequence.error is not None:
                self._finish(request)

    def _begin_again(self, error: BaseException) -> None:
        """What was under way failed with the worker; what waits goes on."""
        running = list(self._running)
        self._put_back([])
        for request in running:
            if not request._future.done():
                request._tokens.put(None)
                request._future.set_exception(RuntimeError(f"the engine had to begin again: {error}"))


def check_date(date: str) -> str:
    """Raises InputError for what is no date of a completion."""
    try:
        return date and datetime.fromisoformat(date).isoformat(timespec="seconds")
    except (TypeError, ValueError):
        raise InputError(f"date: found {str(date)[:40]!r}; give one such as 2026-01-31T12:00:00") from None


def names(policies: list[Policy]) -> list[str]:
    return [policy.name for policy in policies]


__all__ = ["REFERENCE", "Completion", "Engine", "Request", "Stream", "Token"]
