"""Fetching from the page's side: the addresses that it asks, one fetch at a time, and what the app begins with."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.server.app import Site
from app.server.configurations import Configurations
from app.services import policy_fetch
from app.services.policy_fetch import WANTED, choose_first
from engine import InputError
from engine.config import DEMO
from engine.fetching.fetch import fetch
from engine.fetching.manifest import manifest_of
from tests.app.server.test_configurations import FakeDesk
from tests.conftest import Tiny
from tests.shelf import Shelf, write_manifest

CONTENT = random.Random(0).randbytes(400_000)


class Scene:
    """A first configuration, and two whose files are on the shelf."""

    def __init__(self, tiny: Tiny, folder: Path, shelf: Shelf, loaded: int = 2) -> None:
        self.opened: list[str] = []
        self.menus: list = []
        configs = folder / "configs"
        configs.mkdir(exist_ok=True)
        text = tiny.config.read_text().replace("adapter: ", f"adapter: {tiny.folder}/")
        self.files = []
        for name, base in (("one", str(tiny.base)), ("real", "org/model"), ("other", "org/other")):
            file = configs / f"{name}.yaml"
            about = "about: Small <b>ones</b>.\n" if name == "one" else ""
            file.write_text(about + text.replace("base: base", f"base: {base}").replace("name: tiny", f"name: {name}"))
            self.files.append(file)
            if name != "one":
                write_manifest(configs / "fetch" / f"{name}.yaml", {"model.bin": CONTENT}, shelf, 2, base)

        def open_desk(config, tell) -> FakeDesk:
            self.opened.append(config.base)
            return FakeDesk(config.name, [])

        def build_app(desk, menu, root) -> FastAPI:
            self.menus.append(menu)
            return FastAPI()

        self.configurations = Configurations(self.files, open_desk, build_app, loaded)  # type: ignore[arg-type]
        self.configurations.begin(FakeDesk("one", []))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def alone(shelf_alone: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.server.configurations.check_hub", lambda _: None)


@pytest.fixture
def scene(tiny: Tiny, tmp_path: Path, shelf: Shelf) -> Scene:
    return Scene(tiny, tmp_path, shelf)


@pytest.fixture
def client(scene: Scene) -> Iterator[TestClient]:
    with TestClient(Site(scene.configurations)) as client:
        yield client


def wait(client: TestClient, *states: str) -> dict:
    """Wait until the first of what can be fetched is in one of these states."""
    for _ in range(1000):
        described = client.get("/fetch").json()[0]
        if described["state"] in states:
            return described
        client.portal.call(asyncio.sleep, 0.01)
    raise AssertionError(described)


def wait_until_open(client: TestClient, slug: str) -> dict:
    for _ in range(1000):
        described = client.get(f"/configurations/{slug}").json()
        if described["state"] in ("ready", "failed"):
            return described
        client.portal.call(asyncio.sleep, 0.01)
    raise AssertionError(described)


def test_fetched_and_then_opened_by_itself(scene: Scene, client: TestClient, tmp_path: Path) -> None:
    described = client.get("/fetch").json()
    assert [(row["slug"], row["state"], row["done"], row["total"]) for row in described] == [
        ("real", "absent", 0, len(CONTENT)),
        ("other", "absent", 0, len(CONTENT)),
    ]
    (menu,) = scene.menus
    assert [(offer.slug, offer.about, offer.opens) for offer in menu.offers] == [
        ("real", "Small <b>ones</b>.", True),
        ("other", "Small <b>ones</b>.", True),
    ]
    assert client.post("/fetch/real").json()["state"] in ("fetching", "fetched")
    assert wait(client, "fetched")["done"] == len(CONTENT)
    assert wait_until_open(client, "real")["state"] == "ready", "whoever asked may have closed the page"
    assert scene.opened == [str(tmp_path / "cache" / "mixdesk" / "models" / "org" / "model")]


def test_nothing_is_fetched_unless_somebody_says_so(scene: Scene, client: TestClient, shelf: Shelf) -> None:
    client.post("/configurations/real")
    described = wait_until_open(client, "real")
    assert described["state"] == "failed"
    assert described["says"] == "real.yaml: its files (0 MB) are not fetched yet; press Get in the line at the top"
    assert not shelf.asked
    assert [row["missing"] for row in client.get("/configurations").json()] == [
        "",
        *["its files (0 MB) are not fetched yet"] * 2,
    ]


def test_one_at_a_time_and_only_what_is_offered(client: TestClient, shelf: Shelf) -> None:
    shelf.pause = 0.02
    assert client.post("/fetch/real", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/fetch/one").status_code == 404
    assert client.post("/fetch/http%3A%2F%2Felsewhere").status_code == 404
    assert not shelf.asked
    client.post("/fetch/real").raise_for_status()
    client.post("/fetch/real").raise_for_status()
    refused = client.post("/fetch/other")
    assert (refused.status_code, refused.text) == (409, "another fetch is under way; try again when it has ended\n")
    assert client.delete("/fetch/real", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    wait(client, "fetched")
    assert {asked.path for asked in shelf.asked} == {"/org/model/resolve/main/model.bin"}
    assert len(shelf.asked) == 1


def test_cancelled_and_gone_on_with(client: TestClient, shelf: Shelf) -> None:
    shelf.pause = 0.02
    client.post("/fetch/real")
    while client.get("/fetch").json()[0]["done"] < 100_000:
        client.portal.call(asyncio.sleep, 0.01)
    assert client.delete("/fetch/real").json()["state"] in ("stopping", "absent")
    done = wait(client, "absent")["done"]
    assert 100_000 <= done < len(CONTENT)
    shelf.pause = 0
    client.post("/fetch/real")
    wait(client, "fetched")
    assert shelf.asked[-1].start == done


def test_a_failure_is_one_line_and_can_be_tried_again(client: TestClient, shelf: Shelf) -> None:
    files, shelf.files = shelf.files, {}
    client.post("/fetch/real")
    says = wait(client, "failed")["says"]
    assert says.startswith("real: model.bin could not be fetched (the Hugging Face hub (127.0.0.1): it answers 404")
    assert "MIXDESK_MIRROR" in says and "\n" not in says
    shelf.files = files
    client.post("/fetch/real")
    wait(client, "fetched")


def test_an_interrupted_fetch_is_taken_up_at_the_next_start(tiny, tmp_path: Path, shelf: Shelf) -> None:
    """Only one that somebody asked for, and did not cancel."""
    partial = manifest_of(Scene(tiny, tmp_path, shelf).files[1]).partial  # type: ignore[union-attr]
    for wanted in (False, True):
        partial.mkdir(parents=True, exist_ok=True)
        (partial / "model.bin.part").write_bytes(CONTENT[:150_000])
        if wanted:
            (partial / WANTED).touch()
        scene = Scene(tiny, tmp_path, shelf)
        with TestClient(Site(scene.configurations)) as client:
            if wanted:
                wait(client, "fetched")
            else:
                client.portal.call(asyncio.sleep, 0.2)
                assert client.get("/fetch").json()[0]["state"] == "absent"
                assert client.get("/fetch").json()[0]["done"] == 150_000
    assert [asked.start for asked in shelf.asked] == [150_000]


def test_with_room_for_one_configuration_it_is_said(tiny, tmp_path: Path, shelf: Shelf) -> None:
    scene = Scene(tiny, tmp_path, shelf, loaded=1)
    (menu,) = scene.menus
    assert not menu.choices
    assert [offer.opens for offer in menu.offers] == [False, False]
    with TestClient(Site(scene.configurations)) as client:
        client.post("/fetch/real")
        wait(client, "fetched")
        client.portal.call(asyncio.sleep, 0.1)
        assert not scene.opened


def test_too_little_memory_is_said_before_and_nothing_is_loaded(client: TestClient, monkeypatch, scene: Scene) -> None:
    monkeypatch.setattr(policy_fetch, "available_memory", lambda: 1_200_000_000)
    scene.configurations.fetching.all["real"].manifest.memory = 3_000_000_000
    warning = "Loading them needs about 3.0 GB of free memory; 1.2 GB are free here."
    assert client.get("/fetch").json()[0]["memory"] == warning
    client.post("/fetch/real")
    wait(client, "fetched")
    described = wait_until_open(client, "real")
    assert described["state"] == "failed" and described["says"].startswith(warning)
    assert not scene.opened


def test_what_was_fetched_is_what_the_app_begins_with(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    real = manifest_of(scene.files[1])
    assert real
    monkeypatch.setattr(policy_fetch, "manifests", lambda: [real])
    assert choose_first() == DEMO
    fetch(real)
    assert choose_first() == scene.files[1]
    real.memory = 10**15
    assert choose_first() == DEMO, "it would not fit into memory"
    real.memory = 0
    scene.files[1].unlink()
    assert choose_first() == DEMO


def test_a_malformed_manifest_is_no_offer(scene: Scene, tiny, shelf: Shelf, tmp_path: Path, caplog) -> None:
    (tmp_path / "configs" / "fetch" / "other.yaml").write_text("folder: ../x")
    again = Configurations(scene.files, lambda *_: None, lambda *_: FastAPI())  # type: ignore[arg-type,return-value]
    assert list(again.fetching.all) == ["real"]
    assert "other.yaml: " in caplog.text


def test_what_the_app_is_told_to_begin_with_is_fetched_first(scene: Scene) -> None:
    real = manifest_of(scene.files[1])
    assert real
    told: list[str] = []
    policy_fetch.fetch_first(real, told.append)
    assert real.is_fetched()
    assert told[0].startswith("fetching real, 0 MB of 0 MB")
    real.path.rename(real.path.with_name("gone"))
    real.files[0].sha256 = "0" * 64
    with pytest.raises(InputError, match="SHA-256"):
        policy_fetch.fetch_first(real, told.append)
