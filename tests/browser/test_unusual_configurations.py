"""Configurations without rewards and with eight policies of long names, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from engine import Engine
from tests.app.test_unusual_configurations import SHAPES
from tests.browser.conftest import TOURED, is_elsewhere
from tests.browser.serving import served


@pytest.mark.parametrize("shape", ["no rewards", "one policy and no rewards", "eight policies with long names"])
def test_it_generates_and_is_rated(
    shape: str, tiny: Any, tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tiny.write("shape.yaml", **SHAPES[shape])
    wrong: list[str] = []
    with Engine.from_config(file) as engine, served(engine, tmp_path / "mixdesk.db") as (url, desk):
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.add_init_script(TOURED)
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if is_elsewhere(request.url) else None)
        page.goto(url)
        page.wait_for_function("document.body.dataset.ready")
        page.locator("#prompt textarea").fill("mix")
        page.locator("#generate").click()
        page.wait_for_selector("#rate-left:enabled")
        page.locator("#rate-left").click()
        page.wait_for_function("document.querySelector('#status').textContent.includes('Saved')")
        for tab in ("Explore", "Compare", "Results", "Desk"):
            page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        assert len(desk.store.db.execute("select id from ratings").fetchall()) == 1
        page.goto("about:blank")
        page.close()
    assert not wrong
