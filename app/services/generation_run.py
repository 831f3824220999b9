"""One press of Generate: the responses of its panels, their progress and their end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

from app.services.response_reader import Response
from engine import Completion, Mixture
from engine.messages import Prompt

log = logging.getLogger("mixdesk")

SIDES = ("left", "right", "third", "fourth")  # the panels; the first two are rated
RATED = SIDES[:2]
TIME_LIMIT = 120.0  # seconds: a response that takes longer ends as it is, and makes room for others
# Seconds without a reader after which a run is stopped: since the last one left, and since its start.
LEFT_FOR, UNREAD_FOR = 10.0, 30.0
PING = 15.0  # seconds after which readers get a sign of life: proxies cut streams that are silent for 30
TURN = 2.0  # seconds that a run waits at most for the one that it replaced


class Run:
    """Responses to one prompt, by panel. Their threads write to it; any thread may read it."""

    def __init__(self, prompt: Prompt, responses: Mapping[str, Response]) -> None:
        self.id = secrets.token_urlsafe(16)
        self.prompt = prompt
        self.responses: dict[str, Response] = {}
        self.browser, self.address = "", ""  # of the browser that may rate it
        self.choice: str | None = None  # what it was rated
        self.chosen: tuple[Response, int] | None = None  # the inspected token: its response and index
        self.turn = 0  # of the newest question that steered it
        self.readers = 0  # connections that its text is sent to
        self.replaced = False  # whether its session has asked for another since
        self.left = asyncio.Event()  # set when the event of the page that shows it has ended
        self.previous: asyncio.Event | None = None  # `left` of the run that it replaced
        self.used = time.monotonic()  # when it was last generated, read, steered or rated
        self._lines: list[str] = []  # what the page draws
        self._every: list[Response] = []  # also those whose panel has another by now
        self._listeners: list[Callable[[], None]] = []
        for side, response in responses.items():
            self.add(side, response)

    def add(self, side: str, response: Response) -> None:
        """Start a response in a panel; a response that is being written there is cancelled."""
        if side in self.responses:
            self.responses[side].request.cancel()
        self.responses[side] = response
        self.used = time.monotonic()
        number = len(self._every)
        self._every.append(response)
        self._lines.append(written([number, side]))
        response.read(lambda line: self._lines.append(written([number, line])), self._notify)

    @property
    def begun(self) -> int:
        """Number of responses so far, including replaced ones."""
        return len(self._every)

    @property
    def stage(self) -> str:
        """The run's id and number of responses; it changes when there is more to stream."""
        return f"{self.id} {self.begun}"

    @property
    def texts(self) -> dict[str, str]:
        """{panel: its text so far}."""
        return {side: response.text for side, response in self.responses.items()}

    @property
    def counts(self) -> dict[str, int]:
        """{panel: its number of tokens so far}."""
        return {side: response.count for side, response in self.responses.items()}

    @property
    def completions(self) -> dict[str, Completion]:
        """{panel: its completion}, of the finished panels."""
        made = {side: response.completion for side, response in list(self.responses.items())}
        return {side: completion for side, completion in made.items() if completion is not None}

    @property
    def done(self) -> bool:
        """True when all responses are over."""
        return all(response.over for response in list(self.responses.values()))

    @property
    def idle(self) -> bool:
        """True when it is done and its text is not being sent."""
        return self.done and not self.readers

    @property
    def ahead(self) -> int | None:
        """Number of requests before it in the engine's queue; None once it is being generated."""
        places = [response.request.ahead for response in list(self.responses.values())]
        return min(places) if min(places) >= 0 else None

    @property
    def rateable(self) -> bool:
        """True when both rated panels have a finished, non-empty response."""
        made = self.completions
        return all(side in made and made[side].tokens for side in RATED)

    @property
    def answered(self) -> list[str]:
        """The panels with a finished, non-blank response to reply to; empty while any response is under way."""
        return [side for side, made in self.completions.items() if made.text.strip()] if self.done else []

    def cancel(self) -> None:
        """Cancel all responses; their tokens so far are kept."""
        for response in list(self.responses.values()):
            response.request.cancel()

    async def wait_for_turn(self) -> None:
        """Wait until the event that shows the replaced run has ended: what came last is what the page shows."""
        if self.previous is not None:
            with contextlib.suppress(asyncio.TimeoutError):  # if its page was closed, nothing says so
                await asyncio.wait_for(self.previous.wait(), TURN)

    def stop_if_unread(self, after: float) -> None:
        """Cancel the run some seconds from now if it has no readers then. Called on the server's event loop."""

        def stop() -> None:
            if not self.readers and not self.done:
                self.cancel()

        asyncio.get_running_loop().call_later(after, stop)

    def steer(self, mixture: Mixture) -> None:
        """Switch the responses that follow the faders to this mixture.

        Raises:
            InputError: if the engine rejects the mixture.
        """
        self.used = time.monotonic()
        for response in list(self.responses.values()):
            response.steer(mixture)

    def lines(self, at: int = 0) -> list[str]:
        """Return the JSON lines for the page from number `at` on, in the order of events.

        For response number n, the lines are [n, panel] when it begins, then [n, line] with the lines that
        `Response.read` writes, or [n, {"note"}].
        """
        for number, response in enumerate(list(self._every)):
            if note := response.note():
                self._lines.append(written([number, {"note": note}]))
        return self._lines[at:]

    async def stream(self, at: int = 0, interval: float = 0.04) -> AsyncIterator[list[str]]:
        """Yield the new lines from number `at` on until all responses are over.

        While a response waits for its first token, an empty list is yielded every half second.
        """
        async for _ in self.updates(interval):
            lines = self.lines(at)
            at += len(lines)
            yield lines

    async def updates(self, interval: float = 0.04, sides: Collection[str] | None = None) -> AsyncIterator[None]:
        """Yield at once, then after changes, at most every `interval` seconds, and at the end.

        While a response waits in the queue or samples particles, it yields every half second, and otherwise every
        `PING` seconds if nothing changes.

        Args:
            interval: Minimum seconds between updates.
            sides: Panels whose current responses are watched. If None, all responses are, including later ones.
        """
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        mine = None if sides is None else [self.responses[side] for side in sides]

        def notify() -> None:
            # Waking the loop at every token would slow all sessions: unread updates are merged into one.
            # The loop is closed only when the app stops, and then nothing waits.
            if not (news.is_set() or loop.is_closed()):
                loop.call_soon_threadsafe(news.set)

        self._listeners.append(notify)
        try:
            news.set()
            finished = False
            while not finished:
                responses = list(self.responses.values()) if mine is None else mine
                begun = all(response.over or response.count > response.kept for response in responses)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), PING if begun else 0.5)
                news.clear()
                # Read first: what comes during the yield is news for another turn.
                finished = all(response.over for response in responses)
                yield
                if not finished:
                    await asyncio.sleep(interval)
        finally:
            self._listeners.remove(notify)

    def _notify(self) -> None:
        for notify in list(self._listeners):
            notify()


def written(line: Any) -> str:
    """Return a line as JSON with "<" escaped, so that it cannot contain an HTML tag."""
    return json.dumps(line).replace("<", "\\u003c")


def new_seed() -> int:
    """Return a random seed from 0 to 999,999."""
    return random.SystemRandom().randrange(1_000_000)
