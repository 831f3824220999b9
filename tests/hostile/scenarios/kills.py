"""kill -9 while clients rate: every rating that a client saw confirmed is in the database afterwards."""

from __future__ import annotations

import asyncio
import random
import time

import httpx

from tests.hostile.client import Client, RefusedError
from tests.hostile.process import AppProcess
from tests.hostile.result import Result

KILLS, CLIENTS = 20, 8
LIVES = (1.0, 6.0)  # seconds between the first rating of a life and its end
PATIENCE = 120  # seconds for the first rating


async def rate_again_and_again(app: AppProcess, number: int, confirmed: set[str], result: Result) -> None:
    """Generate and rate until cancelled; a connection that breaks is what this scenario is about."""
    seed = number
    while True:
        try:
            async with Client.open(app.url, f"127.0.1.{number + 1}", timeout=30) as client:
                while True:
                    began = time.monotonic()
                    await client.generate(f"How do I clean a pan? {seed}", seed, tokens=3)
                    rating, _ = await client.rate()
                    if rating:
                        confirmed.add(rating)
                        result.latencies.append(time.monotonic() - began)
                    seed += 100
        except (httpx.HTTPError, RefusedError, KeyError, ValueError):
            await asyncio.sleep(0.2)


async def run(app: AppProcess, scale: float) -> Result:
    """Kill the app again and again."""
    result, confirmed, chance = Result(before=app.memory()), set[str](), random.Random(1)
    clients = [asyncio.create_task(rate_again_and_again(app, i, confirmed, result)) for i in range(CLIENTS)]
    try:
        for life in range(max(1, round(KILLS * scale))):
            before, deadline = len(confirmed), time.monotonic() + PATIENCE
            while len(confirmed) == before and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            result.check(len(confirmed) > before, f"life {life}: no rating was confirmed within {PATIENCE} s")
            await asyncio.sleep(chance.uniform(*LIVES))
            app.kill()
            # What the clients have read of confirmations that came before the end.
            await asyncio.sleep(0.1)
            lost = confirmed - app.stored()
            result.check(not lost, f"life {life}: {len(lost)} of {len(confirmed)} confirmed ratings are lost")
            await app.start()
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    result.after = app.memory()
    result.notes.append(f"{len(confirmed)} ratings were confirmed, {len(app.stored())} are stored")
    return result
