"""axe-core on every tab and in the states that matter, in light and dark, on a wide screen and on a phone's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import opened
from tests.browser.serving import Server
from tests.browser.test_desk import wait_for_status, wait_until_done

SIZES = ((1440, 900), (390, 844))
ALL: dict[str, Any] = {"resultTypes": ["violations"]}
# In the dark only colours differ.
THEMES = {"light": ALL, "dark": {**ALL, "runOnly": ["color-contrast"]}}
# A figure is one image with a name; its thousands of points have no text, and take axe most of its time.
WHAT = {"exclude": [[".figure .scatterlayer"]]}
# A colour on its way to another is neither.
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"

expect.set_options(timeout=30_000)


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with opened(browser, server.url) as page:
        page.add_style_tag(content=STILL)
        yield page


def violations(page: Page) -> list[str]:
    """What is serious or critical in this state, with its place; afterwards the page is wide and light again."""
    found = []
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        for theme, options in THEMES.items():
            page.emulate_media(color_scheme=theme)
            page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=theme == "dark")
            for violation in Axe().run(page, WHAT, options).response["violations"]:
                if violation["impact"] not in ("serious", "critical"):
                    continue
                for node in violation["nodes"]:
                    why = "; ".join(check["message"] for check in (*node["any"], *node["all"], *node["none"]))
                    found.append(f"{width} px, {theme}: {violation['id']} at {node['target']}: {why}")
    page.set_viewport_size({"width": SIZES[0][0], "height": SIZES[0][1]})
    page.emulate_media(color_scheme="light")
    return found


def check(page: Page, state: str) -> None:
    found = violations(page)
    assert not found, "\n".join([f"{state}:", *found])


def set_text(page: Page, name: str, value: str) -> None:
    page.locator(f"#{name} :is(input, textarea)").first.fill(value)
    page.keyboard.press("Tab")


def test_what_is_wrong_is_found(page: Page) -> None:
    page.evaluate("document.querySelector('#top p').style.color = '#ccc'")
    page.evaluate(
        "document.querySelector('#prompt textarea').closest('label').replaceWith(document.createElement('input'))"
    )
    found = violations(page)
    assert any("color-contrast" in line and "light" in line for line in found)
    assert any("390 px, light: label" in line for line in found)


def test_the_desk(page: Page) -> None:
    check(page, "as it is opened")
    page.keyboard.press("?")
    check(page, "with Help open")
    page.keyboard.press("Escape")
    page.locator("#configurations summary").click()
    check(page, "with the menu open")
    page.keyboard.press("Escape")
    for part in ("shelf", "more"):
        page.locator(f"#{part} > button").click()
    expect(page.locator("#copy-link")).to_be_visible()
    set_text(page, "length", "30")
    page.locator("#generate").click()
    wait_until_done(page)
    check(page, "with two responses, Save and share, and More")

    for part in ("shelf", "more"):
        page.locator(f"#{part} > button").click()
    for mark in ("mute-1", "lock-2", "solo-0"):
        page.locator(f"#{mark}").click()
        expect(page.locator(f"#{mark}")).to_have_attribute("aria-pressed", "true")
    page.locator("#trace").click()
    page.locator("#response-left .token[data-place='6']").click()
    expect(page.locator("#drawer h2")).to_be_visible()
    check(page, "with the trace, the drawer, and faders that are silent and locked")

    page.keyboard.press("Escape")
    for _ in range(2):
        page.locator("#add-panel").click()
    page.locator("#generate").click()
    expect(page.locator("#caption-fourth")).to_contain_text("seed")
    wait_until_done(page)
    page.locator("#rate-left").click()
    wait_for_status(page, "Saved")
    check(page, "with four panels, rated")

    page.locator("#reply-left").click()
    expect(page.locator("#conversation")).to_be_visible()
    page.get_by_role("slider", name="Target for harmless").press("ArrowRight")
    expect(page.get_by_role("button", name="Clear target")).to_be_visible()
    check(page, "with a conversation and a target")


def test_compare_and_explore(page: Page) -> None:
    page.locator("#compare-tab-button").click()
    expect(page.locator("#compare-empty")).to_be_visible()
    check(page, "with no comparison")
    set_text(page, "compare-most", "12")
    set_text(page, "compare-length", "4")
    page.locator("#compare-start").click()
    expect(page.locator("#compare-delete")).to_be_visible()
    expect(page.locator("#compare-radar .polarlayer")).to_be_visible()
    page.locator("#compare-delete").click()
    expect(page.locator("#compare-sure")).to_be_visible()
    check(page, "with a comparison that may be deleted")
    page.locator(".compare-table .open").first.click()
    expect(page.locator("dialog[open] article").first).to_be_visible()
    check(page, "with one prompt's responses")
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)

    page.locator("#explore-tab-button").click()
    page.wait_for_selector("#pairs-figure .scatterlayer .point")
    check(page, "with the fronts")
