"""A response that is being generated: its tokens as they are drawn, steering, cancelling, its completion."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING

from engine.errors import InputError
from engine.inference.detokenizer import Detokenizer
from engine.inference.finish_reason import FinishReason
from engine.inference.sequence import Sequence
from engine.inference.smc import Particles
from engine.inference.stop_strings import start_of_new, without_beginnings
from engine.rules.mixture import Mixture
from engine.sampling import Sampling

if TYPE_CHECKING:
    from engine.inference.scheduler import Scheduler
    from engine.rewards.missing import Rewards
from engine.inference.completion import Completion, Token


class Request:
    """A submitted response. Iterating over it yields its tokens; `completion()` waits for the whole response.

    With particles all tokens arrive at the end, since resampling may drop any particle until then.
    """

    def __init__(
        self, scheduler: Scheduler, sequence: Sequence, seed: int, rewards: bool, deadline: float | None
    ) -> None:
        self._scheduler = scheduler
        self.sequence = sequence  # with particles the chosen one, once they are all finished
        self.particles = Particles(sequence, seed) if sequence.sampling.particles > 1 else None
        self.group: object = None  # of clients that share their part of the batch; None without limit
        self.make_mixture: Callable[..., Mixture] = scheduler.policy_set.mixture
        self._target = sequence.mixture  # what it is to be drawn from, by all that was asked so far
        self._seed = seed
        self.with_rewards = rewards
        self.deadline = deadline  # on time.monotonic's clock
        self._tokens: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # places of tokens that are there
        self._future: Future[Completion] = Future()
        self._published = 0  # tokens that were published
        self.failed_steps = 0  # steps that failed while it was in the batch
        self.submitted, self.first_token_due = time.monotonic(), True

    def __iter__(self) -> Iterator[Token]:
        policy_set = self._scheduler.policy_set
        detokenizer = Detokenizer(policy_set.text)
        stop = self.sampling.stop
        new = start_of_new(policy_set, self.sequence.tokens[: self.sequence.prefix_length]) if stop else 0
        given = settled = ""  # the text of the tokens that were handed out, and what further tokens cannot change
        kept: tuple[int, str] | None = None  # a token whose text may grow, and the text up to it that is visible
        while (place := self._tokens.get()) is not None:
            if kept is not None:
                yield self._token(kept[0], kept[1][len(given) :])
                given = kept[1]
            tokens = self.sequence.tokens[: place + 1]
            text = detokenizer.text(tokens)
            visible = settled = policy_set.chat.settled(text, tokens, settled)
            if stop:
                visible = without_beginnings(settled, stop, new)[: self.sequence.text_end]
            if visible == text:
                yield self._token(place, text[len(given) :])
                kept, given = None, text
                detokenizer.settle(tokens)
            else:
                kept = place, visible
        if kept is not None:  # it ended within a character or a stop string
            yield self._token(kept[0], self.text[len(given) :])
        self._tokens.put(None)  # another iteration ends at once
        if self._future.done() and (error := self._future.exception()):
            raise error

    def completion(self, timeout: float | None = None) -> Completion:
        """Wait for the whole response and return it.

        Args:
            timeout: seconds to wait; without limit if None.

        Raises:
            concurrent.futures.TimeoutError: the response is not complete in time.
            Exception: the error that made the response fail.
        """
        return self._future.result(timeout)

    @property
    def ahead(self) -> int:
        """The number of requests ahead of this one in the queue; -1 once it has left the queue."""
        return self._scheduler.queue.ahead(self)

    def cancel(self) -> None:
        """Stop after the token that is being computed; the completion has the tokens so far.

        Its finish_reason is 'stopped'.
        """
        self._scheduler.stop(self)

    def steer(
        self,
        weights: Mapping[str, float] | None = None,
        rule: str | None = None,
        gain: float | None = None,
        exponent: float | None = None,
    ) -> None:
        """Draw the next tokens from another mixture; arguments that are None keep their values. Raises InputError."""
        now = self._target
        self.steer_to(
            self.make_mixture(
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
        if missing := [name for name in mixture.needs if name not in self.sequence.prompt_ids]:
            raise InputError(f"steer: {', '.join(missing)} cannot read this prompt of token ids; set its weight to 0")
        self._target = mixture
        self._scheduler.steer(self, mixture)

    @property
    def sampling(self) -> Sampling:
        """The sampling settings of the response."""
        return self.sequence.sampling

    @property
    def text(self) -> str:
        """The text of the tokens so far, which ends before a stop string that ended the response."""
        return self._scheduler.policy_set.text(self.sequence.tokens)[: self.sequence.text_end]

    @property
    def drawn(self) -> int:
        """The number of tokens drawn so far; with particles, that of the longest."""
        return max(len(seq.tokens) - seq.prefix_length for seq in self.sequences)

    @property
    def sequences(self) -> list[Sequence]:
        """The sequences that the batch decodes for this request: one, or one per particle."""
        return self.particles.sequences if self.particles else [self.sequence]

    def _token(self, place: int, text: str) -> Token:
        """Return a token with the text that it adds. Runs on the consumer's thread, to keep the worker free."""
        sequence = self.sequence
        drawn = place - sequence.prefix_length
        top_logprobs = sequence.top_logprobs[drawn] if sequence.top_logprobs and drawn >= 0 else None
        return Token(
            *(sequence.tokens[place], text, sequence.trace[place], sequence.drawn_with[place]),
            log_prob=sequence.log_probs[drawn] if drawn >= 0 else None,
            top_logprobs=top_logprobs,
        )

    @property
    def done(self) -> bool:
        """Whether the response is complete or has failed."""
        return self._future.done()

    def publish(self) -> None:
        """Make the new tokens available to the iteration. Called by the worker."""
        sequence = self.sequence
        for place in range(self._published, len(sequence.tokens)):
            self._tokens.put(place)
        self._published = len(sequence.tokens)

    def close_stream(self) -> None:
        """End the iteration after the tokens published so far. Called by the worker."""
        self._tokens.put(None)

    def fail(self, error: BaseException) -> None:
        """Make `completion` raise an error. Called by the worker."""
        self._future.set_exception(error)

    def complete(self, rewards: Rewards) -> None:
        """Make `completion` return the response with these rewards. Called by the worker."""
        sequence = self.sequence
        drawn = sequence.drawn_with
        changes = {i: drawn[i] for i in range(len(drawn)) if i and drawn[i] != drawn[i - 1]}
        self._future.set_result(
            Completion(
                prompt=sequence.prompt,
                text=self.text,
                tokens=sequence.tokens,
                mixture=sequence.mixture,
                sampling=sequence.sampling,
                seed=self._seed,
                finish_reason=sequence.finish_reason or FinishReason.STOPPED,
                trace=sequence.trace,
                rewards=dict(rewards),
                missing_rewards=rewards.missing,
                steered={0: drawn[0], **changes} if changes else {},
                prefix_length=sequence.prefix_length,
                log_normaliser=self.particles.log_normaliser if self.particles else None,
                date=sequence.date,
                log_probs=sequence.log_probs,
            )
        )


class Stream:
    """An iterator over the tokens of a request as they are drawn; deleting it stops the response."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._tokens = iter(request)
        self.steer, self.cancel, self.completion = request.steer, request.cancel, request.completion

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Token:
        return next(self._tokens)

    def close(self) -> None:
        """Stop the response, as `cancel` does."""
        self.cancel()

    def __del__(self) -> None:
        self.request.cancel()


def wait(request: Request, stopped: Callable[[], bool]) -> Completion | None:
    """Return the completion of a request, or None as soon as stopped() is true."""
    while not stopped():
        try:
            return request.completion(timeout=0.1)
        except NotYet:
            continue
    return None
