"""The view Use via API lists the desk's endpoints, and what it shows runs."""

from __future__ import annotations

import re
import subprocess

from playwright.sync_api import Browser, Page, expect

from app.services.app_state import Desk
from tests.browser.conftest import opened

NAMES = ["/generate", "/stream", "/score", "/expected_rewards", "/solve", "/rate", "/mixtures"]


def expect_endpoints(page: Page) -> None:
    view = page.get_by_role("dialog", name="Use via API").or_(page.locator(".api-docs"))
    expect(view.get_by_text("7 API endpoints", exact=False).first).to_be_visible()
    shown = re.findall(r"API name: (/\w+)", view.first.inner_text())
    assert shown == NAMES
    expect(view.first).to_contain_text("The most tokens of the response.")


def test_help_leads_to_the_endpoints(browser: Browser, place: tuple[str, Desk]) -> None:
    with opened(browser, place[0]) as page:
        page.locator("#top [data-help=open]").press("Enter")
        page.locator("#help [data-help=api]").press("Enter")
        expect(page.locator("#help")).to_be_hidden()
        expect_endpoints(page)
        page.locator(".api-docs").get_by_text("cURL", exact=True).click()
        script = page.locator(".api-docs pre, .api-docs code").filter(has_text="call/v2/mixtures").first.inner_text()
        page.keyboard.press("Escape")
        assert "view=api" in page.url
    # As it is shown, in a shell whose `read` at the end of a pipe is the shell's own.
    script = script.replace("read EVENT_ID;", "{ read EVENT_ID;") + "; }"
    called = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert called.stdout.startswith("event: complete") and '"demo"' in called.stdout


def test_an_address_leads_to_the_endpoints_and_the_desk_is_behind_them(
    browser: Browser, place: tuple[str, Desk]
) -> None:
    with opened(browser, f"{place[0]}/?view=api", tour=True) as page:
        expect_endpoints(page)
        assert page.evaluate("document.documentElement.scrollHeight") <= 900, "the desk scrolls"
