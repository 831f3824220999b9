"""The app for a browser: as a process of its own, or served from this one, so that a test can look at its engine."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from app import desk as desk_page
from app.__main__ import bind
from app.runs import Desk
from app.store import Store
from engine import Engine


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextmanager
def started(
    command: Sequence[str | Path],
    port: int,
    log: Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    patience: float = 120,
) -> Iterator[str]:
    """The address of a process that answers at this port, until the block is left; it must end well, with no traceback
    in its log. patience: seconds until it must answer."""
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline, url = time.monotonic() + patience, f"http://127.0.0.1:{port}"
        while True:
            assert process.poll() is None, f"the app ended: {log.read_text()}"
            assert time.monotonic() < deadline, f"the app does not answer: {log.read_text()}"
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    assert answer.status == 200
                break
            except OSError:
                time.sleep(0.1)
        yield url
        process.terminate()
        assert process.wait(timeout=30) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()


@contextmanager
def running(web_app: ASGIApp, grace: int = 0) -> Iterator[tuple[str, uvicorn.Server]]:
    """The address of an application, and the server that runs it on a thread. grace: seconds that requests get at the
    end."""
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(web_app, log_level="warning", timeout_graceful_shutdown=grace))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(timeout=30)


@contextmanager
def served(engine: Engine, db: Path) -> Iterator[tuple[str, Desk]]:
    """A desk's address, and what is behind it."""
    desk = Desk(engine, Store(db))
    try:
        with running(desk_page.web_app(desk_page.build(desk), desk)) as (url, _):
            yield url, desk
    finally:
        desk.comparisons.close()
        desk.store.close()
