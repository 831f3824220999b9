"""What goes on behind the desk: two responses at once for every session, and what happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import gradio as gr

from app import plots
from app.comparisons import Comparisons
from app.expected import Expected
from app.mirror import Mirror
from app.store import Store
from engine import Completion, Engine, InputError, Mixture, Request, Sampling, Token

log = logging.getLogger("mixdesk")

SIDES = ("left", "right")
TIME_LIMIT = 120.0  # seconds: a response that takes longer ends as it is, and makes room for others


class Run:
    """Two responses to one prompt, under way or finished. `updates` fills it in; any thread may read it."""

    def __init__(self, requests: dict[str, Request]) -> None:
        self.requests = requests
        self.texts = dict.fromkeys(requests, "")
        self.counts = dict.fromkeys(requests, 0)
        self.completions: dict[str, Completion] = {}
        self.error: Exception | None = None
        self.choice: str | None = None  # what it was rated
        self._left = len(requests)

    @property
    def done(self) -> bool:
        return self._left == 0

    @property
    def ahead(self) -> int | None:
        """How many are before it in the engine's queue; None once it is under way."""
        places = [request.ahead for request in self.requests.values()]
        return min(places) if min(places) >= 0 else None

    @property
    def rateable(self) -> bool:
        return len(self.completions) == len(self.requests) and all(c.tokens for c in self.completions.values())

    def cancel(self) -> None:
        for request in self.requests.values():
            request.cancel()

    async def updates(self, interval: float = 0.04) -> AsyncIterator[None]:
        """Yields at the first token, then at most every `interval` seconds while there is news, and at the end; every
        half second while it waits for its turn.

        Leaving the iteration stops both responses.
        """
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        counting = threading.Lock()

        def tell() -> None:
            # The loop is closed only when the app goes down, and then nobody waits for news.
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.set)

        def read(side: str) -> None:
            try:
                for token in self.requests[side]:
                    self._add(side, token)
                    tell()
                completion = self.requests[side].completion()
                self.texts[side] = completion.text
                self.completions[side] = completion
            except Exception as error:
                self.error = error
            with counting:
                self._left -= 1
            tell()

        for side in self.requests:
            threading.Thread(target=read, args=[side], name=f"mixdesk-{side}", daemon=True).start()
        try:
            finished = False
            while not finished:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), None if any(self.counts.values()) else 0.5)
                news.clear()
                # Read first: what comes during the yield is news for another turn.
                finished = self.done
                yield
                if not finished:
                    await asyncio.sleep(interval)
        finally:
            if not self.done:
                self.cancel()
        if self.error is not None:
            raise self.error

    def _add(self, side: str, token: Token) -> None:
        self.texts[side] += token.text
        self.counts[side] += 1


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

    def __post_init__(self) -> None:
        self.expected = Expected(self.engine)
        self.comparisons = Comparisons(self.store)

    @property
    def colours(self) -> dict[str, str]:
        """{objective: its accent colour}, the same everywhere."""
        policies = [policy.objective for policy in self.engine.config.policies]
        every = dict.fromkeys([*policies, *self.engine.reward_set.objectives])
        return {objective: plots.colour(i) for i, objective in enumerate(every)}

    def start(self, session: str, prompt: str, mixtures: dict[str, Mixture], sampling: Sampling, seed: int) -> Run:
        """Ask for the responses; they take the place of the session's last ones. Raises InputError.

        Each side has a seed of its own, `seed` and the ones after it: drawn alike, mixtures that are near each other
        give the very same text, and there is nothing to compare.
        """
        self.stop(session)
        seeds = [seed + i for i in range(len(mixtures))]
        requests = self.engine.submit_all(
            prompt, list(mixtures.values()), sampling, seeds, client=session, time_limit=TIME_LIMIT
        )
        run = self.runs[session] = Run(dict(zip(mixtures, requests, strict=True)))
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
        except Exception:
            log.exception("the engine could not be warmed up")

    def forget(self, session: str) -> None:
        """The person has left."""
        self.stop(session)
        self.runs.pop(session, None)


def session(request: gr.Request) -> str:
    """Whose page it is."""
    return str(request.session_hash)


def new_seed() -> int:
    return random.SystemRandom().randrange(1_000_000)
