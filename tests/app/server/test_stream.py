"""What static/js/text.js reads: the text of a run as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.server import stream
from app.server.stream import events, serve_text
from app.services import generation_run
from app.services.app_state import Desk
from app.services.generation_run import Run
from engine import Engine, Sampling
from engine.inference.batch import Batch


@pytest.fixture
def desk(store, tiny_engine: Engine) -> Desk:
    return Desk(tiny_engine, store)


@pytest.fixture
def client(desk: Desk) -> Iterator[TestClient]:
    app = FastAPI()
    serve_text(app, desk)
    with TestClient(app) as client:
        yield client


def start(desk: Desk, sampling: Sampling | None = None) -> Run:
    return desk.start("me", "mix", {"left": desk.engine.mixture()}, sampling or Sampling(max_new_tokens=20), 1)


def read(client: TestClient, path: str, **headers: str) -> tuple[list[Any], list[int], int]:
    """The lines, the id of each message, and how many responses its end speaks of."""
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines, ids, end = [], [], None
    for message in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in message.splitlines() if ": " in line)
        if fields.get("event") == "end":
            end = int(fields["data"])
        elif "data" in fields:
            assert end is None
            lines += json.loads(fields["data"])
            ids.append(int(fields["id"]))
    assert end is not None
    return lines, ids, end


def test_the_text_comes_as_messages_and_ends(desk: Desk, client: TestClient) -> None:
    run = start(desk)
    lines, ids, end = read(client, f"/text/{run.id}")
    assert lines == [json.loads(line) for line in run.lines()]
    said = "".join(said["rest"] if isinstance(said, dict) else said[0] for _, said in lines[2:])
    assert said == run.completions["left"].text
    assert ids == sorted(ids) and ids[-1] == len(lines)
    assert end == 1


def test_a_connection_that_broke_goes_on_where_it_was(desk: Desk, client: TestClient) -> None:
    run = start(desk)
    lines, _, _ = read(client, f"/text/{run.id}")
    for path, headers in ((f"/text/{run.id}?at=4", {}), (f"/text/{run.id}?at=1", {"Last-Event-ID": "4"})):
        rest, ids, _ = read(client, path, **headers)
        assert rest == lines[4:] and ids == [len(lines)]
    # One that knows all of it, or more than there is, is told that it has ended.
    for at in (len(lines), 10**9):
        assert read(client, f"/text/{run.id}?at={at}") == ([], [], 1)


def test_only_its_id_opens_a_text(desk: Desk, client: TestClient) -> None:
    run = start(desk)
    for path in ("/text/", "/text/me", "/text/left", f"/text/{run.id}x", f"/text/{run.id[:-1]}", "/text/%E2%82%AC"):
        answer = client.get(path)
        assert answer.status_code == 404 and "mix" not in answer.text, path
    assert read(client, f"/text/{run.id}", **{"Last-Event-ID": "-1 or 1=1"})[0]
    assert read(client, f"/text/{run.id}?at=-5")[0] == read(client, f"/text/{run.id}")[0]
    assert client.get(f"/text/{run.id}?at=many").status_code == 422
    desk.forget("me")
    assert client.get(f"/text/{run.id}").status_code == 404


def test_a_text_that_nobody_reads_ends(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(back: bool) -> Run:
        run = start(desk, Sampling(max_new_tokens=200, temperature=1.0))
        reading = events(run, 0)
        for _ in range(3):
            await anext(reading)
        assert run.readers == 1
        await reading.aclose()
        if back:  # as a browser does whose connection broke
            async for _ in events(run, 0):
                pass
        async for _ in run.updates():
            pass
        return run

    monkeypatch.setattr(stream, "LEFT_FOR", 0.05)
    step = Batch.step
    monkeypatch.setattr(Batch, "step", lambda batch, drawn: (time.sleep(0.005), step(batch, drawn))[1])
    assert asyncio.run(scene(back=False)).completions["left"].finish_reason == "stopped"
    assert asyncio.run(scene(back=True)).completions["left"].finish_reason != "stopped"


class Silent:
    """A response that has begun, and of which nothing more comes."""

    over, count, kept, text, completion = False, 1, 0, "a", None

    def read(self, write: Any, notify: Any) -> None:
        self.notify = notify

    def note(self) -> str:
        return ""


def test_a_silent_stream_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    assert generation_run.PING <= 15, "proxies cut streams that are silent for 30 seconds"
    monkeypatch.setattr(generation_run, "PING", 0.05)
    response: Any = Silent()

    async def signs() -> list[str]:
        run = Run("mix", {"left": response})
        messages = []
        async for message in events(run, 0):
            messages.append(message)
            if len(messages) == 5:
                response.over = True
                response.notify()
        return messages

    retry, lines, *pings, end = asyncio.run(asyncio.wait_for(signs(), 20))
    assert retry.startswith("retry: ") and lines.startswith("id: 1\n") and end.startswith("event: end\n")
    assert len(pings) >= 3 and set(pings) == {":\n\n"}
