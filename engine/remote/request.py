"""A response that another machine is writing, with the interface of the engine's own requests."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from engine.errors import InputError
from engine.inference.completion import Completion, Token
from engine.inference.request import Request
from engine.inference.sequence import Record
from engine.remote.client import EngineClient
from engine.remote.wire import completion_from_json, fill_record, token_from_json
from engine.rules.mixture import Mixture
from engine.sampling import Sampling


class RemoteRequest(Request):
    """A response of a remote engine. Its own thread receives it, whether or not its tokens are iterated over."""

    def __init__(
        self,
        client: EngineClient,
        id: str,
        mixture: Mixture,
        sampling: Sampling,
        make_mixture: Callable[..., Mixture],
        record: Record | None = None,
    ) -> None:
        """Start to receive a response.

        Args:
            client: the engine.
            id: the response's id there.
            mixture: the mixture that it begins with.
            sampling: its sampling settings.
            make_mixture: returns a checked mixture of the engine's policies.
            record: filled in at the end, if given.
        """
        self._client, self._path = client, f"/responses/{id}"
        self._target, self._sampling, self._record = mixture, sampling, record
        self.make_mixture = make_mixture
        self._received: queue.SimpleQueue[Token | None] = queue.SimpleQueue()
        self._future: Future[Completion] = Future()
        self._ahead, self._drawn, self._cancelled = 0, 0, False
        threading.Thread(target=self._receive, name="mixdesk-remote-request", daemon=True).start()

    def _receive(self) -> None:
        previous: Mixture | None = None
        try:
            for event in self._client.events(f"{self._path}/events", lambda: not self._cancelled):
                if "token" in event:
                    token = token_from_json(event["token"], previous)
                    previous, self._ahead = token.mixture, -1
                    self._drawn += 1
                    self._received.put(token)
                elif "ahead" in event:
                    self._ahead, self._drawn = event["ahead"], max(self._drawn, event["drawn"])
                else:
                    self._end(event)
                    return
        except Exception as error:
            self._end_with(error)

    def _end(self, event: dict[str, Any]) -> None:
        if "error" in event:
            self._end_with(InputError(event["error"]) if event["input"] else RuntimeError(event["error"]))
            return
        if self._record is not None and event["record"] is not None:
            fill_record(self._record, event["record"])
        self._ahead = -1
        # First: who has read the last token finds the completion there.
        self._future.set_result(completion_from_json(event["completion"]))
        self._received.put(None)

    def _end_with(self, error: Exception) -> None:
        self._ahead = -1
        self._future.set_exception(error)
        self._received.put(None)

    def __iter__(self) -> Iterator[Token]:
        while (token := self._received.get()) is not None:
            yield token
        self._received.put(None)  # another iteration ends at once
        if error := self._future.exception():
            raise error

    @property
    def ahead(self) -> int:
        """The number of requests ahead of this one in the engine's queue, as last reported; -1 once it has left it."""
        return self._ahead

    def cancel(self) -> None:
        """Stop after the token that is being computed; the completion has the tokens so far."""
        if not self._cancelled and not self.done:
            self._cancelled = True
            self._client.delete_later(self._path)

    def steer_to(self, mixture: Mixture) -> None:
        """Draw the tokens to come from another of the engine's mixtures. Raises InputError."""
        if self._sampling.particles > 1:
            raise InputError("steer: a response with particles is drawn from one mixture; give 1 particle to steer it")
        self._target = mixture
        self._client.post_later(f"{self._path}/steer", mixture.as_dict())

    def when_done(self, call: Callable[[], None]) -> None:
        """Run a call once the response is complete or has failed."""
        self._future.add_done_callback(lambda _: call())

    @property
    def sampling(self) -> Sampling:
        """The sampling settings of the response."""
        return self._sampling

    @property
    def drawn(self) -> int:
        """The number of tokens drawn so far; with particles, that of the longest, as last reported."""
        return self._drawn
