"""SIGTERM and Ctrl+C: the process is gone soon, whatever is under way, and says little about it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import copies
from tests.browser.serving import ROOT, free_port

STREAMS = 60
SOON = 15  # seconds: what takes for ever without the bounds, on a machine that is busy

# An app whose responses never end, some of which cannot be cancelled either; it prints a line once it listens.
STUBBORN = """
import asyncio, sys, threading, time
import uvicorn
from engine.listening import bind_address
from app.server.http_server import HttpServer

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print("ready", flush=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"data: 1\\n\\n", "more_body": True})
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if scope["path"] != "/stubborn":
                raise

if len(sys.argv) > 3:
    threading.Thread(target=time.sleep, args=[3600]).start()  # not a daemon: Python waits for it at the end
config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
HttpServer(config, float(sys.argv[2])).run(sockets=[bind_address("127.0.0.1", int(sys.argv[1]))])
print("stopped", flush=True)
"""


class Served:
    """A process that runs STUBBORN, and connections to it."""

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-c", STUBBORN, str(self.port), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = copies.start(command, ROOT, environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout and self.process.stdout.readline() == "ready\n", self.process.communicate()[1]
        self.connections: list[socket.socket] = []

    def stream(self, path: str = "/") -> None:
        """Open an event stream, and read its beginning."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(1000)
        self.connections.append(connection)

    def ended(self) -> tuple[int, str]:
        """Return the status and what is on stderr."""
        _, errors = self.process.communicate(timeout=SOON)
        return self.process.returncode, errors

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def serve() -> Iterator[type[Served]]:
    made: list[Served] = []

    class Kept(Served):
        def __init__(self, *arguments: str) -> None:
            super().__init__(*arguments)
            made.append(self)

    yield Kept
    for served in made:
        served.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_are_cut_off_without_a_traceback_for_each(serve: type[Served], number: int) -> None:
    served = serve("1.7")
    for _ in range(STREAMS):
        served.stream()
    served.process.send_signal(number)
    status, errors = served.ended()
    assert status == 0
    assert len(errors.splitlines()) <= 2 and "Traceback" not in errors, errors


def test_what_cannot_be_cancelled_does_not_hold_it(serve: type[Served]) -> None:
    served = serve("1.7")
    served.stream("/stubborn")
    served.process.terminate()
    assert served.ended()[0] == 0


def test_a_thread_that_works_does_not_hold_it(serve: type[Served]) -> None:
    served = serve("1.7", "with a thread")
    served.process.terminate()
    assert served.ended()[0] == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(serve: type[Served], number: int, status: int) -> None:
    served = serve("3600")
    served.stream("/stubborn")
    served.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert served.process.poll() is None
    served.process.send_signal(number)
    assert served.ended()[0] == status


def test_sigterm_ends_what_is_still_starting() -> None:
    """Also as a container's first process, for which the default is to go on."""
    code = (
        "import signal, time\nfrom engine.shutdown import ending_at_once\n"
        "with ending_at_once():\n    print('starting', flush=True)\n    time.sleep(3600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stdout.readline() == "starting\n"
        process.terminate()
        assert process.wait(timeout=SOON) == 143
    finally:
        process.kill()
        process.communicate()


def test_handlers_are_as_before_after_the_start() -> None:
    from engine.shutdown import ending_at_once

    before = signal.getsignal(signal.SIGTERM)
    with ending_at_once():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    thread = threading.Thread(target=lambda: ending_at_once().__enter__())  # no signal handler can be set there
    thread.start()
    thread.join()


def test_the_app_ends_while_sessions_generate(tiny, tmp_path: Path) -> None:
    """Streams of every kind are open, and responses are under way."""
    port, log = free_port(), tmp_path / "app.log"
    command = [sys.executable, "-m", "app", "--config", tiny.config, "--port", str(port), "--db", tmp_path / "a.db"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    connections = []
    try:
        deadline = time.monotonic() + 120
        while "Mixdesk is at" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        said = len(log.read_text().splitlines())
        for i in range(STREAMS):
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            connection.sendall(f"GET /gradio_api/heartbeat/s{i} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            assert b"200 OK" in connection.recv(1000)
            connections.append(connection)
        process.terminate()
        assert process.wait(timeout=SOON) == 0
        lines = log.read_text().splitlines()[said:]
        assert len(lines) <= STREAMS and "Traceback" not in "".join(lines), lines
    finally:
        process.kill()
        process.wait()
        for connection in connections:
            connection.close()


# A page with one slow handler outside Gradio's queue, and one in it that fails by itself.
PAGE = """
import asyncio, sys
import gradio as gr, uvicorn
from fastapi import FastAPI
from engine.listening import bind_address
from app.server.gradio_compat import print_less
from app.server.http_server import HttpServer

async def wait():
    print("ready", flush=True)
    await asyncio.to_thread(__import__("time").sleep, 3600)

def fail():
    raise RuntimeError("a mistake of its own")

print_less()
with gr.Blocks() as page:
    gr.on([page.load], wait, queue=False, api_name="wait")
    gr.on([page.load], wait, api_name="queued")
    gr.on([page.load], fail, queue=False, api_name="fail")
app = gr.mount_gradio_app(FastAPI(), page, path="/")
config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
HttpServer(config, 1.7).run(sockets=[bind_address("127.0.0.1", int(sys.argv[1]))])
"""


@pytest.mark.parametrize("name", ["wait", "queued"])
def test_a_handler_that_is_cut_off_prints_no_traceback_and_one_that_fails_does(name: str) -> None:
    port = free_port()
    command, environment = [sys.executable, "-c", PAGE, str(port)], {**os.environ, "PYTHONPATH": str(ROOT)}
    process = copies.start(command, ROOT, environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        url = f"http://127.0.0.1:{port}/gradio_api"

        def call(path: str, data: dict[str, object]) -> None:
            request = urllib.request.Request(
                f"{url}/{path}", json.dumps(data).encode(), {"Content-Type": "application/json"}
            )
            with suppress(OSError):
                urllib.request.urlopen(request, timeout=30).read()

        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                urllib.request.urlopen(url + "/info", timeout=30).read()
                break
            time.sleep(0.1)
        call("run/fail", {"data": []})
        if name == "wait":
            threading.Thread(target=call, args=["run/wait", {"data": []}], daemon=True).start()
        else:
            call("call/queued", {"data": []})
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.terminate()
        _, errors = process.communicate(timeout=SOON)
        assert process.returncode == 0
        assert "a mistake of its own" in errors
        assert errors.count("Traceback") == 1 and "CancelledError" not in errors, errors
    finally:
        process.kill()
        process.communicate()
