"""A replica: one engine in a worker of Ray Serve, which desks and the front call over HTTP."""

from __future__ import annotations

import asyncio
import hmac
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import ray
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from engine.inference.engine import Engine
from engine.remote.routes import EngineRoutes, error_response


class EngineReplica:
    """An engine, and a server for its routes on a free port of its machine.

    Ray Serve routes leases: each one, for as long as it is held, counts as a request under way of this replica. What is
    computed under a lease is asked for at the replica's own address, so that steering reaches the response.
    """

    def __init__(self, config: str, key: str) -> None:
        """Load a configuration.

        Args:
            config: the configuration file, which must be on this machine too.
            key: the secret of the front.

        Raises:
            InputError: the configuration cannot be loaded.
        """
        self.engine = Engine.from_config(config)
        self.key = key
        self.listener = socket.create_server((ray.util.get_node_ip_address(), 0))
        app = Starlette(routes=EngineRoutes(self.engine, self.refuse).routes())
        settings = uvicorn.Config(app, log_level="error", http="h11", loop="asyncio", timeout_graceful_shutdown=0)
        self.server = uvicorn.Server(settings)
        threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.listener]}, name="mixdesk-replica", daemon=True
        ).start()

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

    async def lease(self) -> AsyncIterator[str]:
        """Yield the replica's address, and stay open until the caller cancels."""
        yield self.url
        await asyncio.Event().wait()

    def check_health(self) -> None:
        """Raise RuntimeError if the engine's worker or the server has ended; Ray Serve then replaces the replica."""
        if not self.server.started and self.server.should_exit:
            raise RuntimeError("the replica's server has ended")
        if not self.engine.telemetry.alive:
            raise RuntimeError("the engine has ended")

    def __del__(self) -> None:
        """Stop the server and the engine."""
        with suppress(Exception):
            self.server.should_exit = True
            self.engine.close()
