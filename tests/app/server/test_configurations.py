"""Which configurations there are, which are loaded, and what the site answers for the others."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.server import gradio_compat, zero
from app.server.app import Site
from app.server.configurations import Configuration, Configurations, find, for_visitors, looks_like_one, read
from app.server.desk_app import web_app
from app.services.app_state import Desk
from app.ui.page import build_page
from engine import Engine, InputError
from engine.names import slug_of


def test_the_menu_has_what_was_named_and_what_lies_beside(tiny, tmp_path: Path) -> None:
    for name, text in {
        "b.yaml": "name: b\nbase: x\npolicies: []",
        "a.yml": "name: a\nbase: x\npolicies: []",
        "compose.yaml": "services: {}",
        "bad.yaml": "a: [",
        "latin.yaml": "name: é",
    }.items():
        (tmp_path / name).write_text(text, encoding="latin-1")
    first = tmp_path / "first.yaml"
    first.write_text(tiny.config.read_text().replace("base: base", f"base: {tiny.base}"))
    first.write_text(first.read_text().replace("adapter: ", f"adapter: {tiny.folder}/"))
    assert [file.name for file in find(first, [tiny.config])] == ["first.yaml", "tiny.yaml", "a.yml", "b.yaml"]
    with pytest.raises(InputError, match="no such file"):
        find(first, [tmp_path / "missing.yaml"])


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Demo", "demo-2"),
        ("../../etc/passwd", "etc-passwd"),
        ("<b>", "b"),
        ("你好", "configuration"),
        ("x" * 99, "x" * 60),
    ],
)
def test_addresses_are_plain(name: str, slug: str) -> None:
    assert slug_of(name, {"demo": 1}) == slug


class Scene:
    """Configurations whose desks are the tiny engine's, without loading anything."""

    def __init__(self, tiny, store, loaded: int = 2, root: str = "") -> None:
        self.files = [tiny.write(f"{name}.yaml", name=name) for name in ("one", "two", "three")]
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.held = threading.Event()
        self.held.set()

        def open_desk(config, tell) -> Desk:
            self.opened.append(config.name)
            tell("loading")
            assert self.held.wait(20)
            return FakeDesk(config.name, self.closed)

        def build_app(desk, menu, root) -> FastAPI:
            app = FastAPI()
            app.get("/")(lambda: f"{desk.name} at {root}")
            app.get("/part/of/it")(lambda: desk.name)
            return app

        self.configurations = Configurations(self.files, open_desk, build_app, loaded, root)
        self.configurations.begin(FakeDesk("one", self.closed))
        self.site = Site(self.configurations, root)

    def __getitem__(self, slug: str) -> Configuration:
        return self.configurations.all[slug]


class FakeDesk:
    def __init__(self, name: str, closed: list[str]) -> None:
        self.name, self.busy, self.engine = name, False, self
        self.release = lambda: closed.append(name)
        self.close = lambda: None

    def warm_up(self) -> None:
        pass


@pytest.fixture
def scene(tiny, store) -> Scene:
    return Scene(tiny, store)


@pytest.fixture
def client(scene: Scene) -> Iterator[TestClient]:
    with TestClient(scene.site, follow_redirects=False) as client:
        yield client


def wait(client: TestClient, slug: str) -> dict:
    client.post(f"/configurations/{slug}").raise_for_status()
    for _ in range(500):
        described = client.get(f"/configurations/{slug}").json()
        if described["state"] != "loading":
            return described
        client.portal.call(asyncio.sleep, 0.01)
    raise AssertionError(described)


def test_each_is_at_its_own_address(client: TestClient) -> None:
    assert client.get("/").json() == "one at "
    assert client.get("/desk/two/").headers["location"] == "../../?load=two"
    assert client.get("/desk/two/part/of/it").status_code == 410
    assert wait(client, "two")["path"] == "desk/two/"
    assert client.get("/desk/two/").json() == "two at /desk/two"
    assert client.get("/desk/two/part/of/it").json() == "two"
    assert client.get("/desk/two").headers["location"] == "two/"
    assert client.get("/desk/one/").headers["location"] == "../../"


