"""Odd bodies of requests: each is refused with a status of its own, and the app goes on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from tests.hostile.client import JOIN, PREDICT, Client
from tests.hostile.process import AppProcess
from tests.hostile.result import Result

STEER = "steer"
GIGABYTE = 10**9
SENT = 64 * 2**20  # bytes of an endless body that may be read before it is refused
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Case:
    """A request, and the statuses that it may be answered with."""

    name: str
    path: str
    statuses: tuple[int, ...]
    content: bytes | None = None
    json: Any = None


def cases(client: Client) -> list[Case]:
    """Return all requests whose body is sent at once."""
    good = client.generate_body("How do I clean a pan?", 1, 4)
    large, deep = b'"' + b"x" * 2_000_000 + b'"', b"[" * 200_000 + b"]" * 200_000
    refused = (400, 404, 413, 422)
    every = [
        Case("2 MB of JSON", STEER, (413,), b'{"run": ' + large + b"}"),
        Case("2 MB of JSON in the queue", JOIN, (413,), b'{"data": [' + large + b"]}"),
        Case("2 MB of JSON for a handler", PREDICT, (413,), b'{"data": [' + large + b"]}"),
        Case("2 MB that are no JSON", STEER, (413,), b"\0" * 2_000_000),
        Case("no prompt, but a trigger", JOIN, (200, *refused), json={**good, "data": []}),
        Case("unknown handler", JOIN, refused, json={**good, "fn_index": 10**6}),
        Case("negative handler", JOIN, refused, json={**good, "fn_index": -1}),
        Case("no handler", JOIN, refused, json={**good, "fn_index": None}),
        Case("unknown handler, at once", PREDICT, refused, json={**good, "fn_index": 10**6}),
        Case("data that are none", JOIN, refused, json={**good, "data": "text"}),
        Case("session that is a list", JOIN, refused, json={**good, "session_hash": ["a"]}),
        Case("an endless session", JOIN, (200, *refused), json={**good, "session_hash": "x" * 500_000}),
        Case("settings that are no JSON", JOIN, (200, *refused), json={**good, "data": ["{"]}),
        Case("settings that are a number", JOIN, (200, *refused), json={**good, "data": [7]}),
    ]
    for name, content in {
        "nothing": b"",
        "no JSON": b"nonsense",
        "deep JSON": deep[:900_000],
        "JSON cut off": b'{"run": "a", "turn": 1, "mixture": {',
        "no UTF-8": b'{"run": "\xff\xfe"}',
        "half a character": b'{"run": "\\ud800", "turn": 1, "mixture": {}}',
        "a list": b"[1, 2]",
        "null": b"null",
        "a number of 100,000 digits": b'{"run": "a", "turn": ' + b"9" * 100_000 + b"}",
        "NaN": b'{"run": "a", "turn": NaN, "mixture": NaN}',
        "a text for the mixture": b'{"run": "a", "turn": 1, "mixture": "x"}',
        "200,000 keys": b"{" + b",".join(b'"k%d":1' % i for i in range(80_000)) + b"}",
    }.items():
        every.append(Case(f"{name}, to the faders", STEER, refused, content))
        every.append(Case(f"{name}, to the queue", JOIN, refused, content))
    return every


async def endless(sent: list[int]) -> AsyncIterator[bytes]:
    """Yield a gigabyte in pieces, and count it."""
    for _ in range(GIGABYTE // 65536):
        sent[0] += 65536
        yield b"x" * 65536


async def cut_off(http: httpx.AsyncClient, path: str, headers: dict[str, str], result: Result) -> None:
    """Send a gigabyte in chunks; it must be refused long before its end, as too long or as malformed."""
    sent = [0]
    try:
        answer = await http.post(path, content=endless(sent), headers=headers)
        result.check(answer.status_code in (400, 413), f"a gigabyte to {path}: {answer.status_code}")
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        result.count += 1  # the connection was closed while the rest was on its way
    result.check(sent[0] <= SENT, f"a gigabyte to {path}: {sent[0]:,} bytes were taken")


async def run(app: AppProcess, scale: float) -> Result:
    """Send all bodies; with a scale above 1, that often."""
    result = Result(before=app.memory())
    async with Client.open(app.url, timeout=60) as client:
        http = client.http
        for _ in range(max(1, round(scale))):
            for case in cases(client):
                began = time.monotonic()
                try:
                    if case.json is not None:
                        answer = await http.post(case.path, json=case.json)
                    else:
                        answer = await http.post(case.path, content=case.content, headers=JSON)
                except httpx.HTTPError as error:
                    # The answer may be lost where the rest of a large body is refused.
                    large = case.content is not None and len(case.content) > 10**6
                    result.check(large, f"{case.name}: {type(error).__name__}: {error}")
                    continue
                result.latencies.append(time.monotonic() - began)
                result.check(
                    answer.status_code in case.statuses,
                    f"{case.name}: {answer.status_code}, expected {' or '.join(map(str, case.statuses))}",
                )
            await cut_off(http, STEER, JSON, result)
            await cut_off(http, JOIN, JSON, result)
            form = {"Content-Type": "multipart/form-data; boundary=b"}
            await cut_off(http, "gradio_api/upload", form, result)
        made = await client.again().generate("How do I clean a pan?")
        result.check(all(made.texts.values()), f"a response is empty afterwards: {made.texts}")
    result.after = app.memory()
    return result
