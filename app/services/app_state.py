"""State shared by the desk's tabs, and the responses under way for every session."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from app import palette
from app.schemas.desk_state import MixtureState
from app.services.bank_service import Expected
from app.services.comparison_jobs import Comparisons
from app.services.generation_run import TIME_LIMIT, Run
from app.services.rate_limit import RateLimit
from app.services.response_reader import TOP_LOGPROBS, Response
from app.services.run_table import RunTable
from app.services.studies import Studies
from app.services.visitor import Visitor, browser_of, is_session_of
from app.storage.database import Store
from app.storage.hub_backup import Mirror
from app.storage.unrated import Unrated
from engine import Engine, InputError, Mixture, Sampling
from engine.messages import Prompt

log = logging.getLogger("mixdesk")

RATINGS = 60  # a minute from one network address


@dataclass
class Desk:
    """State that the tabs share: the engine, the store, the bank, and the newest run of every session."""

    engine: Engine
    store: Store
    runs: RunTable = field(default_factory=RunTable)
    mirror: Mirror | None = None  # where copies of the ratings go
    warning: str = ""  # what the page's owner should know
    hosted: bool = True  # whether there are visitors who do not own it
    sign_in: bool = False  # whether people can sign in with Hugging Face
    expected: Expected = field(init=False)
    comparisons: Comparisons = field(init=False)
    studies: Studies = field(init=False)
    unrated: Unrated = field(init=False)
    ratings: RateLimit = field(default_factory=lambda: RateLimit(RATINGS))
    # Steer.follow of the desk's page; known once that is built.
    follow: Callable[[str, int, MixtureState], Awaitable[dict[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self.expected = Expected(self.engine)
        self.comparisons = Comparisons(self.store)
        self.studies = Studies(self.store, self.comparisons)
        self.unrated = Unrated(self.store)

    @property
    def colours(self) -> dict[str, str]:
        """{objective: accent colour}, the same in all charts and controls."""
        policies = [policy.objective for policy in self.engine.config.policies]
        every = dict.fromkeys([*policies, *self.engine.reward_set.objectives])
        return {objective: palette.colour(i) for i, objective in enumerate(every)}

    @property
    def accents(self) -> dict[str, str]:
        """{policy: accent colour of its objective}."""
        colours = self.colours
        return {policy.name: colours[policy.objective] for policy in self.engine.config.policies}

    @property
    def busy(self) -> bool:
        """True while the engine, the sampling of a bank, or a comparison is at work."""
        return self.engine.busy or self.expected.sampling or bool(self.comparisons.jobs)

    def close(self) -> None:
        """Stop everything that is under way and close the engine."""
        self.comparisons.close()
        self.engine.close()

    def release(self) -> None:
        """Stop everything and free the models."""
        self.comparisons.close()
        self.engine.release()

    @property
    def policies(self) -> list[str]:
        """Names of the policies, in the configuration's order."""
        return [policy.name for policy in self.engine.config.policies]

    def find(self, id: str, visitor: Visitor | None = None) -> Run | None:
        """Return the run with this id if it is its session's newest, else None.

        Args:
            id: The run's id.
            visitor: If given, only a run of the visitor's own browser is returned.
        """
        for session, run in list(self.runs.items()):
            if run.id == id:
                return run if visitor is None or is_session_of(visitor, session) else None
        return None

    def start(
        self,
        session: str,
        prompt: Prompt,
        mixtures: dict[str, Mixture],
        sampling: Sampling | Mapping[str, Sampling],
        seed: int,
        steerable: Collection[str] = (),
        address: str = "",
    ) -> Run:
        """Submit the responses of a new run, which replaces the session's last one.

        Each panel has its own seed, `seed` and the following numbers: with the same seed, similar mixtures would
        produce identical text and there would be nothing to compare.

        Args:
            session: The browser session.
            prompt: The prompt, or a conversation.
            mixtures: {panel: mixture}.
            sampling: For all panels, or {panel: sampling}.
            seed: The first panel's seed.
            steerable: The panels that follow the faders.
            address: The session's network address; all sessions of an address share one turn in the engine's queue.

        Raises:
            InputError: if the engine rejects a request, or the desk has no room for another run.
        """
        self.runs.make_room(session, address)
        self.stop(session)
        requests = self.engine.submit_all(
            prompt,
            list(mixtures.values()),
            sampling if isinstance(sampling, Sampling) else [sampling[side] for side in mixtures],
            [seed + i for i in range(len(mixtures))],
            client=(address, session),
            time_limit=TIME_LIMIT,
            top_logprobs=TOP_LOGPROBS,
        )
        responses = [
            Response(request, self.policies, side in steerable)
            for side, request in zip(mixtures, requests, strict=True)
        ]
        run = Run(prompt, dict(zip(mixtures, responses, strict=True)))
        run.browser, run.address = browser_of(session), address
        if before := self.runs.get(session):
            before.replaced, run.previous = True, before.left
            before.cancel()  # again: it may have begun after `stop`
        self.runs[session] = run
        return run

    def branch(
        self, session: str, side: str, mixture: Mixture, sampling: Sampling, seed: int, address: str = ""
    ) -> Run:
        """Continue the inspected response in another panel, from before the chosen token, with this mixture.

        Raises:
            InputError: if no token is chosen, or the engine rejects the request.
        """
        run = self.runs.get(session)
        if run is None or run.chosen is None:
            raise InputError("No token is selected to continue from: click a token of a response first.")
        before, place = run.chosen
        request = self.engine.submit(
            *(run.prompt, mixture, sampling, seed),
            client=(address, session),
            time_limit=TIME_LIMIT,
            tokens=before.tokens[:place],
            top_logprobs=TOP_LOGPROBS,
        )
        run.add(side, Response(request, self.policies, True, before, place))
        return run

    def stop(self, session: str) -> None:
        """Stop what is under way for the session and keep the partial responses."""
        self.expected.leave(session)
        if run := self.runs.get(session):
            run.cancel()

    def rate(self, session: str, rating_id: str, choice: str, annotator: str, address: str = "") -> bool:
        """Store the session's rating of its first two responses.

        Returns:
            False if the run or this rating id was stored before.

        Raises:
            InputError: if the responses are not ready, the store rejects the rating, or too many came from `address`.
        """
        run = self.runs.get(session)
        if run is None:
            raise InputError("rating: there is nothing to rate yet; press Generate first")
        if not run.rateable:
            raise InputError("rating: both responses must be there; wait for them, or stop them")
        if run.choice is not None:
            return False
        self.check_rate(address)
        new = self.store.rate(
            rating_id,
            run.completions["left"],
            run.completions["right"],
            choice,
            annotator,
            model=self.engine.config.name,
            run=run.id,
        )
        run.choice, run.used = choice, time.monotonic()
        if new:
            self.copy(rating_id)
        return new

    def keep_unrated(self, run: Run) -> None:
        """Store a run's pair, so that it can be rated after a restart of the app."""
        try:
            done = run.completions
            self.unrated.keep(run.id, run.browser, done["left"], done["right"], self.engine.config.name)
        except sqlite3.Error:
            log.exception("a pair could not be kept for a rating after a restart")

    def rate_kept(self, run: str, browser: str, rating_id: str, choice: str, annotator: str, address: str) -> bool:
        """Store a rating of a pair that was kept, and return whether there is such a pair of this browser.

        Raises:
            InputError: if the store rejects the rating, or too many came from `address`.
        """
        found = self.unrated.find(run, browser)
        if found is None:
            return False
        self.check_rate(address)
        left, right, model = found
        if self.store.rate(rating_id, left, right, choice, annotator, model=model, run=run):
            self.copy(rating_id)
        return True

    def check_rate(self, address: str) -> None:
        """Raise InputError if too many ratings came from a network address."""
        if address and not self.ratings.allow(address):
            raise InputError(
                f"rating: more than {RATINGS} came from your address within a minute; try again in a minute"
            )

    def copy(self, rating_id: str) -> None:
        """Queue a stored rating for the copies on the Hub, if there are any."""
        if self.mirror:
            self.mirror.add(self.store.pair(rating_id))

    def warm_up(self) -> None:
        """Load the bank and generate two hidden tokens, so that one-time work is done before the first click."""
        self.expected.load()
        try:
            self.engine.generate("Hello", max_new_tokens=2)
            self.engine.prompt_warning("Hello")  # measures the configuration's own prompts
        except Exception:
            log.exception("the engine could not be warmed up")
        threading.Thread(target=self.expected.calibrate, name="mixdesk-calibration", daemon=True).start()

    def forget(self, session: str) -> None:
        """Stop and remove the run of a session that has ended."""
        self.stop(session)
        self.runs.pop(session, None)
