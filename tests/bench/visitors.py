"""Visitors without a browser: each asks for responses as the page does, again and again, and tells when text comes.

    python tests/bench/visitors.py URL ASKING COUNT

ASKING: a JSON file, [what a browser sent for its Generate, what it then sent for the text]. Prints a line for every
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


async def visit(client: httpx.AsyncClient, asking: list[dict[str, Any]], number: int) -> None:
    session = uuid.uuid4().hex

    async def ask(body: dict[str, Any]) -> str:
        joined = await client.post("gradio_api/queue/join", json={**body, "session_hash": session})
        joined.raise_for_status()
        return str(joined.json()["event_id"])

    while True:
        await ask(asking[0])
        text = ""  # the event that streams it
        async with client.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as stream:
            async for line in stream.aiter_lines():
                if '"process_generating"' in line and not text:
                    text = await ask(asking[1])
                elif '"process_generating"' in line and text in line:
                    print(number, time.time(), flush=True)
                elif '"process_completed"' in line and text in line:
                    break


async def main(url: str, asking: str, count: str) -> None:
    body = json.loads(Path(asking).read_text())
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await asyncio.gather(*(visit(client, body, number) for number in range(int(count))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
