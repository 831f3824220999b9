"""Visitors without a browser: each asks for responses as the page does, again and again, and tells when text comes.

    python tests/bench/visitors.py URL ASKING COUNT

ASKING: a JSON file, what a browser sent for its Generate. Prints a line for every
frame of text, the visitor's number and the time since the epoch, until it is ended. Real visitors bring their own
machines: browsers in their place would take the processor that is to be measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx


async def visit(client: httpx.AsyncClient, asking: dict[str, Any], number: int) -> None:
    session = uuid.uuid4().hex
    while True:
        (await client.post("gradio_api/queue/join", json={**asking, "session_hash": session})).raise_for_status()
        reading = None
        async with client.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as stream:
            async for line in stream.aiter_lines():
                if reading is None and '"process_generating"' in line:
                    # The first of a run's outputs is Run.stage.
                    run = json.loads(line.removeprefix("data: "))["output"]["data"][0].split()[0]
                    reading = asyncio.create_task(read(client, run, number))
        if reading:
            await reading


async def read(client: httpx.AsyncClient, run: str, number: int) -> None:
    async with client.stream("GET", f"text/{run}") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: ["):
                print(number, time.time(), flush=True)


async def main(url: str, asking: str, count: str) -> None:
    body = json.loads(Path(asking).read_text())
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await asyncio.gather(*(visit(client, body, number) for number in range(int(count))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
