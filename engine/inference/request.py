"""A response that is being generated: its tokens as they are drawn, steering, cancelling, its completion."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING

from engine.errors import InputError
from engine.inference.sequence import Sequence
from engine.inference.smc import Particles
from engine.rules.mixture import Mixture
from engine.sampling import Sampling

if TYPE_CHECKING:
    from engine.inference.scheduler import Scheduler
    from engine.rewards.missing import Rewards
from engine.inference.completion import Completion, Token


class Request:
    """A response that was asked for. Iterate over it for its tokens; `completion()` waits for the whole.

    With particles all tokens come at the end: until then any of them may be let go.
    """

    def __init__(
        self, scheduler: Scheduler, sequence: Sequence, seed: int, rewards: bool, deadline: float | None
    ) -> None:
        self._scheduler = scheduler
        self.sequence = sequence  # with particles the chosen one, once they are all finished
        self.particles = Particles(sequence, seed) if sequence.sampling.particles > 1 else None
        self._target = sequence.mixture  # what it is to be drawn from, by all that was asked so far
        self._seed = seed
        self.with_rewards = rewards
        self.deadline = deadline  # on time.monotonic's clock
        self._tokens: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # places of tokens that are there
        self._future: Future[Completion] = Future()
        self._published = 0  # tokens that were published
        self.failed_steps = 0  # steps that failed while it was in the batch

    def __iter__(self) -> Iterator[Token]:
        policy_set = self._scheduler.policy_set
        given = ""  # the text of the tokens that were handed out
        kept: tuple[int, str] | None = None  # a token whose text is not settled, and the text up to it that is
        while (place := self._tokens.get()) is not None:
            if kept is not None:
                yield self._token(kept[0], kept[1][len(given) :])
                given = kept[1]
            tokens = self.sequence.tokens[: place + 1]
            text = policy_set.text(tokens)
            settled = policy_set.chat.settled(text, tokens, given)
            if settled == text:
                yield self._token(place, text[len(given) :])
                kept, given = None, text
            else:
                kept = place, settled
        if kept is not None:  # it ended within a character
            yield self._token(kept[0], policy_set.text(self.sequence.tokens)[len(given) :])
        self._tokens.put(None)  # another iteration ends at once
        if self._future.done() and (error := self._future.exception()):
            raise error

    def completion(self, timeout: float | None = None) -> Completion:
        return self._future.result(timeout)

    @property
    def ahead(self) -> int:
        """How many come before it in the queue; -1 once it is under way or finished."""
        return self._scheduler.queue.ahead(self)

    def cancel(self) -> None:
        """Stop after the token under way; the completion holds what there is, with finish_reason 'stopped'."""
        self._scheduler.stop(self)

    def steer(
        self,
        weights: Mapping[str, float] | None = None,
        rule: str | None = None,
        gain: float | None = None,
        exponent: float | None = None,
    ) -> None:
        """Draw the tokens to come from another mixture; what is not given stays. Raises InputError."""
        now = self._target
        self.steer_to(
            self._scheduler.policy_set.mixture(
                now.weights if weights is None else weights,
                now.rule if rule is None else rule,
                now.gain if gain is None else gain,
                now.exponent if exponent is None else exponent,
            )
        )

    def steer_to(self, mixture: Mixture) -> None:
        """Draw the tokens to come from another of the engine's mixtures. Raises InputError."""
        if self.particles:
            raise InputError("steer: a response with particles is drawn from one mixture; give 1 particle to steer it")
        self._target = mixture
        self._scheduler.steer(self, mixture)

    @property
    def sampling(self) -> Sampling:
        return self.sequence.sampling

    @property
    def drawn(self) -> int:
        """Tokens that were drawn so far; with particles those of the longest."""
        return max(len(seq.tokens) - seq.begins_with for seq in self.sequences)

    @property
    def sequences(self) -> list[Sequence]:
        """What the batch draws for it."""
        return self.particles.sequences if self.particles else [self.sequence]

    def _token(self, place: int, text: str) -> Token:
        """A token with the text that it adds. It is read by who iterates: the worker has other things to do."""
        sequence = self.sequence
        drawn = place - sequence.begins_with
        candidates = sequence.candidates[drawn] if sequence.candidates and drawn >= 0 else None
        return Token(
            *(sequence.tokens[place], text, sequence.trace[place], sequence.drawn_with[place]), candidates=candidates
        )

    @property
    def done(self) -> bool:
        """Whether it has its completion, or has failed."""
        return self._future.done()

    def publish(self) -> None:
        """Worker: make the new tokens available to the iteration."""
        sequence = self.sequence
        for place in range(self._published, len(sequence.tokens)):
            self._tokens.put(place)
        self._published = len(sequence.tokens)

    def close_stream(self) -> None:
        """Worker: end the iteration; no token comes any more."""
        self._tokens.put(None)

    def fail(self, error: BaseException) -> None:
        """Worker: let `completion` raise this."""
        self._future.set_exception(error)

    def complete(self, rewards: Rewards) -> None:
        """Worker: give `completion` its result."""
        sequence = self.sequence
        drawn = sequence.drawn_with
        changes = {i: drawn[i] for i in range(len(drawn)) if i and drawn[i] != drawn[i - 1]}
        self._future.set_result(
            Completion(
                prompt=sequence.prompt,
                text=self._scheduler.policy_set.text(sequence.tokens),
                tokens=sequence.tokens,
                mixture=sequence.mixture,
                sampling=sequence.sampling,
                seed=self._seed,
                finish_reason=sequence.finish_reason or "stopped",
                trace=sequence.trace,
                rewards=dict(rewards),
                missing_rewards=rewards.missing,
                steered={0: drawn[0], **changes} if changes else {},
                begins_with=sequence.begins_with,
                log_normaliser=self.particles.log_normaliser if self.particles else None,
                date=sequence.date,
            )
        )


class Stream:
    """The tokens of a request as they are drawn. Letting go of it stops the response."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._tokens = iter(request)
        self.steer, self.cancel, self.completion = request.steer, request.cancel, request.completion

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Token:
        return next(self._tokens)

    def close(self) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.request.cancel()


def wait(request: Request, stopped: Callable[[], bool]) -> Completion | None:
    """Its completion; None once stopped() is true."""
    while not stopped():
        try:
            return request.completion(timeout=0.1)
        except NotYet:
            continue
    return None
