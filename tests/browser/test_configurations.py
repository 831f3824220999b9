"""The menu of configurations in a real Chromium: two tiny ones, and one that cannot be loaded."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from app.server.app import Site
from app.server.configurations import Configurations, read
from app.server.desk_app import web_app
from app.services.app_state import Desk
from app.storage.database import Store
from app.ui.page import build_page
from engine import Engine
from tests.browser.conftest import opened
from tests.browser.serving import running
from tests.conftest import Tiny

WARNING = "Ratings are lost <b>when</b> this Space restarts."
SHOTS = os.environ.get("MIXDESK_SHOTS")  # a folder to look at what is tested here


class Served:
    """The site of three configurations: tiny, other and broken. While `held` is clear nothing more is loaded."""

    url: str
    server: uvicorn.Server

    def __init__(self, tiny: Tiny, folder: Path) -> None:
        # Three rewards: with fewer there is no radar to wait for.
        function = {"kind": "function", "function": "engine.rewards:brevity"}
        rewards = [{"objective": name, **function} for name in ("plain", "stabilized", "narrow")]
        first = tiny.write("first.yaml", rewards=rewards)
        policies = [{"name": "narrow", "objective": "narrow", "adapter": "narrow"}]
        other = tiny.write("other.yaml", name="Other <i>one", policies=policies, rewards=rewards)
        broken = tiny.write("broken.yaml", name="broken", base="someone/who-is-not-there")
        self.store = Store(folder / "mixdesk.db")
        self.held = threading.Event()
        self.held.set()

        def open_desk(config, tell) -> Desk:
            engine = Engine(config, tell)
            assert self.held.wait(30)
            return Desk(engine, self.store, warning=WARNING)

        self.configurations = Configurations(
            [first, other, broken],
            open_desk,
            lambda desk, menu, root: web_app(build_page(desk, menu), desk, root),
        )
        self.configurations.begin(open_desk(read(first), lambda _: None))

    def close(self) -> None:
        self.configurations.close()
        self.store.close()


@pytest.fixture(scope="module")
def served(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.HfApi.model_info", no_network)
        served = Served(tiny, tmp_path_factory.mktemp("served"))
        with running(Site(served.configurations), grace=1) as (served.url, served.server):
            yield served
        served.close()


def no_network(*_: object, **__: object) -> None:
    raise OSError("no route to host")


def choose(page: Page, name: str) -> None:
    page.locator("#configurations summary").click()
    page.locator("#configurations button", has_text=name).click()


def generate(page: Page) -> None:
    page.get_by_role("button", name="Generate").click()


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def policies(page: Page) -> list[str]:
    return page.locator(".fader-name").all_inner_texts()


def test_another_configuration_while_others_go_on(served: Served, browser: Browser) -> None:
    with opened(browser, served.url) as page, opened(browser, served.url) as stays:
        assert policies(page) == ["plain", "stabilized", "narrow"]
        served.held.clear()
        page.locator("#configurations summary").click()
        expect(page.locator("#configurations button")).to_have_text(
            ["tinyloaded", "Other <i>one", "broken"], use_inner_text=False
        )
        shoot(page, "menu")
        page.locator("#configurations button", has_text="Other").click()
        expect(page.locator("#loading")).to_contain_text("loading the reward stabilized. 1 s")
        assert page.locator("#loading").inner_text().startswith("Opening Other <i>one: loading")
        shoot(page, "loading")
        generate(stays)
        expect(stays.locator("#status")).to_contain_text("Which is better?", timeout=30_000)
        served.held.set()
        page.wait_for_url(f"{served.url}/desk/other-i-one/")
        page.wait_for_selector("#radar .polarlayer")
        page.wait_for_function("document.body.dataset.ready")
        assert policies(page) == ["narrow"]
        expect(page.locator("#configurations summary")).to_have_text("Other <i>one")
        shoot(page, "other")

        # Both are there at once, and rated by one person's browser and by another's.
        generate(page)
        expect(page.locator("#status")).to_contain_text("Which is better?", timeout=30_000)
        for window in (page, stays):
            window.keyboard.press("1")
            expect(window.locator("#status")).to_contain_text("Saved")
        assert {pair["left"]["model"] for pair in served.store.pairs()} == {"tiny", "Other <i>one"}
        choose(page, "tiny")
        page.wait_for_url(f"{served.url}/")
        page.wait_for_function("document.body.dataset.ready")
        assert policies(page) == ["plain", "stabilized", "narrow"]
        generate(page)
        expect(page.locator("#status")).to_contain_text("Which is better?", timeout=30_000)
        page.keyboard.press("2")
        expect(page.locator("#status")).to_contain_text("Saved")
    names = [pair["annotator"] for pair in served.store.pairs()]
    assert names[0] == names[2] != names[1], "the browser is known on every page"


def test_one_that_cannot_be_loaded_says_why_and_the_desk_stays(served: Served, browser: Browser) -> None:
    with opened(browser, served.url) as page:
        page.locator("#prompt textarea").fill("Is it still here?")
        choose(page, "broken")
        expect(page.locator("#loading")).to_contain_text("no route to host")
        said = page.locator("#loading p").inner_text()
        assert said.startswith(
            "broken could not be opened, you still have tiny. broken.yaml: base: 'someone/who-is-not-there'"
        )
        shoot(page, "failed")
        assert page.locator("#prompt textarea").input_value() == "Is it still here?"
        generate(page)
        expect(page.locator("#status")).to_contain_text("Which is better?", timeout=30_000)
        page.get_by_role("button", name="Dismiss").last.click()
        expect(page.locator("#loading")).to_be_hidden()


def test_a_desk_that_was_closed_says_so_and_opens_again(served: Served, browser: Browser) -> None:
    with opened(browser, f"{served.url}/?load=other-i-one") as page:
        page.wait_for_url(f"{served.url}/desk/other-i-one/")
        page.wait_for_function("document.body.dataset.ready")
        configuration = served.configurations.all["other-i-one"]
        loop = served.server.servers[0].get_loop()
        asyncio.run_coroutine_threadsafe(served.configurations._close(configuration), loop).result(30)
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.evaluate("document.body.dataset.closed = true")  # on the page that was, not on the one to come
        page.get_by_role("button", name="Open it again").click()
        page.wait_for_function("document.body.dataset.ready && !document.body.dataset.closed")
        assert configuration.state == "ready" and page.url == f"{served.url}/desk/other-i-one/"


def test_the_warning_is_text_and_hidden_for_the_visit(served: Served, browser: Browser) -> None:
    with opened(browser, served.url) as page:
        expect(page.locator("#warning p")).to_have_text(WARNING)
        shoot(page, "warning")
        size = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        assert size[0] <= 1440 and size[1] <= 900, "the desk scrolls"
        page.get_by_role("button", name="Dismiss").click()
        expect(page.locator("#warning")).to_be_hidden()
        page.reload()
        page.wait_for_selector("#radar .polarlayer")
        expect(page.locator("#warning")).to_be_hidden()
    with opened(browser, served.url) as page:
        expect(page.locator("#warning")).to_be_visible()
