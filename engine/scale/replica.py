"""A replica: the engines of several configurations in a worker of Ray Serve, which the front calls over HTTP."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from weakref import WeakValueDictionary

import ray
import uvicorn
from ray import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.inference.engine import Engine
from engine.remote.routes import EngineRoutes, error_response

GONE = "the replica no longer holds this configuration; try again"


class HeldEngine:
    """An engine of a replica. Once it is dropped, it is closed when its last lease ends."""

    def __init__(self, config: str, place: str, refuse: Callable[[Request], Response | None]) -> None:
        """Load a configuration.

        Args:
            config: its file.
            place: the first part of its address on the replica.
            refuse: returns the answer to a request that is not allowed, else None.

        Raises:
            InputError: the configuration cannot be loaded.
        """
        self.place, self.dropped = place, False
        self.engine = Engine.from_config(config)
        self.app: ASGIApp = Starlette(routes=EngineRoutes(self.engine, refuse).routes())
        self._leases, self._lock = 0, threading.Lock()

    @contextmanager
    def leased(self) -> Iterator[bool]:
        """Keep the engine for the block; yields False if it was dropped before."""
        with self._lock:
            kept = not self.dropped
            self._leases += kept
        try:
            yield kept
        finally:
            if kept:
                with self._lock:
                    self._leases -= 1
                    unused = self.dropped and not self._leases
                if unused:
                    self._close()

    def __del__(self) -> None:
        """Drop the engine. Ray Serve calls this when another configuration needs its room."""
        with suppress(AttributeError):  # it was not loaded
            with self._lock:
                unused, self.dropped = not self.dropped and not self._leases, True
            if unused:
                self._close()

    def _close(self) -> None:
        # On a thread, since it waits for the engine's own.
        threading.Thread(target=self.engine.close, name="mixdesk-close", daemon=True).start()


class EngineReplica:
    """Engines, and a server for their routes on a free port of its machine.

    Ray Serve routes leases: each one, for as long as it is held, counts as a request under way of this replica. What is
    computed under a lease is asked for at the replica's own address, so that steering reaches the response. Ray Serve
    prefers a replica that holds the configuration of a lease already ("model multiplexing").
    """

    async def __init__(self, configs: Sequence[str], key: str, loaded: int) -> None:  # type: ignore[misc]
        """Load the first configurations, and serve.

        Args:
            configs: the configuration files, which must be on this machine too.
            key: the secret of the front.
            loaded: how many configurations are held at once; 0 for all.

        Raises:
            InputError: a configuration cannot be loaded.
        """
        self.key = key
        self.held: WeakValueDictionary[str, HeldEngine] = WeakValueDictionary()  # by their places
        self._places = itertools.count(1)
        most = loaded or len(configs)

        async def load(config: str) -> HeldEngine:
            held = await asyncio.to_thread(HeldEngine, config, str(next(self._places)), self.refuse)
            self.held[held.place] = held
            return held

        self._engine_of = serve.multiplexed(max_num_models_per_replica=most)(load)
        self.listener = socket.create_server((ray.util.get_node_ip_address(), 0))
        settings = uvicorn.Config(
            self.answer, log_level="error", http="h11", loop="asyncio", lifespan="off", interface="asgi3"
        )
        settings.timeout_graceful_shutdown = 0
        self.server = uvicorn.Server(settings)
        threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.listener]}, name="mixdesk-replica", daemon=True
        ).start()
        for config in configs[:most]:
            await self._engine_of(config)

    @property
    def url(self) -> str:
        """The replica's own address."""
        host, port = self.listener.getsockname()[:2]
        return f"http://{host}:{port}"

    def refuse(self, request: Request) -> Response | None:
        """Return the answer to a request that is not the front's, else None."""
        given = request.headers.get("authorization", "")
        allowed = hmac.compare_digest(given.encode(), f"Bearer {self.key}".encode())
        return None if allowed else error_response("key: it is not the front's", 401)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to one of the engines, whose place is the first part of the path."""
        _, place, *rest = scope["path"].split("/")
        path = "/" + "/".join(rest)
        held = self.held.get(place)
        app: ASGIApp = held.app if held else error_response(GONE, 503)
        await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    async def lease(self, config: str) -> AsyncIterator[str]:
        """Yield the address of a configuration's engine, and stay open until the caller cancels."""
        while True:
            held = await self._engine_of(config)
            with held.leased() as kept:
                if kept:
                    yield f"{self.url}/{held.place}"
                    await asyncio.Event().wait()

    def check_health(self) -> None:
        """Raise RuntimeError if an engine's worker or the server has ended; Ray Serve then replaces the replica."""
        if not self.server.started and self.server.should_exit:
            raise RuntimeError("the replica's server has ended")
        if not all(held.dropped or held.engine.telemetry.alive for held in list(self.held.values())):
            raise RuntimeError("an engine has ended")

    def __del__(self) -> None:
        """Stop the server and the engines."""
        with suppress(Exception):
            self.server.should_exit = True
            for held in list(self.held.values()):
                held.engine.close()
