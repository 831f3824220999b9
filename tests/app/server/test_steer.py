"""What static/js/steer.js asks when a fader moves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.server.desk_app import web_app
from app.services.app_state import Desk
from app.services.generation_run import Run
from app.ui.page import build_page
from engine import Engine, Sampling


@pytest.fixture
def desk(store, tiny_engine: Engine) -> Desk:
    return Desk(tiny_engine, store)


@pytest.fixture
def client(desk: Desk) -> TestClient:
    return TestClient(web_app(build_page(desk), desk))


@pytest.fixture
def held(desk: Desk) -> Iterator[threading.Event]:
    """The engine draws nothing before this is set."""
    go = threading.Event()
    desk.engine._scheduler.post(lambda: go.wait(30) and None)
    yield go
    go.set()


def start(desk: Desk) -> Run:
    sampling = Sampling(max_new_tokens=20, temperature=1.0)
    return desk.start("me", "move the faders", {"left": desk.engine.mixture()}, sampling, 1, steerable=["left"])


def asked(desk: Desk, run: str = "", turn: int = 1, first: float = 0.25, **others: Any) -> dict[str, Any]:
    faders = {**dict.fromkeys(desk.policies, 1.0), desk.policies[0]: first}
    mixture = {"faders": faders, "channels": {}, "rule": "geometric", "gain": 1, "exponent": 1, **others}
    return {"run": run, "turn": turn, "mixture": mixture}


def test_faders_steer_the_run_that_the_page_knows(desk: Desk, client: TestClient, held: threading.Event) -> None:
    run = start(desk)
    answer = client.post("/steer", json=asked(desk, run.id, turn=2))
    assert answer.status_code == 200 and set(answer.json()["expected"]) == {"line", "traces", "standard"}
    # What was asked before and comes later, and what no page of this run asks, changes nothing.
    for late in (asked(desk, run.id, turn=1, first=0.75), asked(desk, "another", turn=3, first=0.75)):
        assert client.post("/steer", json=late).status_code == 200
    held.set()
    completion = run.responses["left"].request.completion()
    weights = {name: (0.25 if i == 0 else 1.0) for i, name in enumerate(desk.policies)}
    assert completion.mixture == desk.engine.mixture(weights)


def test_what_no_page_asks_is_refused(desk: Desk, client: TestClient) -> None:
    for wrong in (
        {"turn": 1, "mixture": {}},
        {"turn": 1, "mixture": [1.0]},
        {"mixture": asked(desk)["mixture"]},
        asked(desk, faders={"strange": 1}),
        asked(desk, gain=100),
        asked(desk, channels="nonsense"),
        asked(desk, rule="<b>"),
        asked(desk, first="much"),
    ):
        assert client.post("/steer", json=wrong).status_code == 422, wrong
    assert client.post("/steer", content=b"nonsense").status_code == 422


def test_silence_is_told(desk: Desk, client: TestClient, held: threading.Event) -> None:
    run = start(desk)
    silent = asked(desk, run.id)
    silent["mixture"]["faders"] = dict.fromkeys(desk.policies, 0.0)
    assert "All faders are at zero" in client.post("/steer", json=silent).json()["said"]
