"""No request takes more memory, time or places than it may: with a real server, where bodies arrive in parts."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from app.server import patient_protocol, request_limits
from app.server.guard import guarded
from app.server.patient_protocol import PatientProtocol
from app.server.request_limits import MAX_BODY, MAX_UPLOAD
from engine.listening import bind_address
from tests.app.server.guarding import LOCAL, PAGE, URL


def make_app() -> FastAPI:
    app = FastAPI()
    app.state.read = 0
    app.state.held = asyncio.Event()

    @app.post("/steer")
    async def steer(value: dict) -> int:
        return len(str(value))

    @app.post("/gradio_api/upload")
    async def upload(request: Request) -> int:
        async for part in request.stream():
            app.state.read += len(part)
        return app.state.read

    @app.get("/wait")
    async def wait() -> str:
        await app.state.held.wait()
        return "done"

    @app.get("/")
    async def page() -> str:
        return "page"

    return app


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    listener = bind_address("127.0.0.1", 0)
    config = uvicorn.Config(guarded(app, LOCAL), http=PatientProtocol, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)


def parts(size: int, of: int = 65_536) -> Iterator[bytes]:
    """Bytes that are sent without a Content-Length."""
    for start in range(0, size, of):
        yield b"x" * min(of, size - start)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused(chunked: bool) -> None:
    app = make_app()
    with serving(app) as url:
        for path, limit in (("/steer", MAX_BODY), ("/gradio_api/upload", MAX_UPLOAD)):
            size = limit + 100_000
            body = parts(size) if chunked else b"x" * size
            answer = httpx.post(f"{url}{path}", content=body, timeout=60)
            assert answer.status_code == 413, path
            assert len(answer.text.splitlines()) == 1 and f"{limit:,} bytes" in answer.text
        assert app.state.read <= MAX_UPLOAD
        assert httpx.post(f"{url}/steer", json={"a": "x" * 500_000}, timeout=60).status_code == 200


def test_an_upload_within_its_limit_arrives_whole() -> None:
    with serving(make_app()) as url:
        answer = httpx.post(f"{url}/gradio_api/upload", content=parts(MAX_UPLOAD - 1), timeout=60)
        assert answer.json() == MAX_UPLOAD - 1


def test_an_endless_body_is_not_read_to_its_end() -> None:
    """A client that never stops is cut off."""
    with serving(make_app()) as url:
        host, port = url.removeprefix("http://").split(":")
        sent = 0
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = f"POST /steer HTTP/1.1\r\nHost: {host}:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head.encode())
            with pytest.raises(OSError):
                while sent < 200_000_000:
                    connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                    sent += 65_536
        assert sent < 200_000_000


def test_a_body_that_stalls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limits, "STALLED", 0.2)
    with serving(make_app()) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"POST /steer HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 9\r\n\r\n{{".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("sent", [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: "])
def test_a_connection_without_a_whole_request_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_protocol, "HEADERS_WITHIN", 0.3)
    with serving(make_app()) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(sent)
            assert connection.recv(100) == b""
        # Also as a second request on a connection that was used before.
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            answer = connection.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 200")
            connection.sendall(b"GET / HTT")
            deadline = time.monotonic() + 30
            while answer and time.monotonic() < deadline:
                answer = connection.recv(10_000)
            assert answer == b""


def test_a_long_answer_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_protocol, "HEADERS_WITHIN", 0.1)
    app = make_app()
    with serving(app) as url:
        threading.Timer(0.5, lambda: app.state.held._loop.call_soon_threadsafe(app.state.held.set)).start()
        assert httpx.get(f"{url}/wait", timeout=30).text == '"done"'


def test_requests_at_once_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limits, "PER_ADDRESS", 3)
    monkeypatch.setattr(request_limits, "PER_BROWSER", 2)

    async def scene() -> None:
        app = make_app()
        transport = httpx.ASGITransport(guarded(app, LOCAL), client=("9.9.9.9", 1))
        async with httpx.AsyncClient(transport=transport, base_url=URL) as browser:
            await browser.get("/", headers=PAGE)
            assert browser.cookies["mixdesk_browser"]
            waiting = [asyncio.create_task(browser.get("/wait")) for _ in range(2)]
            await asyncio.sleep(0.1)
            refused = await browser.get("/")
            assert refused.status_code == 429 and "Retry-After" in refused.headers
            assert len(refused.text.splitlines()) == 1
            # A client that sends no cookie, or another, is the same address.
            async with httpx.AsyncClient(transport=transport, base_url=URL) as other:
                assert (await other.get("/")).status_code == 200
                waiting.append(asyncio.create_task(other.get("/wait")))
                await asyncio.sleep(0.1)
                for number in range(3):
                    forged = {"Cookie": f"mixdesk_browser={number:022}", "X-Forwarded-For": f"8.8.8.{number}"}
                    assert (await other.get("/", headers=forged)).status_code == 429
                elsewhere = httpx.ASGITransport(transport.app, client=("7.7.7.7", 1))
                async with httpx.AsyncClient(transport=elsewhere, base_url=URL) as third:
                    assert (await third.get("/")).status_code == 200
                app.state.held.set()
                assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3
                assert (await other.get("/")).status_code == 200

    asyncio.run(scene())


def test_a_body_of_the_right_size_is_passed_on_unchanged() -> None:
    client = TestClient(guarded(make_app(), LOCAL), base_url=URL)
    assert client.post("/steer", json={"a": 1}).json() == len("{'a': 1}")
    assert client.post("/steer", content=b"{").status_code == 422
