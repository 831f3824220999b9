"""The memory that is available to a process."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUPS = (  # a container's limit, what is used of it, and the part of that which can be dropped
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def available_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the available memory in bytes: the machine's, or the container's if its limit leaves less."""
    free = psutil.virtual_memory().available
    for limit, usage, statistics, cache in CGROUPS:
        try:
            left = int((cgroup / limit).read_text()) - int((cgroup / usage).read_text())
            for line in (cgroup / statistics).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == cache:
                    left += int(value)
        except (OSError, ValueError):  # no such file, or no limit ("max")
            continue
        free = min(free, max(left, 0))
    return free
