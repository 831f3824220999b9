"""Clients that read a byte at a time, and connections that are never completed: another client is served as before."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import httpx

from tests.hostile.client import JOIN, Client, RefusedError
from tests.hostile.process import AppProcess
from tests.hostile.result import Result

READERS, HALF_OPEN, SECONDS = 16, 100, 30.0
HONEST = "127.0.0.2"  # the honest client's address
PATIENCE = 30.0  # seconds for an honest client's whole response
HALF = b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
STARTS = [b"", b"GET / HT", HALF, HALF + b'Content-Length: 5000\r\n\r\n{"data": [']


async def read_slowly(app: AppProcess, client: Client) -> None:
    """Begin a run with many tokens, and read its events a byte a second."""
    body = json.dumps(client.generate_body("How do I clean a pan?", 1, 256)).encode()
    with contextlib.suppress(httpx.HTTPError):
        (await client.http.post(JOIN, content=body, headers={"Content-Type": "application/json"})).raise_for_status()
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port, limit=64)
    try:
        path = f"/gradio_api/queue/data?session_hash={client.session}"
        cookies = "; ".join(f"{name}={value}" for name, value in client.http.cookies.items())
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{app.port}\r\nCookie: {cookies}\r\n\r\n"
        writer.write(head.encode())
        while await reader.read(1):
            await asyncio.sleep(1)
    finally:
        writer.close()


async def hold(app: AppProcess, start: bytes) -> None:
    """Open a connection, send the beginning of a request, and nothing more."""
    _, writer = await asyncio.open_connection("127.0.0.1", app.port)
    try:
        writer.write(start)
        await asyncio.sleep(3600)
    finally:
        writer.close()


async def run(app: AppProcess, scale: float) -> Result:
    """Hold the connections, and serve an honest client meanwhile."""
    result = Result(before=app.memory())
    async with Client.open(app.url) as slow, Client.open(app.url, HONEST) as honest:
        held = [asyncio.create_task(read_slowly(app, slow.again())) for _ in range(max(1, round(READERS * scale)))]
        held += [
            asyncio.create_task(hold(app, STARTS[i % len(STARTS)])) for i in range(max(1, round(HALF_OPEN * scale)))
        ]
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                answer = await asyncio.wait_for(honest.generate("How do I store herbs?", 1, 8), PATIENCE)
                result.check(all(answer.texts.values()), f"a response is empty: {answer.texts}")
                result.latencies.append(time.monotonic() - began)
            except (RefusedError, httpx.HTTPError, asyncio.TimeoutError) as error:
                result.check(False, f"the honest client: {type(error).__name__}: {error}")
            await asyncio.sleep(0.5)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        result.check((await honest.http.get("")).status_code == 200, "the page does not come afterwards")
    result.after = app.memory()
    return result
