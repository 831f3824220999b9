"""What goes on behind the desk: a few responses at once for every session, and what happens to them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app import palette
from app.services.bank_service import Expected
from app.services.comparison_jobs import Comparisons
from app.services.generation_run import TIME_LIMIT, Run
from app.services.response_reader import CANDIDATES, Response
from app.storage.database import Store
from app.storage.hub_backup import Mirror
from engine import Engine, InputError, Mixture, Sampling
from engine.messages import Prompt

log = logging.getLogger("mixdesk")


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
        return {objective: palette.colour(i) for i, objective in enumerate(every)}

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


def session(request: gr.Request) -> str:
    """Whose page it is."""
    return str(request.session_hash)
