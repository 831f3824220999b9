"""The page that answers while models are loaded, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from app.server.startup_page import answering
from engine import Engine
from engine.listening import bind_address
from tests.browser.conftest import TOURED, close
from tests.browser.serving import served


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_init_script(TOURED)
    wrong: list[str] = []
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    close(context)
    assert not wrong


def test_the_loading_page_becomes_the_desk(page: Page, engine: Engine, tmp_path: Path) -> None:
    listener = bind_address("127.0.0.1", 0)
    with answering(listener) as tell:
        tell("loading the policy <b>helpful</b>")
        answer = page.goto(f"http://127.0.0.1:{listener.getsockname()[1]}/?from=here")
        assert answer
        assert answer.status == 503
        line = page.get_by_role("status")
        expect(line).to_have_text("Mixdesk is starting: loading the policy <b>helpful</b>.")
        tell("building its desk")
        expect(line).to_have_text("Mixdesk is starting: building its desk.")
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            assert not Axe().run(page).response["violations"], theme
    with served(engine, tmp_path / "a.db", listener):
        page.wait_for_selector("#radar .polarlayer")
        expect(page).to_have_title("Mixdesk")
        assert page.url.endswith("/?from=here")


def test_the_loading_page_says_that_the_app_has_ended(page: Page) -> None:
    listener = bind_address("127.0.0.1", 0)
    with listener, answering(listener):
        page.goto(f"http://127.0.0.1:{listener.getsockname()[1]}")
        expect(page.get_by_role("status")).to_have_text("Mixdesk is starting: importing the libraries.")
    expect(page.get_by_role("status")).to_have_text("Mixdesk does not answer; if it has ended, its log says why.")
