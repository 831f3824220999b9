"""Replicas of engines on a Ray cluster, of which Ray Serve leases one for each call."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from engine.errors import EngineError, InputError, one_line
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


class Lease:
    """The use of one replica with one configuration. Ray Serve counts it as a request until it is released."""

    def __init__(self, handle: DeploymentHandle, config: str) -> None:
        """Wait until Ray Serve has chosen a replica, and the replica has loaded the configuration.

        Raises:
            EngineError: no replica is there.
            InputError: the configuration cannot be loaded.
        """
        self._responses = handle.options(stream=True, multiplexed_model_id=config).lease.remote(config)
        try:
            self.url: str = next(self._responses)
        except Exception as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, InputError):
                raise InputError(one_line(cause, 300)) from None
            raise EngineError(
                f"no replica of the engine is there ({type(error).__name__}); try again shortly"
            ) from None

    def release(self) -> None:
        """Give the replica back."""
        with suppress(Exception):
            self._responses.cancel()


class Cluster:
    """The replicas. Each holds the engines of several configurations, and loads others when they are called.

    Attributes:
        replicas: how many there are, and what each may use.
        key: the secret that their callers have.
    """

    def __init__(self, configs: Sequence[Path], replicas: Replicas, report: Callable[[str], None] = log.debug) -> None:
        """Start replicas, and wait until they are ready.

        Args:
            configs: the configuration files, at the same paths on each machine of the cluster.
            replicas: how many there are, and what each may use.
            report: called with one line on the progress.

        Raises:
            InputError: a replica cannot load a configuration, or the cluster cannot be reached.
        """
        from engine.scale.replica import EngineReplica

        self.replicas, self.key = replicas, secrets.token_urlsafe(32)
        self._closed, self._lock = False, threading.Lock()
        self._started = False  # whether the cluster was started here
        report(f"starting {replicas} of the engine")
        try:
            self._start_ray()
            serve.start(proxy_location="Disabled")
            deployment = serve.deployment(EngineReplica, name="engine", **replicas.settings())
            application = deployment.bind([path_of(config) for config in configs], self.key, replicas.loaded)
            self._handle: DeploymentHandle = serve.run(application, name=APPLICATION, route_prefix=None)
        except RuntimeError as error:
            self.close()
            raise InputError(f"the replicas could not be started: {str(error)[:300]}") from None
        except BaseException:
            self.close()
            raise

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

    def lease(self, config: Path) -> Lease:
        """Return the use of a replica with a configuration. Raises EngineError, InputError."""
        return Lease(self._handle, path_of(config))

    def close(self) -> None:
        """Stop all replicas, and the cluster if it was started for them."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with suppress(Exception):
            serve.delete(APPLICATION)
        if self._started:
            ray.shutdown()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def path_of(config: Path) -> str:
    """Return a configuration's absolute path, by which the replicas know it."""
    return str(config.resolve())