@pytest.mark.parametrize("path", ["/desk/none/", "/desk/none", "/desk//", "/desk/%2e%2e/%2e%2e/etc", "/desk/<b>/"])
def test_unknown_addresses_are_told_plainly(path: str, client: TestClient) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/plain") and "no such configuration" in answer.text
    assert "<b>" not in answer.text
    assert client.post("/configurations/none").status_code == 404
    assert client.post("/configurations/two", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/configurations/two").json()["state"] == "closed"


@pytest.mark.parametrize("root", ["/mix", "https://example.com/mix"])
@pytest.mark.parametrize("prefix", ["", "/mix"])
def test_behind_a_proxy(root: str, prefix: str, tiny, store) -> None:
    """Whether or not it takes the root off the path."""
    with TestClient(Scene(tiny, store, root=root).site) as client:
        assert wait(client, "two")["state"] == "ready"
        assert client.get(f"{prefix}/desk/two/").json() == f"two at {root}/desk/two"
        assert client.get(f"{prefix}/").json() == f"one at {root}"
        assert client.get(f"{prefix}/configurations").json()[1]["state"] == "ready"


def test_the_least_recently_used_idle_one_makes_room(scene: Scene, client: TestClient) -> None:
    wait(client, "two")
    wait(client, "three")
    assert (scene["two"].state, scene["three"].state, scene["one"].state) == ("closed", "ready", "ready")
    assert scene.closed == ["two"]
    scene["three"].page.desk.busy = True
    described = wait(client, "two")
    assert described["state"] == "failed" and "2 configurations are in use" in described["says"]
    assert scene["three"].state == "ready"
    scene["three"].page.desk.busy = False
    assert wait(client, "two")["state"] == "ready"


def test_one_is_loaded_once_and_says_how_far_it_is(scene: Scene, client: TestClient) -> None:
    scene.held.clear()
    for _ in range(3):
        client.post("/configurations/two")
    while (described := client.get("/configurations/two").json())["says"] != "loading":
        assert described["state"] == "loading"
    assert described["seconds"] >= 0
    assert client.get("/").status_code == 200, "the others wait for it"
    scene.held.set()
    assert wait(client, "two")["state"] == "ready"
    assert scene.opened == ["two"]


def test_one_that_cannot_be_loaded_says_why(scene: Scene, client: TestClient, monkeypatch, tiny) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    wait(client, "two")
    tiny.write("three.yaml", name="three", base="someone/who-is-not-there")
    described = wait(client, "three")
    assert described["state"] == "failed"
    assert "someone/who-is-not-there" in described["says"] and "no route to host" in described["says"]
    assert "\n" not in described["says"]
    assert scene["two"].state == "ready", "room was made for nothing"
    scene.configurations.open_desk = lambda *_: (_ for _ in ()).throw(MemoryError("x" * 1000))
    assert wait(client, "three")["state"] == "failed"
    tiny.write("three.yaml", name="three", base="../models/not there")
    says = wait(client, "three")["says"]
    missing = "expected a path that exists (../models/not there does not) or a hub id"
    assert says == f"three.yaml: base: found '../models/not there', {missing}"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("/srv/desk/data/configs/a.yaml: base: none", "a.yaml: base: none"),
        ("a.yaml: (/srv/desk/data/configs/demo/my base does not)", "a.yaml: (demo/my base does not)"),
        ("found '../demo', expected (/srv/desk/data/demo does not)", "found '../demo', expected (../demo does not)"),
        ("expected (/srv/models/llama does not)", "expected (../../../models/llama does not)"),
        ("expected (/home/somebody/own models/llama does not)", "expected (llama does not)"),
        ("the hub says 404 for https://hub.example/org/model:\n see to it", "the hub says 404 for "
         "https://hub.example/org/model: see to it"),
        ("mend 'org/model' and/or ./here, ../there and ~/else", "mend 'org/model' and/or ./here, ../there and ~/else"),
    ],
)  # fmt: skip
def test_visitors_are_not_told_where_this_machine_keeps_its_files(said: str, shown: str) -> None:
    assert for_visitors(said, Path("/srv/desk/data/configs/a.yaml")) == shown


def test_what_was_closed_is_gone_from_memory(tiny, store) -> None:
    models: list[weakref.ref] = []

    def open_desk(config, tell) -> Desk:
        desk = Desk(Engine(config, tell), store)
        models.append(weakref.ref(desk.engine.policy_set.models[0]))
        return desk

    def build_app(desk, menu, root) -> FastAPI:
        return web_app(build_page(desk, menu), desk, root)

    files = [tiny.config, tiny.write("two.yaml", name="two")]
    configurations = Configurations(files, open_desk, build_app)
    configurations.begin(open_desk(read(files[0]), print))
    with TestClient(Site(configurations)) as client:
        assert wait(client, "two")["state"] == "ready"
        assert '"root":"http://testserver/desk/two"' in client.get("/desk/two/").text
        client.portal.call(configurations._close, configurations.all["two"])
        gc.collect()
        assert [model() is None for model in models] == [False, True]
    configurations.close()


def test_a_page_is_built_apart_from_what_other_threads_make() -> None:
    gradio_compat.keep_apart()
    began, go_on = threading.Event(), threading.Event()
    pages: list[gr.Blocks] = []

    def work() -> None:
        with gr.Blocks() as page:
            gr.Button("mine")
            began.set()
            go_on.wait(20)
        pages.append(page)

    thread = threading.Thread(target=work)
    thread.start()
    assert began.wait(20)
    gr.Button("another's")
    go_on.set()
    thread.join()
    assert [block.value for block in pages[0].blocks.values() if isinstance(block, gr.Button)] == ["mine"]


def test_a_zerogpu_space_is_told_that_the_app_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for the package: a marked function, then the report."""
    assert not zero.on_zero()
    package = tmp_path / "spaces"
    package.mkdir()
    (package / "__init__.py").write_text("told = []\ndef GPU(function):\n    told.append(function.__name__)\n")
    (package / "config.py").write_text("class Config:\n    zero_gpu = True\n")
    (package / "zero.py").write_text("from spaces import told\ndef startup():\n    told.append('startup')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert zero.on_zero()
    zero.report()
    told = sys.modules["spaces"].told
    for name in ("spaces", "spaces.config", "spaces.zero"):
        del sys.modules[name]
    assert told == ["unused", "startup"]


def test_a_file_beside_it_that_is_nested_too_deeply_is_not_in_the_menu(tmp_path: Path) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text("name: " + "[" * 3000)
    assert not looks_like_one(file)


def test_the_site_removes_runs_of_sessions_that_ended_without_notice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = threading.Event()
    monkeypatch.setattr("app.server.app.SWEEP", 0.01)
    scene["one"].page.desk.runs = type("Runs", (), {"sweep": lambda self: swept.set()})()
    with TestClient(scene.site):
        assert swept.wait(20)
