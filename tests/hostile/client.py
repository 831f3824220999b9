"""A client of Gradio's HTTP API that does what the page does, without a browser: it generates, reads and rates."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.services.panel_choice import FADERS
from engine.config import DEMO, REFERENCE, load_config

HERE = "127.0.0.1"
JOIN, PREDICT = "gradio_api/queue/join", "gradio_api/run/predict"


class RefusedError(Exception):
    """The app did not begin a run; the message is what it said instead."""


@dataclass
class Answer:
    """The responses of one run. first: seconds until the first token."""

    run: str
    texts: dict[str, str] = field(default_factory=dict)  # by panel
    first: float = 0.0


class PageMap:
    """The numbers of the page's handlers, which Gradio's API takes, by the button that starts them."""

    def __init__(self, config: dict[str, Any]) -> None:
        """config: the settings of Gradio that the page holds."""
        self.ids = {one["props"].get("elem_id"): one["id"] for one in config["components"]}
        self.functions = config["dependencies"]

    def clicked(self, button: str) -> tuple[int, int]:
        """Return (handler, trigger) of a click on the button with this element id."""
        trigger = self.ids[button]
        direct = next(one for one in self.functions if [trigger, "click"] in [list(t) for t in one["targets"]])
        if direct["backend_fn"]:
            return direct["id"], trigger
        # A script gathers the page's settings first.
        return next(one["id"] for one in self.functions if one.get("trigger_after") == direct["id"]), trigger


def desk_state(prompt: str, seed: int, tokens: int) -> dict[str, Any]:
    """Return the page's settings as Generate sends them: the faders even on the left, the reference on the right."""
    faders = {policy.name: 0.5 for policy in load_config(DEMO).policies}
    return {
        "v": 1,
        "turns": [],
        "prompt": prompt,
        "mixture": {"faders": faders, "channels": {}, "rule": "geometric", "gain": 1, "exponent": 1},
        "panels": {"left": FADERS, "right": REFERENCE},
        "sampling": {"temperature": 0.7, "min_p": 0.1, "max_new_tokens": tokens},
        "seed": str(seed),
        "new_seed": False,
    }


class Client:
    """A browser with one session of the page; `close` ends it."""

    def __init__(self, http: httpx.AsyncClient, page: PageMap) -> None:
        self.http, self.page = http, page
        self.session = uuid.uuid4().hex

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, address: str = HERE, timeout: float = 120) -> AsyncIterator[Client]:
        """Open the page in a browser of its own until the block is left.

        Args:
            url: The app's.
            address: The loopback address that the browser has; limits count by address.
            timeout: In seconds, of each step of a request.
        """
        async with http_client(url, address, timeout) as http:
            answer = await http.get("", headers={"Accept": "text/html"})  # gives the browser its cookie, too
            answer.raise_for_status()
            config = re.search(r"window\.gradio_config = (\{.*?\});</script>", answer.text, re.DOTALL)
            if config is None:
                raise ValueError("the page has no settings of Gradio")
            yield cls(http, PageMap(json.loads(config[1])))

    def again(self) -> Client:
        """Return another session in the same browser."""
        return Client(self.http, self.page)

    def generate_body(self, prompt: str, seed: int, tokens: int) -> dict[str, Any]:
        """Return the body that presses Generate."""
        function, trigger = self.page.clicked("generate")
        data = [json.dumps(desk_state(prompt, seed, tokens))]
        return {"data": data, "fn_index": function, "session_hash": self.session, "trigger_id": trigger}

    async def generate(self, prompt: str, seed: int = 1, tokens: int = 8) -> Answer:
        """Press Generate and read to the end of both responses.

        Raises:
            RefusedError: if no run began.
            httpx.HTTPError: if the connection or a request fails.
        """
        began = time.monotonic()
        joined = await self.http.post(JOIN, json=self.generate_body(prompt, seed, tokens))
        if joined.status_code in (429, 503):
            raise RefusedError(f"{joined.status_code}: {joined.text[:100]}")
        joined.raise_for_status()
        reading: asyncio.Task[Answer] | None = None
        last = ""
        try:
            async with self.http.stream(
                "GET", "gradio_api/queue/data", params={"session_hash": self.session}
            ) as events:
                events.raise_for_status()
                async for line in events.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    event = json.loads(line.removeprefix("data:"))
                    last = line[:300]
                    stage = (event.get("output") or {}).get("data", [None])[:1]
                    if reading is None and stage and isinstance(stage[0], str) and " " in stage[0]:
                        reading = asyncio.create_task(self.read(stage[0].split()[0], began))
                    if event["msg"] == "close_stream":
                        break
            if reading is None:
                raise RefusedError(last)
            return await reading
        finally:
            if reading is not None:
                reading.cancel()

    async def read(self, run: str, began: float) -> Answer:
        """Read a run's text to its end. began: when it was asked for, by `time.monotonic`."""
        answer, sides = Answer(run), {}
        async with self.http.stream("GET", f"text/{run}") as stream:
            stream.raise_for_status()
            async for line in stream.aiter_lines():
                if not line.startswith("data: ["):
                    continue
                for number, content in json.loads(line.removeprefix("data: ")):
                    if isinstance(content, str):
                        sides[number] = content
                        answer.texts[content] = ""
                    elif isinstance(content, list):
                        answer.first = answer.first or time.monotonic() - began
                        answer.texts[sides[number]] += content[0]
                    elif "rest" in content:
                        answer.texts[sides[number]] += content["rest"]
        return answer

    async def rate(self, choice: str = "left") -> tuple[str | None, str]:
        """Rate the session's pair.

        Returns:
            The rating's id once the page would show that it is saved, else None; and what the page would show.
        """
        rating = uuid.uuid4().hex
        function, trigger = self.page.clicked(f"rate-{choice}")
        body = {"data": [rating, "hostile"], "fn_index": function, "session_hash": self.session, "trigger_id": trigger}
        answer = await self.http.post(PREDICT, json=body)
        answer.raise_for_status()
        said = str(answer.json()["data"][0])
        return (rating if "Saved:" in said else None), said


def http_client(url: str, address: str = HERE, timeout: float = 120) -> httpx.AsyncClient:
    """Return an HTTP client for the app, with cookies of its own and any number of connections."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    transport = httpx.AsyncHTTPTransport(local_address=address, limits=limits)
    return httpx.AsyncClient(base_url=url, timeout=timeout, transport=transport)
