"""Engine: one worker thread owns the models; anyone may submit, stream, steer and cancel."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from engine.batch import Batch, Sequence
from engine.config import DEMO, REFERENCE, Config, load_config
from engine.errors import InputError
from engine.mixing import Mixture, make_mixture
from engine.policies import PolicySet
from engine.rewards import RewardSet, Scored
from engine.sampling import Sampler, Sampling

T = TypeVar("T")


@dataclass(frozen=True)
class Token:
    """One token as it was drawn. text is what it adds to the response; log_probs {policy: log-prob of this token}."""

    id: int
    text: str
    log_probs: dict[str, float]


@dataclass(frozen=True)
class Completion:
    """A response with all that is needed to generate it again, and its rewards {objective: float}."""

    prompt: str
    text: str
    tokens: list[int]
    mixture: Mixture
    sampling: Sampling
    seed: int
    finish_reason: str  # end, length or stopped
    trace: list[dict[str, float]] = field(repr=False)
    rewards: dict[str, float] = field(default_factory=dict)

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
        }


class Request:
    """A response that was asked for. Iterate over it for its tokens; `completion()` waits for the whole."""

    def __init__(self, engine: Engine, sequence: Sequence, seed: int, rewards: bool) -> None:
        self._engine = engine
        self._sequence = sequence
        self._seed = seed
        self._with_rewards = rewards
        self._tokens: queue.SimpleQueue[Token | None] = queue.SimpleQueue()
        self._future: Future[Completion] = Future()
        self._written = ""

    def __iter__(self) -> Iterator[Token]:
        while (token := self._tokens.get()) is not None:
            yield token
        self._tokens.put(None)  # whoever iterates again is at the end at once
        if self._future.done() and (error := self._future.exception()):
            raise error

    def completion(self, timeout: float | None = None) -> Completion:
        return self._future.result(timeout)

    def cancel(self) -> None:
        """Stop after the token under way; the completion holds what there is, with finish_reason 'stopped'."""
        self._engine._jobs.put(lambda: self._engine._stop(self))

    def steer(self, mixture: Mixture) -> None:
        """Draw the tokens to come from another mixture of the same policies."""
        if missing := [name for name in mixture.needs if name not in self._sequence.names]:
            raise InputError(f"weights: {', '.join(missing)} does not run in this request; submit it with trace=True")
        self._sequence.mixture = mixture

    def _emit(self, policy_set: PolicySet) -> None:
        """Hand over the newest token. Bytes of an unfinished character wait for the token that finishes it."""
        sequence = self._sequence
        text = policy_set.text(sequence.tokens)
        if text.endswith("\ufffd") and sequence.finish_reason is None:
            text = self._written
        added, self._written = text[len(self._written) :], text
        self._tokens.put(Token(sequence.tokens[-1], added, sequence.trace[-1]))

    def _finish(self, rewards: dict[str, float], policy_set: PolicySet) -> None:
        sequence = self._sequence
        self._future.set_result(
            Completion(
                prompt=sequence.prompt,
                text=policy_set.text(sequence.tokens),
                tokens=sequence.tokens,
                mixture=sequence.mixture,
                sampling=sequence.sampling,
                seed=self._seed,
                finish_reason=sequence.finish_reason or "stopped",
                trace=sequence.trace,
                rewards=rewards,
            )
        )


class Engine:
    """All policies and rewards of a configuration, ready to generate. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.policy_set = PolicySet(config)
        self.reward_set = RewardSet(config.rewards, self.policy_set)
        self._batch = Batch(self.policy_set)
        self._jobs: queue.SimpleQueue[Request | Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        self._waiting: list[Request] = []
        self._running: dict[int, Request] = {}
        self._worker = threading.Thread(target=self._work, name="mixdesk-engine", daemon=True)
        self._worker.start()

    @classmethod
    def from_config(cls, file: str | Path = DEMO) -> Engine:
        return cls(load_config(file))

    # ---------------------------------------- what callers use

    def mixture(
        self,
        weights: Mapping[str, float] | None = None,
        rule: str = "geometric",
        gain: float = 1.0,
        exponent: float = 1.0,
    ) -> Mixture:
        """A checked mixture of this engine's policies. Raises InputError."""
        return make_mixture(weights, self.policy_set.names, rule, gain, exponent)

    def submit(
        self,
        prompt: str,
        mixture: Mixture,
        sampling: Sampling | None = None,
        seed: int = 0,
        trace: bool = True,
        rewards: bool = True,
    ) -> Request:
        """Ask for a response. trace: compute every policy, so that each token has a log-prob of each and the mixture
        can be steered anywhere; else only the policies that have weight. Raises InputError."""
        sampling = sampling or Sampling()
        sampler = Sampler(sampling, seed)
        self.check_prompt(prompt, sampling.max_new_tokens)
        policies = [policy for policy in self.policy_set.policies if trace or policy.name in mixture.needs]
        request = Request(self, Sequence(prompt, mixture, sampling, sampler, policies), seed, rewards)
        self._put(request)
        return request

    def stream(self, prompt: str, weights: Mapping[str, float] | None = None, **settings: Any) -> Iterator[Token]:
        """Tokens as they are drawn; the settings are those of `generate`. Leaving the iteration stops the response."""
        request = self.submit(prompt, *self._settings(weights, settings))
        try:
            yield from request
        finally:
            request.cancel()

    def generate(self, prompt: str, weights: Mapping[str, float] | None = None, **settings: Any) -> Completion:
        """A whole response. Settings: rule, gain, exponent; max_new_tokens, temperature, top_k, top_p, min_p; seed."""
        return self.submit(prompt, *self._settings(weights, settings)).completion()

    def generate_batch(
        self, prompts: list[str], mixture: Mixture, sampling: Sampling, seeds: list[int]
    ) -> list[Completion]:
        """A response to every prompt, computed together and without traces; rewards are computed in batches."""
        requests = [
            self.submit(prompt, mixture, sampling, seed, trace=False, rewards=False)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        completions = [request.completion() for request in requests]
        rewards = self.rewards([(c.prompt, c.text, c.tokens) for c in completions])
        for completion, scored in zip(completions, rewards, strict=True):
            completion.rewards.update(scored)
        return completions

    def token_log_probs(self, prompt: str, response: str | list[int]) -> dict[str, list[float]]:
        """{policy or "reference": log-probs of the response's tokens}, teacher-forced. A text is read as a whole
        response, its end of turn included; token ids are taken as they are."""
        self.check_prompt(prompt, 1)
        tokens = self.policy_set.response_ids(response) if isinstance(response, str) else response
        if not tokens:
            raise InputError("response: it is empty; give some text or tokens")
        self.check_prompt(prompt, len(tokens), "the response's")
        return self._on_worker(lambda: self.policy_set.teacher_forced(prompt, tokens))

    def rewards(self, items: list[Scored]) -> list[dict[str, float]]:
        """{objective: reward} of every (prompt, response, its tokens or None)."""
        return self._on_worker(lambda: self.reward_set.score(items))

    def check_prompt(self, prompt: str, room: int, whose: str = "new") -> None:
        """Raises InputError if the prompt is empty, or does not fit the models with `room` more tokens."""
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError("prompt: it is empty; type a question or pick an example")
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise InputError("prompt: it holds half a character (a lone surrogate); type it again") from None
        # Far too long to fit whatever the tokenizer makes of it: not worth reading.
        if len(prompt) > 64 * self.policy_set.context:
            raise InputError(
                f"prompt: it is {len(prompt):,} characters long, and these models hold {self.policy_set.context:,} "
                "tokens; shorten it"
            )
        longest = max(len(self.policy_set.prompt_ids(policy, prompt)) for policy in self.policy_set.policies)
        if longest + room > self.policy_set.context:
            raise InputError(
                f"prompt: it is {longest:,} tokens long, and these models hold {self.policy_set.context:,}, of which "
                f"{room:,} are for {whose} tokens; shorten the prompt or the response"
            )

    def close(self) -> None:
        """Stop the worker. Responses under way end as they are."""
        self._closed = True
        self._jobs.put(None)
        self._worker.join()

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

    def _put(self, job: Request | Callable[[], None]) -> None:
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
        while True:
            idle = not self._running and not self._waiting
            try:
                # With nothing under way wait for a job; else take those that are there, and step.
                while True:
                    job = self._jobs.get(block=idle)
                    if job is None:
                        self._end_all()
                        return
                    if isinstance(job, Request):
                        self._waiting.append(job)
                    else:
                        job()
                    idle = idle and not self._waiting
                    if idle:
                        continue
            except queue.Empty:
                pass
            try:
                self._step()
            except Exception as error:
                self._fail_all(error)

    def _step(self) -> None:
        """Let in those that wait, as far as there is room, and draw one token for everybody."""
        joining, room = [], self._batch.room()
        while self._waiting and (not self._running or len(self._waiting[0]._sequence.policies) <= room):
            request = self._waiting.pop(0)
            room -= len(request._sequence.policies)
            joining.append(request._sequence)
            self._running[id(request._sequence)] = request
        if joining:
            self._batch.join(joining)
        for sequence in self._batch.step():
            request = self._running[id(sequence)]
            request._emit(self.policy_set)
            if sequence.finish_reason is not None:
                self._finish(request)

    def _finish(self, request: Request) -> None:
        del self._running[id(request._sequence)]
        request._tokens.put(None)
        sequence, rewards = request._sequence, {}
        if request._with_rewards:
            try:
                rewards = self.reward_set.score(
                    [(sequence.prompt, self.policy_set.text(sequence.tokens), sequence.tokens)]
                )[0]
            except Exception as error:
                request._future.set_exception(error)
                return
        request._finish(rewards, self.policy_set)

    def _stop(self, request: Request) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
            self._running[id(request._sequence)] = request
        if id(request._sequence) in self._running:
            request._sequence.finish_reason = "stopped"
            self._finish(request)

    def _end_all(self) -> None:
        for request in [*self._running.values(), *self._waiting]:
            self._stop(request)

    def _fail_all(self, error: Exception) -> None:
        """A step that failed takes with it what was under way; the engine goes on with an empty batch."""
        self._batch = Batch(self.policy_set)
        for request in self._running.values():
            request._future.set_exception(error)
            request._tokens.put(None)
        self._running.clear()


__all__ = ["REFERENCE", "Completion", "Engine", "Request", "Token"]
