"""A real Chromium, and pages in it that report what goes wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "this test needs Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET.split())
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, tour: bool = False) -> Iterator[Page]:
    """The desk at this address, ready. Errors in its scripts and requests to elsewhere fail the test.

    tour: it is the first visit, and the tour comes.
    """
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    if not tour:
        context.add_init_script("localStorage.setItem('mixdesk-tour', 'seen')")
    page = context.new_page()
    page.set_default_timeout(60_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
    page.on("request", lambda request: wrong.append(f"asks for {request.url}") if is_elsewhere(request.url) else None)
    page.goto(url)
    page.wait_for_selector("#radar .polarlayer")
    # Filled in when the page's own load event has run: before that its buttons do nothing.
    page.wait_for_function("document.body.dataset.ready")
    yield page
    context.close()
    assert not wrong


def is_elsewhere(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))
