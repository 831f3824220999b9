"""OpenAI's protocol: thousands of requests, valid and broken in every mixture, to the tiny engine in this process."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import psutil

from tests.hostile.result import Result

REQUESTS = 2000
MOST_KEPT = 20  # the engine's requests that a last few frames may hold


async def run(folder: Path, scale: float) -> Result:
    """Send all requests; hypothesis cuts one that fails down to the smallest that does."""
    return await asyncio.to_thread(throw_all, folder, round(REQUESTS * scale))


def throw_all(folder: Path, count: int) -> Result:
    """Send so many requests to an engine on a tiny random base in a folder."""
    from engine import Engine, Request
    from tests.conftest import make_tiny
    from tests.engine.api.conftest import drain
    from tests.engine.api.hostile_requests import Report, throw

    result, report, process = Result(), Report(), psutil.Process(os.getpid())
    with Engine.from_config(make_tiny(folder).config) as engine:
        try:
            throw(engine, count // 10, Report())  # before memory is measured: caches fill
            result.before = process.memory_info().rss
            throw(engine, count, report)
        except Exception as error:
            result.check(False, f"{type(error).__name__}: {error}")
        result.after = process.memory_info().rss
        drain(engine)
        gc.collect()
        kept = sum(type(thing) is Request for thing in gc.get_objects())
        result.check(kept < MOST_KEPT, f"{kept} requests are still in memory")
        result.check(engine.restarts == 0, f"the worker was restarted {engine.restarts} times")
    result.count += sum(report.statuses.values())
    statuses = ", ".join(f"{status}: {number}" for status, number in sorted(report.statuses.items()))
    result.notes.append(f"statuses {statuses}; {report.left} clients left")
    return result
