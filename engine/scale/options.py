"""How many replicas there are, and what each may use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from engine.errors import InputError

NO_RAY = "--replicas: it needs Ray, which is not installed; pip install 'mixdesk[scale]'"
UNDER_WAY = 64  # leases of a replica at once; more wait in Ray Serve
BUSY = 4  # leases a replica beyond which another replica is added, if there may be more


@dataclass(frozen=True)
class Replicas:
    """Replicas of an engine.

    Attributes:
        least: the smallest number of replicas.
        most: the largest; more than `least` adds and removes them with the load.
        cpus: the CPUs of each, which are its threads too.
        gpus: the GPUs of each; a fraction shares one.
        address: the address of a running Ray cluster, "" to start one on this machine.
        loaded: how many configurations each holds at once, 0 for all; others wait until one is dropped.
    """

    least: int = 1
    most: int = 1
    cpus: float = 1
    gpus: float = 0
    address: str = ""
    loaded: int = 0

    @classmethod
    def read(cls, text: str, cpus: float = 1, gpus: float = 0, address: str = "", loaded: int = 0) -> Replicas:
        """Return the replicas of a text such as 2, or 1-4. Raises InputError."""
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text.strip())
        least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= least <= most:
            raise InputError(f"--replicas: found '{text[:40]}'; give a number such as 2, or the least and most: 1-4")
        if not cpus > 0 or gpus < 0:
            raise InputError("--cpus and --gpus: give each replica more than 0 CPUs, and 0 or more GPUs")
        return cls(least, most, cpus, gpus, address, loaded)

    def __str__(self) -> str:
        """Return them as words."""
        count = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        return f"{count} replica{'s' if self.most > 1 else ''}"

    def settings(self) -> dict[str, Any]:
        """Return the settings of Ray Serve's deployment."""
        if self.least == self.most:
            count: dict[str, Any] = {"num_replicas": self.least}
        else:
            count = {
                "autoscaling_config": {
                    "min_replicas": self.least,
                    "max_replicas": self.most,
                    "target_ongoing_requests": BUSY,
                }
            }
        return {
            **count,
            "ray_actor_options": {"num_cpus": self.cpus, "num_gpus": self.gpus},
            "max_ongoing_requests": UNDER_WAY,
            "health_check_period_s": 5,
            "health_check_timeout_s": 30,
            "graceful_shutdown_timeout_s": 2,
        }
