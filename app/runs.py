"""What goes on behind the desk: a few responses at once for every session, and what happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app import plots
from app.comparisons import Comparisons
from app.expected import Expected
from app.mirror import Mirror
from app.responses import CANDIDATES, Response
from app.store import Store
from engine import Completion, Engine, InputError, Mixture, Sampling
from engine.messages import Prompt

log = logging.getLogger("mixdesk")

SIDES = ("left", "right", "third", "fourth")  # the panels; the first two are rated
RATED = SIDES[:2]
TIME_LIMIT = 120.0  # seconds: a response that takes longer ends as it is, and makes room for others


class Run:
    """Responses to one prompt, by panel, under way or finished. Threads fill them in; any thread may read it."""

    def __init__(self, prompt: Prompt, responses: Mapping[str, Response]) -> None:
        self.id = secrets.token_urlsafe(16)
        self.prompt = prompt
        self.responses: dict[str, Response] = {}
        self.choice: str | None = None  # what it was rated
        self.chosen: tuple[Response, int] | None = None  # the token that somebody looks at: whose, and its place
        self.turn = 0  # of the newest question that steered it
        self.readers = 0  # connections that its text is sent to
        self.replaced = False  # whether its session has asked for another since
        self._lines: list[str] = []  # what the page draws
        self._every: list[Response] = []  # also those whose panel has another by now
        self._listeners: list[Callable[[], None]] = []
        for side, response in responses.items():
            self.add(side, response)

    def add(self, side: str, response: Response) -> None:
        """Let it be written in this panel; what was being written there ends."""
        if side in self.responses:
            self.responses[side].request.cancel()
        self.responses[side] = response
        number = len(self._every)
        self._every.append(response)
        self._lines.append(written([number, side]))
        response.read(lambda line: self._lines.append(written([number, line])), self._tell)

    @property
    def begun(self) -> int:
        """How many responses it has had."""
        return len(self._every)

    @property
    def stage(self) -> str:
        """Which run this is, and how many responses it has had: another when there is more to stream."""
        return f"{self.id} {self.begun}"

    @property
    def texts(self) -> dict[str, str]:
        return {side: response.text for side, response in self.responses.items()}

    @property
    def counts(self) -> dict[str, int]:
        return {side: response.count for side, response in self.responses.items()}

    @property
    def completions(self) -> dict[str, Completion]:
        """Of the panels that are finished."""
        made = {side: response.completion for side, response in list(self.responses.items())}
        return {side: completion for side, completion in made.items() if completion is not None}

    @property
    def done(self) -> bool:
        return all(response.over for response in list(self.responses.values()))

    @property
    def ahead(self) -> int | None:
        """How many are before it in the engine's queue; None once it is under way."""
        places = [response.request.ahead for response in list(self.responses.values())]
        return min(places) if min(places) >= 0 else None

    @property
    def rateable(self) -> bool:
        made = self.completions
        return all(side in made and made[side].tokens for side in RATED)

    @property
    def answered(self) -> list[str]:
        """The panels with a response that a conversation can go on from; none while any is under way."""
        return [side for side, made in self.completions.items() if made.text.strip()] if self.done else []

    def cancel(self) -> None:
        for response in list(self.responses.values()):
            response.request.cancel()

    def steer(self, mixture: Mixture) -> None:
        """Let those that follow the faders go on with this. Raises InputError."""
        for response in list(self.responses.values()):
            response.steer(mixture)

    def lines(self, at: int = 0) -> list[str]:
        """What the page draws, from this line on: JSON, a line for each thing that it learns, in that order.

        For response number n: [n, panel] when it begins, and then [n, what Response.read writes], or [n, {"note"}].
        """
        for number, response in enumerate(list(self._every)):
            if note := response.note():
                self._lines.append(written([number, {"note": note}]))
        return self._lines[at:]

    async def stream(self, at: int = 0, interval: float = 0.04) -> AsyncIterator[list[str]]:
        """The lines from `at` on, as often as there are new ones, until all responses are over; none at all every half
        second in which a response is waited for."""
        async for _ in self.updates(interval):
            lines = self.lines(at)
            at += len(lines)
            yield lines

    async def updates(self, interval: float = 0.04, sides: Collection[str] | None = None) -> AsyncIterator[None]:
        """Yields at once, then at most every `interval` seconds while there is news, and at the end; every half second
        while it waits for its turn, or draws particles.

        sides: of the responses that are in these panels now; else of all, also of those that come later.
        """
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        mine = None if sides is None else [self.responses[side] for side in sides]

        def tell() -> None:
            # To wake the loop at every token would cost everybody: news that it has not heard yet are one.
            # It is closed only when the app goes down, and then nobody waits for any.
            if not (news.is_set() or loop.is_closed()):
                loop.call_soon_threadsafe(news.set)

        self._listeners.append(tell)
        try:
            news.set()
            finished = False
            while not finished:
                responses = list(self.responses.values()) if mine is None else mine
                begun = all(response.over or response.count > response.kept for response in responses)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), None if begun else 0.5)
                news.clear()
                # Read first: what comes during the yield is news for another turn.
                finished = all(response.over for response in responses)
                yield
                if not finished:
                    await asyncio.sleep(interval)
        finally:
            self._listeners.remove(tell)

    def _tell(self) -> None:
        for tell in list(self._listeners):
            tell()


