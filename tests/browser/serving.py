"""The desk served from this process, so that a test can look at its engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from app import desk as desk_page
from app.__main__ import bind
from app.runs import Desk
from app.store import Store
from engine import Engine


@contextmanager
def served(engine: Engine, db: Path) -> Iterator[tuple[str, Desk]]:
    """Its address, and what is behind it."""
    listener = bind("127.0.0.1", 0)
    desk = Desk(engine, Store(db))
    web_app = desk_page.web_app(desk_page.build(desk), desk)
    server = uvicorn.Server(uvicorn.Config(web_app, log_level="warning", timeout_graceful_shutdown=0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", desk
    server.should_exit = True
    thread.join(timeout=30)
    desk.store.close()
