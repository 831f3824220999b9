"""One press of Generate: its panels' responses, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

from app.services.response_reader import Response
from engine import Completion, Mixture
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


def written(line: Any) -> str:
    """A line of JSON. No tag can be in it, though nothing reads it as HTML."""
    return json.dumps(line).replace("<", "\\u003c")


def new_seed() -> int:
    """Return a random seed below one million."""
    return random.SystemRandom().randrange(1_000_000)
