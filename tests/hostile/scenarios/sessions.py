"""Sessions that press Generate and are gone: their responses are stopped, and their memory is freed."""

from __future__ import annotations

import asyncio
import time

import httpx

from tests.hostile.client import JOIN, Client, RefusedError
from tests.hostile.process import AppProcess
from tests.hostile.result import Result

SESSIONS, AT_ONCE = 1000, 20
HONEST = "127.0.0.2"  # the honest client's address
GROWTH = 150 * 2**20  # bytes: what the app may have more than before
PATIENCE = 300.0  # seconds until what is under way must be over
BROWSER = 8  # runs of a browser that are under way at most
SETTLE = 80.0  # seconds until what Gradio keeps of abandoned sessions is dropped
FIRST = 3.0  # seconds until an honest client's first token


async def abandon(client: Client, number: int, result: Result, refused: list[int]) -> None:
    """Press Generate and leave."""
    began = time.monotonic()
    try:
        answer = await client.http.post(JOIN, json=client.generate_body(f"How do I clean a pan? {number}", number, 256))
    except httpx.HTTPError as error:
        result.check(False, f"session {number}: {type(error).__name__}: {error}")
        return
    result.latencies.append(time.monotonic() - began)
    result.check(answer.status_code in (200, 429, 503), f"session {number}: {answer.status_code}")
    if answer.status_code != 200:
        refused.append(answer.status_code)


async def quiet(app: AppProcess) -> None:
    """Wait until the app does nothing any more."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        began, before = app.cpu_seconds(), time.monotonic()
        await asyncio.sleep(3)
        if app.cpu_seconds() - began < 0.2 * (time.monotonic() - before):
            return


async def run(app: AppProcess, scale: float) -> Result:
    """Abandon the sessions, then serve an honest client."""
    refused: list[int] = []
    async with Client.open(app.url, HONEST) as honest, Client.open(app.url) as other:
        # What a full batch allocates once is there before.
        await asyncio.gather(*(honest.again().generate("How do I clean a pan?", i, 256) for i in range(BROWSER)))
        result, room = Result(before=app.memory()), asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with room:
                await abandon(other.again(), number, result, refused)

        await asyncio.gather(*(one(number) for number in range(max(1, round(SESSIONS * scale)))))
        began, answer = time.monotonic(), None
        while answer is None and time.monotonic() - began < PATIENCE:
            try:
                answer = await asyncio.wait_for(honest.again().generate("How do I store herbs?"), PATIENCE)
            except (RefusedError, httpx.HTTPError, asyncio.TimeoutError):
                await asyncio.sleep(1)
        waited = time.monotonic() - began
        result.check(answer is not None, f"an honest client got no response within {PATIENCE:.0f} s afterwards")
        first = answer.first if answer else PATIENCE
        result.check(first < FIRST, f"an honest client's first token took {first:.1f} s")
        result.latencies.append(first)
        result.notes.append(
            f"an honest client's first token took {first:.2f} s, its response {waited:.1f} s, while those were queued; "
            f"{len(refused)} were refused"
        )
    await quiet(app)
    await asyncio.sleep(SETTLE)
    result.after = app.memory()
    grown = result.after - result.before
    result.check(grown < GROWTH, f"the memory has grown by {grown / 2**20:.0f} MiB")
    return result
