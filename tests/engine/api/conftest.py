"""The tiny engine behind OpenAI's protocol, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import httpx2
import openai
import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from engine import Engine
from engine.api.api_server import ApiServer
from engine.api.keys import ApiKeys
from engine.api.routes import api_routes
from engine.api.source import FixedEngines
from engine.listening import bind_address

URL = "http://127.0.0.1:8000"
KEY = "a-key-of-the-tests"


def make_app(engine: Engine, keys: ApiKeys | None = None, most: int = 512) -> Starlette:
    return Starlette(routes=api_routes(FixedEngines({engine.config.name: engine}), keys or ApiKeys(), most))


@pytest.fixture
def api(tiny_engine: Engine) -> Starlette:
    return make_app(tiny_engine)


class Poster:
    """Sends single requests to an application in this process, each on an event loop of its own."""

    def __init__(self, app: Starlette, **headers: str) -> None:
        self.app, self.headers = app, headers

    def send(self, method: str, path: str, body: Any = None, **settings: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=True, client=settings.pop("peer", PEER))
            async with httpx.AsyncClient(transport=transport, base_url=URL, headers=self.headers, timeout=60) as client:
                if body is not None:
                    settings["json"] = body
                return await client.request(method, path, **settings)

        return asyncio.run(call())

    def post(self, path: str, body: Any = None, **settings: Any) -> httpx.Response:
        return self.send("POST", path, body, **settings)

    def get(self, path: str, **settings: Any) -> httpx.Response:
        return self.send("GET", path, **settings)


PEER = ("127.0.0.1", 50000)


@pytest.fixture
def poster(api: Starlette) -> Poster:
    return Poster(api)


@pytest.fixture
def with_client(api: Starlette) -> Iterator[Callable[..., Any]]:
    """Run a coroutine of an openai client that talks to the application."""

    def run(use: Callable[[openai.AsyncOpenAI], Any], app: Starlette = api, **settings: Any) -> Any:
        async def call() -> Any:
            transport = httpx2.ASGITransport(app, client=PEER)
            settings.setdefault("api_key", "any")
            async with (
                httpx2.AsyncClient(transport=transport) as http,
                openai.AsyncOpenAI(base_url=f"{URL}/v1", http_client=http, **settings) as client,
            ):
                return await use(client)

        return asyncio.run(call())

    yield run


@pytest.fixture(scope="session")
def server_url(tiny_engine: Engine) -> Iterator[str]:
    """The address of the tiny engine behind a real server."""
    with serving_api(make_app(tiny_engine).routes) as url:
        yield url


@contextlib.contextmanager
def serving_api(routes: Sequence[BaseRoute]) -> Iterator[str]:
    bound = bind_address("127.0.0.1", 0)
    bound.listen()
    server = ApiServer(routes, lambda: None)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(20)


def drain(engine: Engine) -> None:
    """Wait until nothing is drawn any more: every row is free."""
    for _ in range(600):
        if not engine.busy and not engine.rows:
            return
        time.sleep(0.05)
    raise AssertionError(f"{engine.rows} rows are left, {engine.waiting} requests wait")
