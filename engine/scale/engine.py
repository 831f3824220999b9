"""Replicas of an engine behind the interface of one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.inference.request import Request
from engine.remote.client import EngineClient
from engine.remote.engine import RemoteEngine
from engine.remote.request import RemoteRequest
from engine.remote.wire import scale_to_json
from engine.rewards.scale import RewardScale
from engine.scale.cluster import APPLICATION, Cluster

log = logging.getLogger("mixdesk")


class ReplicaClient(EngineClient):
    """Calls to one replica."""

    patience = 1.0  # a replica that has died does not come back at its address

    def unreachable(self, error: BaseException) -> EngineError:
        """Return the error for a replica that has died."""
        return EngineError("the engine's replica that wrote this has died, and is being replaced; generate it again")


class ScaledEngine(RemoteEngine):
    """The engine of one configuration on the replicas of a cluster. Thread-safe.

    Ray Serve starts and replaces replicas, chooses one for each call, and adds replicas while the queue is long. The
    tokens of a response do not depend on which replica draws them. A replica that dies fails its own responses.

    Attributes:
        clients: {address: client} of the replicas that have been used.
    """

    def __init__(self, cluster: Cluster, config: Path, report: Callable[[str], None] = log.debug) -> None:
        """Ask a replica what the configuration has.

        Args:
            cluster: the replicas; it is the caller's to close.
            config: one of the cluster's configuration files.
            report: called with one line on the progress.

        Raises:
            InputError: a replica cannot load the configuration.
        """
        self.cluster, self._config_file = cluster, config
        self.clients: dict[str, ReplicaClient] = {}
        self._lock = threading.Lock()
        self._misfit, self._reachable, self._closed = "", True, threading.Event()
        try:
            with self.connected() as (self.client, _):
                self.take(report)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self.watch, name="mixdesk-engine-watch", daemon=True).start()

    def _client_of(self, url: str) -> ReplicaClient:
        with self._lock:
            if url not in self.clients:
                self.clients[url] = ReplicaClient(url, self.cluster.key)
            return self.clients[url]

    @contextmanager
    def connected(self) -> Iterator[tuple[EngineClient, Callable[[list[Request]], None]]]:
        """Yield the client of a replica, and a function that is given the responses that it began.

        The replica is leased until those are complete, or for the block if there are none.
        """
        lease = self.cluster.lease(self._config_file)
        client, held = self._client_of(lease.url), False

        def began(requests: list[Request]) -> None:
            nonlocal held
            held = True
            left, lock = len(requests), threading.Lock()

            def done() -> None:
                nonlocal left
                with lock:
                    left -= 1
                    last = not left
                if last:
                    lease.release()

            for request in requests:
                assert isinstance(request, RemoteRequest)
                request.when_done(done)

        try:
            yield client, began
        finally:
            if not held:
                lease.release()

    def _forget(self, url: str) -> None:
        with self._lock:
            client = self.clients.pop(url, None)
        if client:
            client.close()

    def read_status(self) -> dict[str, Any]:
        """Return the sums over the replicas that answer; those that died or dropped the configuration are forgotten."""
        found: list[dict[str, Any]] = []
        for url, client in list(self.clients.items()):
            try:
                found.append(client.get("/status", timeout=5.0).json())
            except EngineError:
                self._forget(url)
        sums = {name: sum(one[name] for one in found) for name in ("waiting", "rows", "max_rows", "restarts")}
        scale = found[0]["scale"] if found else scale_to_json(RewardScale())
        telemetry = [one["telemetry"] for one in found]
        busy = any(one["busy"] for one in found)
        return {"instance": APPLICATION, "busy": busy, "scale": scale, "telemetry": telemetry, **sums}

    def close(self) -> None:
        """Close the connections to the replicas, which run on."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        for url in list(self.clients):
            self._forget(url)
