"""Replicas of an engine behind the interface of one."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.errors import EngineError, InputError, one_line
from engine.inference.request import Request
from engine.remote.client import EngineClient
from engine.remote.engine import RemoteEngine
from engine.remote.request import RemoteRequest
from engine.remote.wire import scale_to_json
from engine.rewards.scale import RewardScale
from engine.scale.options import NO_RAY, Replicas

try:
    import ray
    from ray import serve
    from ray.serve.handle import DeploymentHandle
except ImportError:
    raise InputError(NO_RAY) from None

log = logging.getLogger("mixdesk")

APPLICATION = "mixdesk"
STARTS = 2  # a busy machine may be too slow for Ray's own deadlines, once


class ReplicaClient(EngineClient):
    """Calls to one replica."""

    patience = 1.0  # a replica that has died does not come back at its address

    def unreachable(self, error: BaseException) -> EngineError:
        """Return the error for a replica that has died."""
        return EngineError("the engine's replica that wrote this has died, and is being replaced; generate it again")


class Lease:
    """The use of one replica. Ray Serve counts it as a request until it is released."""

    def __init__(self, handle: DeploymentHandle) -> None:
        """Wait until Ray Serve has chosen a replica. Raises EngineError."""
        self._responses = handle.options(stream=True).lease.remote()
        try:
            self.url: str = next(self._responses)
        except Exception as error:
            raise EngineError(
                f"no replica of the engine is there ({type(error).__name__}); try again shortly"
            ) from None

    def release(self) -> None:
        """Give the replica back."""
        with suppress(Exception):
            self._responses.cancel()


class ScaledEngine(RemoteEngine):
    """An engine of several replicas, one a GPU or a share of the CPUs, on a Ray cluster. Thread-safe.

    Ray Serve starts and replaces replicas, chooses one for each call, and adds replicas while the queue is long. The
    tokens of a response do not depend on which replica draws them. A replica that dies fails its own responses.

    Attributes:
        replicas: how many there are, and what each may use.
        clients: {address: client} of the replicas that have been used.
    """

    def __init__(self, config: Path, replicas: Replicas, report: Callable[[str], None] = log.debug) -> None:
        """Start replicas of a configuration, and wait until they are ready.

        Args:
            config: the configuration file, at the same path on each machine of the cluster.
            replicas: how many there are, and what each may use.
            report: called with one line on the progress.

        Raises:
            InputError: a replica cannot load the configuration, or the cluster cannot be reached.
        """
        self.replicas, self._key = replicas, secrets.token_urlsafe(32)
        self.clients: dict[str, ReplicaClient] = {}
        self._lock = threading.Lock()
        self._misfit, self._reachable, self._closed = "", True, threading.Event()
        self._started = False  # whether the cluster was started here
        report(f"starting {replicas} of the engine")
        self._handle = self._deploy(config)
        try:
            with self.connected() as (self.client, _):
                self.take(report)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self.watch, name="mixdesk-engine-watch", daemon=True).start()

    def _deploy(self, config: Path) -> DeploymentHandle:
        from engine.scale.replica import EngineReplica

        self._start_ray()
        serve.start(proxy_location="Disabled")
        deployment = serve.deployment(EngineReplica, name="engine", **self.replicas.settings())
        application = deployment.bind(str(config.resolve()), self._key)
        try:
            return serve.run(application, name=APPLICATION, route_prefix=None)
        except RuntimeError as error:
            raise InputError(f"the replicas could not be started: {str(error)[:300]}") from None

    def _start_ray(self) -> None:
        """Connect to the cluster, or start one on this machine. Raises InputError."""
        address = self.replicas.address
        for start in range(STARTS):
            if ray.is_initialized():
                return
            try:
                ray.init(
                    address=address or "local", log_to_driver=False, include_dashboard=False, configure_logging=False
                )
                self._started = not address
            except Exception as error:  # Ray raises a bare one if its processes are not there in time
                if start == STARTS - 1 or address:
                    what = f"--ray-address: {address}" if address else "Ray"
                    raise InputError(f"{what}: it does not start ({one_line(error, 200)})") from None

    # ---------------------------------------- replicas

    def _client_of(self, url: str) -> ReplicaClient:
        with self._lock:
            if url not in self.clients:
                self.clients[url] = ReplicaClient(url, self._key)
            return self.clients[url]

    @contextmanager
    def connected(self) -> Iterator[tuple[EngineClient, Callable[[list[Request]], None]]]:
        """Yield the client of a replica, and a function that is given the responses that it began.

        The replica is leased until those are complete, or for the block if there are none.
        """
        lease = Lease(self._handle)
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
        """Return the sums over the replicas that answer; dead ones are forgotten."""
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
        """Stop all replicas, and the cluster if it was started for them."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        for url in list(self.clients):
            self._forget(url)
        with suppress(Exception):
            serve.delete(APPLICATION)
        if self._started:
            ray.shutdown()
