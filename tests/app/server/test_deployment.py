"""Where ratings are kept, and their copies in a dataset: against a hub that runs in this process."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from app.server.deployment import find_place
from app.services.app_state import Desk
from app.storage.database import Store
from app.storage.hub_backup import Mirror
from engine import Engine, InputError


@pytest.mark.parametrize(
    ("env", "mounted", "bucket", "dataset", "warned"),
    [
        ({}, True, False, None, ""),
        ({"SPACE_ID": "a/b"}, True, True, None, ""),
        ({"SPACE_ID": "a/b"}, False, False, None, "lost when this Space restarts"),
        ({"SPACE_ID": "a/b", "HF_TOKEN": "t"}, False, False, None, "lost when this Space restarts"),
        ({"SPACE_ID": "a/b", "HF_TOKEN": "t", "MIXDESK_DATASET": "a/r"}, False, False, "a/r", ""),
        ({"SPACE_ID": "a/b", "HF_TOKEN": "t", "MIXDESK_DATASET": "a/r"}, True, True, "a/r", ""),
        ({"MIXDESK_DATASET": "a/r"}, False, False, None, "but no HF_TOKEN"),
    ],
)
def test_place(env: dict, mounted: bool, bucket: bool, dataset: str | None, warned: str, tmp_path: Path) -> None:
    folder = tmp_path if mounted else tmp_path / "none"
    place = find_place(None, env, folder)
    assert place.db == Path("mixdesk.db")  # on the local disk in any case
    assert place.bucket == (folder if bucket else None)
    assert place.dataset == dataset
    assert (warned in place.warning) if warned else place.warning == ""
    assert find_place(Path("mine.db"), env, folder).db == Path("mine.db")


def test_a_bucket_is_where_its_variable_says(tmp_path: Path) -> None:
    env = {"SPACE_ID": "a/b", "MIXDESK_BUCKET": str(tmp_path)}
    assert find_place(None, env, tmp_path / "none").bucket == tmp_path
    assert find_place(None, {"MIXDESK_BUCKET": str(tmp_path)}, tmp_path / "none").bucket == tmp_path
    with pytest.raises(InputError, match="MIXDESK_BUCKET: /nowhere is no folder that can be written"):
        find_place(None, {"MIXDESK_BUCKET": "/nowhere"}, tmp_path)
    with pytest.raises(InputError, match="is in the bucket, where SQLite can lose data"):
        find_place(tmp_path / "mixdesk.db", env, tmp_path)


class Hub(ThreadingHTTPServer):
    """As much of the Hugging Face hub as a commit of small files needs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, str] = {}
        self.created: list[dict] = []
        self.refuses = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.server.refuses or self.headers["Authorization"] != "Bearer secret":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            return self.answer(200, {"url": f"{self.server.url}/datasets/me/ratings"})
        if "/preupload/" in self.path:
            wanted = json.loads(body)["files"]
            return self.answer(
                200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted]}
            )
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"]).decode()
        return self.answer(200, {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.server.url}/c/0"})

    def answer(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    init = HfApi.__init__
    monkeypatch.setattr(HfApi, "__init__", lambda self, **settings: init(self, **{**settings, "endpoint": hub.url}))
    yield hub
    hub.shutdown()
    hub.server_close()


def test_ratings_are_pushed_to_the_dataset(hub: Hub, store: Store, tiny_engine: Engine) -> None:
    mirror = Mirror("me/ratings", "secret", every=60)
    desk = Desk(tiny_engine, store, mirror=mirror)
    made = tiny_engine.generate("mix", max_new_tokens=4)
    for number, choice in enumerate(["left", "tie"]):
        store.rate(f"r-{number}", made, made, choice, "anna")
        desk.copy(f"r-{number}")
    mirror.close()
    (created,) = hub.created
    assert (created["name"], created["organization"], created["type"]) == ("ratings", "me", "dataset")
    assert created.get("visibility") == "private" or created["private"]  # hubs of different versions are told so
    (path,) = hub.files
    assert path.startswith("ratings/ratings-")
    asked = [{"role": "user", "content": "mix"}]
    told = [{**pair, "messages": asked} for pair in store.pairs()]
    assert [json.loads(line) for line in hub.files[path].splitlines()] == told


def test_a_hub_that_refuses_is_told_in_one_line(hub: Hub) -> None:
    hub.refuses = True
    with pytest.raises(InputError, match="MIXDESK_DATASET: cannot use the dataset 'me/ratings'") as raised:
        Mirror("me/ratings", "secret")
    assert "\n" not in str(raised.value)


def test_a_push_that_fails_loses_no_rating(hub: Hub, store: Store, completion) -> None:
    mirror = Mirror("me/ratings", "secret", every=60)
    store.rate("r", completion(), completion("b"), "left", "anna")
    mirror.add(store.pair("r"))
    hub.refuses = True
    mirror.close()
    assert not hub.files
    assert json.loads(mirror.file.read_text())["id"] == "r"
