"""Gradio's routes that the page does not use are closed, uploads have a limit, and open pages keep their runs."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from gradio.utils import get_upload_folder

from app.server import uploads
from app.server.desk_app import web_app
from app.server.gradio_compat import ABANDONED, MAX_UNREAD, forget_abandoned, forget_unread
from app.server.uploads import UploadRoom, make_room, own_folder
from app.services.app_state import Desk
from app.ui.page import KEPT, SESSIONS, WAITING, build_page
from engine import Engine
from tests.app.server.guarding import app_of, browsing


@pytest.fixture
def desk(store, tiny_engine: Engine) -> Desk:
    return Desk(tiny_engine, store)


@pytest.fixture
def client(desk: Desk) -> TestClient:
    return TestClient(web_app(build_page(desk), desk))


@pytest.mark.parametrize(
    "path",
    [
        "/openapi.json", "/docs", "/redoc", "/monitoring", "/monitoring/", "/monitoring/summary", "/monitoring/key",
        "/gradio_api/openapi.json", "/gradio_api/docs", "/gradio_api/dev/reload", "/gradio_api/deep_link",
        "/gradio_api/runs", "/gradio_api/proxy=https://example.org/", "/gradio_api/vibe-code", "/gradio_api/token",
        "/gradio_api/mcp/", "/gradio_api/profiling/traces",
    ],
)  # fmt: skip
def test_what_the_page_does_not_use_is_closed(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and answer.text == "There is no such page here.\n"
    assert client.post(path).status_code == 404


def test_what_the_page_uses_is_open(client: TestClient) -> None:
    for path in ("/", "/config", "/gradio_api/info", "/theme.css", "/gradio_api/startup-events", "/manifest.json"):
        assert client.get(path).status_code == 200, path


def test_what_gradio_keeps_is_limited(desk: Desk) -> None:
    blocks = build_page(desk)
    assert blocks.delete_cache == KEPT and blocks.state_session_capacity == SESSIONS
    assert blocks._queue.max_size == WAITING
    assert blocks._queue.pending_messages_per_session.max_size == SESSIONS
    assert KEPT[1] <= 3600 and SESSIONS <= 1000 and WAITING <= 1000


def test_what_gradio_keeps_of_abandoned_sessions_is_dropped(client: TestClient) -> None:
    page = client.app.routes[-1].app
    queue, states = page.get_blocks()._queue, page.state_holder
    sessions = ("gone", "open", "new", "busy")
    for session in sessions:
        assert states[session]
        queue.pending_messages_per_session[session] = asyncio.Queue()
        queue.pending_event_ids_session[session] = {"event"}
        if session != "new":
            states.time_last_used[session] -= timedelta(seconds=ABANDONED + 1)
    job = [SimpleNamespace(session_hash="busy")]
    queue.active_jobs = [None, job]
    forget_abandoned(client.app, {"open"})
    left = set(sessions) - {"gone"}
    assert set(states.session_data) & set(sessions) == set(states.time_last_used) & set(sessions) == left
    assert left == set(queue.pending_messages_per_session) & set(sessions)
    assert left == set(queue.pending_event_ids_session) & set(sessions)


def test_results_that_no_page_fetches_are_dropped(client: TestClient) -> None:
    pending = client.app.routes[-1].app.get_blocks()._queue.pending_messages_per_session
    for session, count in (("gone", MAX_UNREAD + 1), ("here", MAX_UNREAD)):
        pending[session] = asyncio.Queue()
        for number in range(count):
            pending[session].put_nowait(number)
    forget_unread(client.app)
    assert (pending["gone"].qsize(), pending["here"].qsize()) == (0, MAX_UNREAD)


def test_uploads_have_a_limit_together(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    monkeypatch.setattr(uploads, "MAX_UPLOADS", 1000)
    file = {"files": ("a.txt", b"x" * 1200)}
    assert client.post("/gradio_api/upload", files=file).status_code == 200
    (folder / "full").write_bytes(b"x" * 1200)
    answer = client.post("/gradio_api/upload", files=file)
    assert answer.status_code == 507 and len(answer.text.splitlines()) == 1


def test_what_is_left_of_broken_uploads_is_deleted(tmp_path: Path) -> None:
    for name, age in (("tmpold", 10_000), ("tmpnew", 0), ("kept/a.txt", 10_000)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"12345")
        os.utime(path, (time.time() - age,) * 2)
    assert make_room(tmp_path) == 10
    assert not (tmp_path / "tmpold").exists() and (tmp_path / "tmpnew").exists() and (tmp_path / "kept/a.txt").exists()


def test_uploads_of_an_address_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    room = UploadRoom()
    assert [room.refusal("a") for _ in range(uploads.PER_MINUTE)] == [None] * uploads.PER_MINUTE
    refusal = room.refusal("a")
    assert refusal is not None and refusal[1] == 429
    assert room.refusal("b") is None


def test_uploaded_files_are_in_a_folder_that_ends_with_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    before = get_upload_folder()
    with own_folder():
        folder = Path(get_upload_folder())
        assert folder.is_dir() and str(folder) != before
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists() and get_upload_folder() == before


def test_a_session_is_open_while_its_heartbeat_lasts(desk: Desk) -> None:
    seen = []

    async def app(scope, receive, send) -> None:
        seen.append(dict(desk.runs.open))

    from starlette.testclient import TestClient as Plain

    from app.server.desk_routes import DeskRoutes

    async def answered(scope, receive, send) -> None:
        await app(scope, receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    Plain(DeskRoutes(answered, desk)).get("/gradio_api/heartbeat/abc")
    assert seen == [{"abc": 1}] and not desk.runs.open


@pytest.mark.parametrize("number", [10**6, -1, None, "1", True, 1.5])
@pytest.mark.parametrize("path", ["queue/join", "run/predict"])
def test_unknown_handlers_are_refused(desk: Desk, path: str, number: object) -> None:
    body = {"data": [], "fn_index": number, "session_hash": "a"}
    with browsing(app_of(desk)) as client:
        answer = client.post(f"/gradio_api/{path}", json=body)
    assert answer.status_code == 404 and answer.text == "The page has no such handler: load it again.\n"


@pytest.mark.parametrize("path", ["steer", "gradio_api/queue/join", "gradio_api/component_server"])
@pytest.mark.parametrize("value", ["NaN", "-Infinity", '"\\ud800"', '{"\\udfff": 1}'])
def test_json_that_no_answer_can_hold_is_refused(desk: Desk, path: str, value: str) -> None:
    with browsing(app_of(desk)) as client:
        answer = client.post(f"/{path}", content=f'{{"run": {value}}}', headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.text.startswith("The request's JSON has ")
    assert len(answer.text.splitlines()) == 1
