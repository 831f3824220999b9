"""One HTTP request's responses: queued together, waited for, cancelled when its client goes away."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.types import Receive

from engine.api.api_error import ApiError, bad_request, unavailable
from engine.config import REFERENCE
from engine.daemon_thread import on_daemon_thread
from engine.errors import EngineError, InputError, TooLongError
from engine.inference.completion import Completion, Token
from engine.inference.engine import Engine
from engine.inference.finish_reason import FinishReason
from engine.inference.request import Request
from engine.messages import Prompt
from engine.rules.mixture import Mixture
from engine.sampling import Sampling

T = TypeVar("T")
THREAD = "mixdesk-api"  # the name of threads that wait for an engine
CLOSED = "The engine is closing; try again in a few seconds."
BUSY = "{count} responses of yours are under way or wait, of {most}; try again when some are done"
# Of why a response ended, what OpenAI's clients know. Others are errors.
FINISHED = {
    FinishReason.END: "stop",
    FinishReason.STOP_STRING: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TIME: "length",
}
# Fields that the engine names in an error about a request that is well-formed, but not for these policies.
UNFIT = ("prompt", "tokens", "particles", "rule")


class Load:
    """How many responses each caller has under way; a caller with too many waits."""

    def __init__(self, most: int) -> None:
        """most: responses of a caller under way at once; one request alone is always served."""
        self.most = most
        self.running: Counter[str] = Counter()

    @contextlib.contextmanager
    def counted(self, caller: str, count: int) -> Iterator[None]:
        """Count responses of a caller until the block is left. Raises ApiError 429 if they are too many."""
        running = self.running[caller]
        if running and running + count > self.most:
            raise ApiError(429, BUSY.format(count=running, most=self.most), "rate_limit_exceeded", {"Retry-After": "2"})
        self.running[caller] += count
        try:
            yield
        finally:
            self.running[caller] -= count
            if not self.running[caller]:
                del self.running[caller]


@dataclass
class Call:
    """The responses that one HTTP request asks for.

    Attributes:
        engine: the engine.
        mixture: what the tokens are drawn from.
        client: the sender, for the engine's queue.
        requests: the engine's requests, by the index of their choice.
        prompt_tokens: the number of tokens of all prompts, as the reference reads them.
        gone: whether the client has gone away.
    """

    engine: Engine
    mixture: Mixture
    client: object
    requests: list[Request] = field(default_factory=list)
    prompt_tokens: int = 0
    gone: bool = False

    def read(self, prompt: Prompt, most: int | None) -> tuple[list[int], int]:
        """Return a prompt's token ids as the reference reads them, and the largest number of tokens to draw after it.

        Args:
            prompt: the prompt.
            most: the number of tokens that the client asks for; None for as many as there is room for.

        Raises:
            ApiError: the prompt is too long, or cannot be read.
        """
        with engine_errors():
            prompt_ids = self.engine.check_prompt(prompt, 0)
        context = self.engine.policy_set.context
        longest = max(len(ids) for ids in prompt_ids.values())
        room = context - longest
        needed = 1 if most is None else most
        if needed > room:
            raise bad_request(
                f"max_tokens: the prompt has {longest:,} tokens, and these models hold {context:,}, so that there is "
                f"room for {room:,}, not for {needed:,}; shorten the prompt or give less",
                "context_length_exceeded",
            )
        self.prompt_tokens += len(prompt_ids[REFERENCE])
        return prompt_ids[REFERENCE], room if most is None else most

    def submit(self, prompt: Prompt, sampling: Sampling, seeds: list[int], top_logprobs: int) -> None:
        """Queue a response to a prompt for each seed. Raises ApiError."""
        with engine_errors():
            self.requests += self.engine.submit_all(
                prompt,
                [self.mixture] * len(seeds),
                sampling,
                seeds,
                client=self.client,
                top_logprobs=top_logprobs,
                trace=False,
                rewards=False,
            )
        if self.gone:
            self.cancel()

    def cancel(self) -> None:
        """Stop all responses that are not complete: their rows are freed before the next token is drawn."""
        self.gone = True
        for request in list(self.requests):
            if not request.done:
                request.cancel()

    def collect(self, with_tokens: bool) -> list[tuple[Completion, list[Token]]]:
        """Wait for all responses; return each with its tokens if they are wanted. Raises ApiError."""
        return [(self.finish(request), list(request) if with_tokens else []) for request in self.requests]

    def finish(self, request: Request) -> Completion:
        """Wait for a response. Raises ApiError if the engine was closed meanwhile."""
        with engine_errors():
            completion = request.completion()
        if completion.finish_reason not in FINISHED and not self.gone:
            raise unavailable(CLOSED)
        return completion


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Turn the engine's errors within the block into those of the protocol."""
    try:
        yield
    except EngineError as error:
        raise unavailable(str(error)) from None
    except TooLongError as error:
        raise bad_request(str(error), "context_length_exceeded") from None
    except InputError as error:
        message = str(error)
        if not message.startswith(UNFIT):
            raise bad_request(message) from None
        raise ApiError(422, message, "not_supported_here") from None
    except CancelledError:
        raise unavailable(CLOSED) from None
    except RuntimeError as error:
        if "the engine is closed" not in str(error):
            raise
        raise unavailable(CLOSED) from None


def finish_name(completion: Completion) -> str:
    """Return why a response ended, in OpenAI's words."""
    return FINISHED.get(completion.finish_reason, "stop")


def usage_of(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """Return the numbers of tokens of an answer."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


async def until_gone(receive: Receive) -> None:
    """Return when a request's client has gone away; its body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(call: Call, work: Callable[[], T], receive: Receive) -> T | None:
    """Run work on a thread and return its result; None if the client goes away, whose responses are then cancelled."""
    gone = asyncio.ensure_future(until_gone(receive))
    done = asyncio.ensure_future(on_daemon_thread(work, THREAD))
    try:
        await asyncio.wait({gone, done}, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return done.result()
        return None
    finally:
        gone.cancel()
        done.cancel()
        call.cancel()
