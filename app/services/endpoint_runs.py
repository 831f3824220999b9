"""Responses that programs ask for through the endpoints: those under way, and finished ones that can be rated."""

from __future__ import annotations

import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import replace

from app.services.generation_run import SIDES, TIME_LIMIT, Run
from app.services.response_reader import Response
from app.services.run_table import PER_ADDRESS, PER_BROWSER, RunTable
from app.services.visitor import network_of
from engine import Completion, Engine, InputError, Mixture, Sampling
from engine.messages import Prompt

PANEL = "response"  # the only one of such a run
# Responses under way: as many as pages can have, each with all its panels open.
OF_CLIENT, OF_ADDRESS = PER_BROWSER * len(SIDES), PER_ADDRESS * len(SIDES)
KEPT, KEPT_OF_ADDRESS = 2_000, 200  # finished responses, some 10 KB each
BUSY = "{} responses of yours are under way, which is the most for one {}: wait until one is finished."
UNKNOWN = (
    "{}: there is no such response of yours; give the id that generate or stream returned to this client, of one of "
    f"the newest {KEPT_OF_ADDRESS}"
)


class EndpointRuns:
    """The responses of all sessions. Thread-safe.

    The pages of an address and its sessions here count together.
    """

    def __init__(self, engine: Engine, runs: RunTable) -> None:
        """runs: those of the page."""
        self.engine, self.runs = engine, runs
        self._under_way: dict[Run, str] = {}  # {run: its session}
        self._kept: OrderedDict[str, tuple[str, str, Completion]] = OrderedDict()  # {id: session, address, response}
        self._lock = threading.Lock()

    def begin(self, session: str, address: str, prompt: Prompt, mixture: Mixture, sampling: Sampling, seed: int) -> Run:
        """Submit a response, which `end` must follow.

        Raises:
            InputError: if the engine rejects it, or too many of its session or address are under way.
        """
        self.make_room(session, address)
        request = self.engine.submit(
            *(prompt, mixture, sampling, seed), client=(address, session), time_limit=TIME_LIMIT
        )
        run = Run(prompt, {PANEL: Response(request, list(mixture.weights))})
        run.address = address
        with self._lock:
            self._under_way[run] = session
        return run

    def make_room(self, session: str, address: str) -> None:
        """Raise InputError if no more responses of a session or an address may be under way."""
        with self._lock:
            # A call that was cut off while it was submitted has nobody to end it.
            self._under_way = {run: other for run, other in self._under_way.items() if not run.done}
            own = Counter(self._under_way.values())[session]
            near = sum(run.address == address for run in self._under_way)
        if address:
            near += sum(
                not response.over
                for run in list(self.runs.values())
                if run.address == address
                for response in list(run.responses.values())
            )
        for name, limit, count in (("client", OF_CLIENT, own), ("network address", OF_ADDRESS, near)):
            if count >= limit and (address or name == "client"):
                raise InputError(BUSY.format(limit, name))

    def end(self, run: Run) -> None:
        """Stop a run if it is under way; its rows are free at the engine's next step."""
        with self._lock:
            self._under_way.pop(run, None)
        run.cancel()

    def leave(self, session: str) -> None:
        """Stop what is under way for a session that has ended."""
        with self._lock:
            mine = [run for run, other in self._under_way.items() if other == session]
        for run in mine:
            self.end(run)

    def keep(self, session: str, address: str, completion: Completion) -> str:
        """Keep a finished response for a rating, and return its id."""
        key = secrets.token_urlsafe(16)
        near = network_of(address)
        with self._lock:
            self._kept[key] = session, near, replace(completion, trace=[])
            own = [other for other, (_, place, _) in self._kept.items() if place == near]
            for other in own[:-KEPT_OF_ADDRESS]:
                del self._kept[other]
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return key

    def find(self, session: str, **ids: str) -> Mapping[str, Completion]:
        """Return {argument: response} of a session's own responses.

        Args:
            session: The session.
            ids: {argument: id}.

        Raises:
            InputError: if there is no such response of this session.
        """
        found = {}
        for name, key in ids.items():
            owner, _, completion = self._kept.get(key, ("", "", None))
            if completion is None or owner != session:
                raise InputError(UNKNOWN.format(name))
            found[name] = completion
        return found
