"""A session hash out of a log opens no session in another browser."""

from __future__ import annotations

import json

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.server.guard import guarded
from app.services.app_state import Desk
from app.services.visitor import Visitor
from engine import Engine, Sampling
from tests.app.server.guarding import LOCAL, URL, app_of, browsing


async def show(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse(
        {"path": request.url.path, "query": dict(request.query_params), "body": body.decode(errors="replace")}
    )


@pytest.fixture
def app():
    return guarded(Starlette(routes=[Route("/{path:path}", show, methods=["GET", "POST"])]), LOCAL)


def hashes(client: TestClient, prefix: str = "") -> set[str]:
    """The session hashes that reach Gradio for "abc"."""
    made = [client.get(f"{prefix}/gradio_api/heartbeat/abc").json()["path"].rpartition("/")[2]]
    made.append(client.get(f"{prefix}/gradio_api/queue/data?session_hash=abc").json()["query"]["session_hash"])
    for path in (
        "queue/join",
        "queue/join/",
        "run/predict",
        "call/generate",
        "call/v2/generate/",
        "component_server",
        "cancel",
        "reset",
    ):
        asked = {"session_hash": "abc", "data": ["é", None, 1.5, 10**20], "event_data": {"session_hash": "abc"}}
        got = json.loads(client.post(f"{prefix}/gradio_api/{path}", json=asked).json()["body"])
        made.append(got.pop("session_hash"))
        asked.pop("session_hash")
        assert got == asked
    return set(made)


def test_a_session_has_one_hash_in_its_browser_and_another_elsewhere(app) -> None:
    with browsing(app) as mine, browsing(app) as other:
        (own,) = hashes(mine)
        assert own.startswith("abc.") and hashes(mine, "/desk/two") == {own}
        (foreign,) = hashes(other)
        (bare,) = hashes(TestClient(app, base_url=URL))
        assert len({own, foreign, bare, "abc"}) == 4
        # Nor does the hash that Gradio knows.
        assert other.get(f"/gradio_api/heartbeat/{own}").json()["path"].rpartition("/")[2] != own


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"session_hash": 5}', b'{"data": []}', b"\xff", b"[" * 9000]
)
def test_other_bodies_are_left_as_they_are(app, body: bytes) -> None:
    with browsing(app) as client:
        assert client.post("/gradio_api/queue/join", content=body).json()["body"] == body.decode(errors="replace")
        assert json.loads(client.post("/steer", json={"session_hash": "abc"}).json()["body"]) == {"session_hash": "abc"}


def test_gradio_does_not_find_the_session_of_another_browser(
    store, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tiny_engine, store)
    app = app_of(desk)
    stopped: list[str] = []
    monkeypatch.setattr(desk, "stop", stopped.append)
    with browsing(app) as mine, browsing(app) as other:
        config = mine.get("/config").json()
        index = next(one["id"] for one in config["dependencies"] if one["api_name"] == "stop")
        for client in (mine, mine, other):
            asked = {"fn_index": index, "data": [], "session_hash": "abc"}
            assert client.post("/gradio_api/run/predict", json=asked).status_code == 200
        first, again, foreign = stopped
        assert first == again != foreign
        assert mine.cookies["mixdesk_browser"] in first and "abc" in first


def test_a_run_is_read_and_steered_in_its_own_browser(
    store, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tiny_engine, store)
    app = app_of(desk)
    steered: list[str] = []

    async def follow(run: str, turn: int, mixture) -> dict:
        steered.append(run)
        return {}

    monkeypatch.setattr(desk, "follow", follow)
    with browsing(app) as mine, browsing(app) as other:
        session = f"{mine.cookies['mixdesk_browser']}:abc"
        run = desk.start(session, "mix", {"left": desk.engine.mixture()}, Sampling(max_new_tokens=4), 1)
        assert mine.get(f"/text/{run.id}").status_code == 200
        mixture = {"faders": dict.fromkeys(desk.policies, 1.0), "rule": "geometric", "gain": 1, "exponent": 1}
        asked = {"run": run.id, "turn": 1, "mixture": mixture}
        for client, found in ((mine, run.id), (other, ""), (TestClient(app, base_url=URL), "")):
            answer = client.post("/steer", json=asked)
            assert answer.status_code == 200, answer.text
            assert steered.pop() == found
            if not found:
                assert client.get(f"/text/{run.id}").status_code == 404
    assert desk.find(run.id) is run and desk.find(run.id, Visitor("another")) is None