@dataclass
class Desk:
    """What the tabs share: the engine, the store, the bank, and the newest run of every session."""

    engine: Engine
    store: Store
    runs: dict[str, Run] = field(default_factory=dict)
    mirror: Mirror | None = None  # where copies of the ratings go
    warning: str = ""  # what the page's owner should know
    expected: Expected = field(init=False)
    comparisons: Comparisons = field(init=False)
    # Steer.follow of the desk's page; known once that is built.
    follow: Callable[[str, int, list[Any]], Awaitable[dict[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self.expected = Expected(self.engine)
        self.comparisons = Comparisons(self.store)

    @property
    def colours(self) -> dict[str, str]:
        """{objective: its accent colour}, the same everywhere."""
        policies = [policy.objective for policy in self.engine.config.policies]
        every = dict.fromkeys([*policies, *self.engine.reward_set.objectives])
        return {objective: plots.colour(i) for i, objective in enumerate(every)}

    @property
    def accents(self) -> dict[str, str]:
        """{policy: its objective's accent colour}"""
        colours = self.colours
        return {policy.name: colours[policy.objective] for policy in self.engine.config.policies}

    @property
    def busy(self) -> bool:
        """Whether something is at work for somebody: the engine, a bank, a comparison."""
        return self.engine.busy or self.expected.sampling or bool(self.comparisons.jobs)

    def close(self) -> None:
        """Stop all that is under way."""
        self.comparisons.close()
        self.engine.close()

    def release(self) -> None:
        """Close, and let go of the models."""
        self.comparisons.close()
        self.engine.release()

    @property
    def policies(self) -> list[str]:
        return [policy.name for policy in self.engine.config.policies]

    def find(self, id: str) -> Run | None:
        """The run with this id, if it is its session's newest."""
        return next((run for run in list(self.runs.values()) if run.id == id), None)

    def start(
        self,
        session: str,
        prompt: Prompt,
        mixtures: dict[str, Mixture],
        sampling: Sampling | Mapping[str, Sampling],
        seed: int,
        steerable: Collection[str] = (),
    ) -> Run:
        """Ask for the responses; they take the place of the session's last ones. Raises InputError.

        sampling: of all, or of each panel. steerable: the panels that follow the faders. Each panel has a seed of its
        own, `seed` and the ones after it: drawn alike, mixtures that are near each other give the very same text, and
        there is nothing to compare.
        """
        self.stop(session)
        requests = self.engine.submit_all(
            prompt,
            list(mixtures.values()),
            sampling if isinstance(sampling, Sampling) else [sampling[side] for side in mixtures],
            [seed + i for i in range(len(mixtures))],
            client=session,
            time_limit=TIME_LIMIT,
            candidates=CANDIDATES,
        )
        responses = [
            Response(request, self.policies, side in steerable)
            for side, request in zip(mixtures, requests, strict=True)
        ]
        if before := self.runs.get(session):
            before.replaced = True
        run = self.runs[session] = Run(prompt, dict(zip(mixtures, responses, strict=True)))
        return run

    def branch(self, session: str, side: str, mixture: Mixture, sampling: Sampling, seed: int) -> Run:
        """Let the response that is looked at go on in another panel, from before the chosen token, as the faders say.
        Raises InputError."""
        run = self.runs.get(session)
        if run is None or run.chosen is None:
            raise InputError("Nothing is chosen to go on from: click a token of a response first.")
        before, place = run.chosen
        request = self.engine.submit(
            *(run.prompt, mixture, sampling, seed),
            client=session,
            time_limit=TIME_LIMIT,
            tokens=before.tokens[:place],
            candidates=CANDIDATES,
        )
        run.add(side, Response(request, self.policies, True, before, place))
        return run

    def stop(self, session: str) -> None:
        """Stop what is under way for the session; what there is of it is kept."""
        self.expected.leave(session)
        if run := self.runs.get(session):
            run.cancel()

    def rate(self, session: str, rating_id: str, choice: str, annotator: str) -> bool:
        """Store what the session's person says of what they see. False if it was stored before. Raises InputError."""
        run = self.runs.get(session)
        if run is None:
            raise InputError("rating: there is nothing to rate yet; press Generate first")
        if not run.rateable:
            raise InputError("rating: both responses must be there; wait for them, or stop them")
        if run.choice is not None:
            return False
        new = self.store.rate(
            rating_id,
            run.completions["left"],
            run.completions["right"],
            choice,
            annotator,
            model=self.engine.config.name,
        )
        run.choice = choice
        if new:
            self.copy(rating_id)
        return new

    def copy(self, rating_id: str) -> None:
        """Let a rating that is stored be pushed, where ratings are."""
        if self.mirror:
            self.mirror.add(self.store.pair(rating_id))

    def warm_up(self) -> None:
        """Take the bank, and generate a little that nobody sees: what is done once is done before the first click."""
        self.expected.load()
        try:
            self.engine.generate("Hello", max_new_tokens=2)
            self.engine.prompt_warning("Hello")  # measures the configuration's own prompts
        except Exception:
            log.exception("the engine could not be warmed up")
        threading.Thread(target=self.expected.calibrate, name="mixdesk-calibration", daemon=True).start()

    def forget(self, session: str) -> None:
        """The person has left."""
        self.stop(session)
        self.runs.pop(session, None)


def written(line: Any) -> str:
    """A line of JSON. No tag can be in it, though nothing reads it as HTML."""
    return json.dumps(line).replace("<", "\\u003c")


def session(request: gr.Request) -> str:
    """Whose page it is."""
    return str(request.session_hash)


def new_seed() -> int:
    return random.SystemRandom().randrange(1_000_000)
