"""Visitors without a browser: each asks for responses as the page does, again and again, and tells when text comes.

    python tests/bench/visitors.py URL SENT COUNT [--drags N]

SENT: a JSON file, what a browser sent: {"generate": for its responses, "steer": when a fader moved}. Prints lines of
JSON until it is ended: ["text", visitor, time, response] for every update of the text, each visitor's responses
counted. With --drags the first of them drags a fader, for as long as before each nothing moves, and that is the end:
["asked", time, where to] for every question, ["still" or "dragged", from, until] for every window. Times are seconds
since the epoch. Real visitors bring their own machines: browsers in their place would take the processor that is to
be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import httpx

WINDOW = 1.5  # seconds: a response has 256 tokens at most, and must not end before
GAP, UNDERWAY = 0.03, 3  # as static/js/steer.js asks
APART = 12  # seconds in which one after the other begins: real visitors' responses do not all end at once


def say(*what: Any) -> None:
    print(json.dumps(what), flush=True)


class Visitor:
    def __init__(self, client: httpx.AsyncClient, sent: dict[str, Any], number: int) -> None:
        self.client, self.sent, self.number = client, sent, number
        self.session, self.run = uuid.uuid4().hex, ""
        self.updates = self.turn = self.responses = 0

    async def generate(self) -> None:
        """To the end of the responses. To ask again earlier stops them."""
        reading = None
        self.responses += 1
        body = {**self.sent["generate"], "session_hash": self.session}
        (await self.client.post("gradio_api/queue/join", json=body)).raise_for_status()
        params = {"session_hash": self.session}
        try:
            async with self.client.stream("GET", "gradio_api/queue/data", params=params) as stream:
                async for line in stream.aiter_lines():
                    if reading is None and '"process_generating"' in line:
                        # The first of a run's outputs is Run.stage.
                        self.run = json.loads(line.removeprefix("data: "))["output"]["data"][0].split()[0]
                        reading = asyncio.create_task(self.read())
            if reading:
                await reading
        finally:
            if reading:
                reading.cancel()

    async def read(self) -> None:
        async with self.client.stream("GET", f"text/{self.run}") as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: ["):
                    self.updates += 1
                    say("text", self.number, time.time(), self.responses)

    async def again_and_again(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            await self.generate()

    async def drag(self, seconds: float) -> None:
        """The fader from 0.1 to 1, the newest place whenever the page would ask for it."""
        began, room = time.time(), asyncio.Semaphore(UNDERWAY)

        async def ask(value: float) -> None:
            async with room:
                self.turn += 1
                mixture = self.sent["steer"]["mixture"]
                faders = {**mixture["faders"], next(iter(mixture["faders"])): value}
                say("asked", time.time(), value)
                asked = {"run": self.run, "turn": self.turn, "mixture": {**mixture, "faders": faders}}
                (await self.client.post("steer", json=asked)).raise_for_status()

        asking = []
        while (share := (time.time() - began) / seconds) < 1:
            asking.append(asyncio.create_task(ask(round(0.1 + 0.9 * share, 2))))
            await asyncio.sleep(GAP)
        await asyncio.gather(*asking)

    async def windows(self, drags: int) -> None:
        for window in range(2 * drags):
            kind = ("still", "dragged")[window % 2]
            self.updates = 0
            responses = asyncio.create_task(self.generate())
            while self.updates < 4:
                await asyncio.sleep(0.01)
            began = time.time()
            act: Awaitable[None] = asyncio.sleep(WINDOW) if kind == "still" else self.drag(WINDOW)
            await act
            say(kind, began, time.time())
            responses.cancel()
            await asyncio.wait([responses])
            await asyncio.sleep(0.3)  # until the server has seen it


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("url")
    parser.add_argument("sent", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--drags", type=int, default=0)
    options = parser.parse_args()
    async with httpx.AsyncClient(base_url=options.url, timeout=120) as client:
        sent = json.loads(options.sent.read_text())
        visitors = [Visitor(client, sent, number) for number in range(options.count)]
        rest = [
            asyncio.create_task(one.again_and_again(APART * one.number / options.count))
            for one in visitors[bool(options.drags) :]
        ]
        if options.drags:
            await asyncio.sleep(APART)
            await visitors[0].windows(options.drags)
            for task in rest:
                task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*rest)


if __name__ == "__main__":
    asyncio.run(main())
