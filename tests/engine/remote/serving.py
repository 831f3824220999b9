"""A server on a thread, for an engine that others call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from engine.listening import bind_address
from tests.browser.serving import running


@contextmanager
def serving(routes: Sequence[BaseRoute], port: int = 0) -> Iterator[str]:
    """The address of a server with these routes, which runs on a thread until the block is left."""
    with running(Starlette(routes=list(routes)), listener=bind_address("127.0.0.1", port)) as (url, _):
        yield url
