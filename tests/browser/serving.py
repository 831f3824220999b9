"""The app for a browser: as a process of its own, or served from this one, so that a test can look at its engine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from app.server.desk_app import web_app
from app.services.app_state import Desk
from app.storage.database import Store, open_to_read, read_pairs
from app.ui.page import build_page
from engine import Engine
from engine.listening import bind_address
from tests import copies

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    """The app as a process, and the file that its ratings are in."""

    url: str
    db: Path

    def pairs(self) -> list[dict[str, Any]]:
        source = open_to_read(self.db)
        try:
            return list(read_pairs(source))
        finally:
            source.close()


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
        process = copies.start(command, cwd, env, stdout=output, stderr=subprocess.STDOUT)
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
def running_app(db: Path, *options: str) -> Iterator[str]:
    """`python -m app` on a free port, until the block is left; with the bank that ships, whatever is in the user's own
    cache. options: more of its command line."""
    port = free_port()
    command = [sys.executable, "-m", "app", "--port", str(port), "--db", str(db), *options]
    env = {**os.environ, "XDG_CACHE_HOME": str(db.parent)}
    with started(command, port, db.with_suffix(".log"), ROOT, env) as url:
        yield url


@contextmanager
def running(
    web_app: ASGIApp, grace: int = 0, listener: socket.socket | None = None
) -> Iterator[tuple[str, uvicorn.Server]]:
    """The address of an application, and the server that runs it on a thread. grace: seconds that requests get at the
    end. listener: where it is to answer; else at a port that is free."""
    listener = listener or bind_address("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(web_app, log_level="warning", timeout_graceful_shutdown=grace))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(timeout=30)


class Relay:
    """A port in front of a server, whose connections can be cut while the server goes on."""

    def __init__(self, url: str) -> None:
        self.target = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ends: list[socket.socket] = []
        self.mend()

    def mend(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def cut(self) -> None:
        for end in (self.listener, *self.ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.ends.clear()

    def accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(self.target)
                self.ends += [here, there]
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=self.pass_on, args=pair, daemon=True).start()

    @staticmethod
    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def served(engine: Engine, db: Path, listener: socket.socket | None = None) -> Iterator[tuple[str, Desk]]:
    """A desk's address, and what is behind it. listener: where it is to answer; else at a port that is free."""
    desk = Desk(engine, Store(db))
    try:
        with running(web_app(build_page(desk), desk), listener=listener) as (url, _):
            yield url, desk
    finally:
        desk.comparisons.close()
        desk.store.close()
