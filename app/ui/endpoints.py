"""The page's endpoints for programs, which its view "Use via API" lists and `gradio_client` calls.

Gradio reads the type of what a function returns from the function itself, so annotations are not postponed here.
"""

import asyncio
import inspect
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr

from app.schemas.endpoint_arguments import (
    GenerateArguments,
    MixtureArguments,
    RateArguments,
    ScoreArguments,
    SolveArguments,
    read_arguments,
)
from app.services.app_state import Desk
from app.services.endpoint_calls import EndpointCalls
from app.services.endpoint_runs import PANEL
from app.services.visitor import session, visitor_of
from engine import InputError, Sampling

log = logging.getLogger("mixdesk")

EVERY = 0.1  # seconds between two results of a stream
FAILED = "The engine failed at this; its log says why. Try again."


class Endpoints:
    """The functions behind the endpoints. Each raises gr.Error with one line if its arguments are wrong."""

    def __init__(self, desk: Desk) -> None:
        self.calls = EndpointCalls(desk)

    def build(self) -> None:
        """Add the endpoints to the page that is being built, before handlers of the same names are added."""
        for endpoint in (
            self.generate,
            self.stream,
            self.score,
            self.expected_rewards,
            self.solve,
            self.rate,
            self.mixtures,
        ):
            gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=None)
        blocks = gr.context.Context.root_block
        assert blocks is not None
        for function in blocks.fns.values():
            describe_arguments(function.fn, function.inputs, function.outputs)
        blocks.unload(self.leave)

    def leave(self, request: gr.Request) -> None:
        """Stop what is under way for a client that has gone."""
        self.calls.runs.leave(session(request))

    async def generate(
        self,
        request: gr.Request,
        prompt: str,
        history: list[dict[str, str]] | None = None,
        weights: dict[str, float] | None = None,
        mixture: str = "",
        rule: str | None = None,
        gain: float | None = None,
        exponent: float | None = None,
        max_new_tokens: int = Sampling.max_new_tokens,
        temperature: float = Sampling.temperature,
        top_k: int = Sampling.top_k,
        top_p: float = Sampling.top_p,
        min_p: float = Sampling.min_p,
        repetition_penalty: float = Sampling.repetition_penalty,
        particles: int = Sampling.particles,
        seed: int | None = None,
        stop: list[str] | None = None,
    ) -> dict[str, Any]:
        """Generate a response from a mixture of the policies, and score it.

        It returns the response's id for `rate`, its text, tokens, seed and finish_reason, the mixture, and the rewards
        of all objectives: rewards in their own units, standard_rewards in standard deviations from the reference.

        Args:
            request: the client's.
            prompt: the text that is answered.
            history: the messages before it, with the keys role and content, which alternate from user to assistant.
            weights: {policy: weight}, normalised to sum to one; all policies alike if left out.
            mixture: the name of a saved mixture, of a policy, or reference, instead of weights.
            rule: how the policies are combined; `mixtures` lists the rules.
            gain: from 0 (the reference) over 1 (the mixture) to 10.
            exponent: of the rule that takes one.
            max_new_tokens: the most tokens of the response.
            temperature: from 0 (the likeliest token) to 10.
            top_k: keep only the k likeliest tokens; 0 is off.
            top_p: keep only the likeliest tokens whose probabilities sum to p; 1 is off.
            min_p: keep only tokens at least p times as likely as the likeliest; 0 is off.
            repetition_penalty: above 1 makes tokens of the response so far less likely.
            particles: above 1, sample from the exact mixture of whole responses.
            seed: the same seed draws the same response; a new one if left out.
            stop: texts, up to 16, at the first of which the response ends, without it.
        """
        async with aclosing(self.follow(request, arguments_of(locals()))) as results:
            async for result in results:
                latest = result
        return latest

    async def stream(
        self,
        request: gr.Request,
        prompt: str,
        history: list[dict[str, str]] | None = None,
        weights: dict[str, float] | None = None,
        mixture: str = "",
        rule: str | None = None,
        gain: float | None = None,
        exponent: float | None = None,
        max_new_tokens: int = Sampling.max_new_tokens,
        temperature: float = Sampling.temperature,
        top_k: int = Sampling.top_k,
        top_p: float = Sampling.top_p,
        min_p: float = Sampling.min_p,
        repetition_penalty: float = Sampling.repetition_penalty,
        particles: int = Sampling.particles,
        seed: int | None = None,
        stop: list[str] | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Generate a response, and return its text so far several times a second.

        Each result has the text so far, and ahead: the number of requests before it in the queue, null once it is
        generated. The last result is that of `generate`. The arguments are those of `generate`.
        """
        async with aclosing(self.follow(request, arguments_of(locals()))) as results:
            async for latest in results:
                yield latest

    async def score(
        self, request: gr.Request, prompt: str, response: str, history: list[dict[str, str]] | None = None
    ) -> dict[str, Any]:
        """Score a response that is given: its log-probability under every policy, and its rewards.

        It returns log_probs, the sums over the response's tokens; rewards in their own units; standard_rewards in
        standard deviations from the reference; and missing_rewards with the reason for each.

        Args:
            request: the client's.
            prompt: the text that is answered.
            response: the text that answers it.
            history: the messages before the prompt, with the keys role and content.
        """
        given = arguments_of(locals())
        who, address = sender(request)
        return await on_thread(lambda: self.calls.score(read_arguments(ScoreArguments, **given), who, address))

    async def expected_rewards(
        self,
        weights: dict[str, float] | None = None,
        mixture: str = "",
        rule: str | None = None,
        gain: float | None = None,
    ) -> dict[str, Any]:
        """Estimate the rewards that a mixture's responses have on average, from the bank, without generating.

        It returns rewards in their own units; standard_rewards in standard deviations from the reference, with their
        standard_errors; and reliable, which is false if too few responses of the bank are like the mixture's.

        Args:
            weights: {policy: weight}, normalised to sum to one; all policies alike if left out.
            mixture: the name of a saved mixture, of a policy, or reference, instead of weights.
            rule: a bank knows only the rule that multiplies distributions, which is the default.
            gain: from 0 (the reference) over 1 (the mixture) to 10.
        """
        given = arguments_of(locals())
        return await on_thread(lambda: self.calls.expected_rewards(read_arguments(MixtureArguments, **given)))

    async def solve(
        self,
        method: str = "",
        fixed: dict[str, float] | None = None,
        floors: dict[str, float] | None = None,
        worth: dict[str, float] | None = None,
        gain: float = 1.0,
    ) -> dict[str, Any]:
        """Find weights that are fair to all objectives, from the bank, as Balance does on the page.

        It returns the weights with their standard errors; expected, the rewards in standard deviations from the
        reference; and better, weights that are expected to be better in all objectives, if there are any.

        Args:
            method: `mixtures` lists the methods; the first if left out.
            fixed: {policy: the weight that it keeps}.
            floors: {objective: standard deviations}: find the most reward above these floors instead.
            worth: how much each objective counts in that, {objective: factor}; 1 for those that are not named.
            gain: the gain that the mixture will have.
        """
        given = arguments_of(locals())
        return await on_thread(lambda: self.calls.solve(read_arguments(SolveArguments, **given)))

    async def rate(
        self, request: gr.Request, left: str, right: str, choice: str, annotator: str, rating_id: str = ""
    ) -> dict[str, Any]:
        """Store which of two responses to one prompt is better.

        It returns the rating's id, and new: whether it was stored now. A rating that is sent twice is stored once.

        Args:
            request: the client's.
            left: the id of a response that `generate` or `stream` returned to this client.
            right: the id of another one, to the same prompt.
            choice: left, right, tie or both_bad.
            annotator: who rates: 1 to 100 letters, digits, or any of _ . @ -
            rating_id: the rating's id; made from the responses and the annotator if left out.
        """
        given = arguments_of(locals())
        who, address = sender(request)
        return await on_thread(lambda: self.calls.rate(read_arguments(RateArguments, **given), who, address))

    async def mixtures(self) -> dict[str, Any]:
        """List what the other endpoints can name.

        It returns the configuration's name, its policies, objectives, rules and methods, and the saved mixtures with
        their weights, rule, gain and exponent.
        """
        return await on_thread(self.calls.describe)

    async def follow(self, request: gr.Request, given: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the text so far of a new response, and at the end all that there is to know of it."""
        who, address = sender(request)
        run = await on_thread(lambda: self.calls.begin(read_arguments(GenerateArguments, **given), who, address))
        try:
            async for _ in run.updates(EVERY):
                if not run.done:
                    yield {"text": run.texts[PANEL], "ahead": run.ahead}
            response = run.responses[PANEL]
            if response.completion is None:
                raise client_error(response.error)
            yield self.calls.finish(response.completion, who, address)
        finally:
            # Also when the job is cancelled or its client has gone: the rows are free at the engine's next step.
            self.calls.runs.end(run)


# What a client receives is one of these at a time; their iterator has no type in JSON.
Endpoints.stream.__annotations__["return"] = dict[str, Any]


def arguments_of(names: dict[str, Any]) -> dict[str, Any]:
    """Return an endpoint's arguments from its local names, without itself and the request."""
    return {name: value for name, value in names.items() if name not in ("self", "request")}


def describe_arguments(endpoint: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Take what the view Use via API says of an endpoint's arguments from its docstring, or from that of `generate`."""
    texts = {**documented(Endpoints.generate), **documented(endpoint)}
    names = [name for name in inspect.signature(endpoint).parameters if name != "request"]
    for name, component in zip(names, inputs, strict=True):
        component.label = name
        component.api_info()["additional_description"] = texts[name][:1].upper() + texts[name][1:]
    for component in outputs:
        component.label = "result"


def documented(endpoint: Any) -> dict[str, str]:
    """Return {argument: description} of a docstring in Google's style, whose descriptions have one line each."""
    return dict(re.findall(r"^ {4}(\w+): (.+)$", inspect.getdoc(endpoint) or "", re.MULTILINE))


def sender(request: gr.Request) -> tuple[str, str]:
    """Return the session and the network address that sent a request."""
    return session(request), visitor_of(request).address


async def on_thread(call: Callable[[], Any]) -> Any:
    """Return what a call returns on another thread. Raises gr.Error with what the client is to know of its error."""
    try:
        return await asyncio.to_thread(call)
    except Exception as error:
        raise client_error(error) from None


def client_error(error: Exception | None) -> gr.Error:
    """Return the error for the client: an InputError's line. What else went wrong is in the log alone."""
    if isinstance(error, InputError):
        return gr.Error(str(error), print_exception=False)
    log.error("an endpoint failed", exc_info=error)
    return gr.Error(FAILED, print_exception=False)


def build_endpoints(desk: Desk) -> None:
    """Add the endpoints to the page that is being built."""
    Endpoints(desk).build()
