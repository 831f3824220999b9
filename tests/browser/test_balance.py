"""Balance's menu, its sentence and its offer, and the marks on the radar, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import opened
from tests.browser.serving import Server
from tests.browser.test_accessibility import STILL, check
from tests.browser.test_desk import shares
from tests.browser.walking import PHONE

MARKS = "document.querySelectorAll('#radar-marks .mark-{}')"


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with opened(browser, server.url) as page:
        page.add_style_tag(content=STILL)
        page.wait_for_function(f"{MARKS.format('even')}.length === 4")
        yield page


def choose(page: Page, name: str) -> None:
    page.locator("#balance-choice input").click()
    page.get_by_role("option", name=name).click()


def test_each_choice_says_what_it_expects_of_every_objective(page: Page) -> None:
    status, legend = page.locator("#status"), page.locator("#marks")
    expect(legend).to_contain_text("Even")
    assert page.locator("#better").is_hidden() and page.locator("#balance-floors").count() == 0
    page.locator("#balance").click()
    expect(status).to_contain_text("Balanced: by the reward models")
    expect(legend).to_contain_text("Balance")
    page.wait_for_function(f"{MARKS.format('balance')}.length === 4")
    for name in ("helpful", "harmless", "humorous", "concise"):
        assert f"{name} +" in status.inner_text() or f"{name} −" in status.inner_text()
    assert page.locator("#better").is_hidden(), "nothing is better than max-min"
    assert page.evaluate("document.documentElement.scrollHeight") <= 900, "the desk scrolls"
    # The star lies where the expected polygon of the faders does, which Balance has moved there.
    places = """() => [...document.querySelectorAll('#radar-marks .mark-balance, #radar-target .handle')].map(
        (one) => one.getAttribute('transform').match(/[\\d.]+/g).map(Number))"""
    page.wait_for_timeout(600)
    every = page.evaluate(places)
    for star, handle in zip(every[:4], every[4:], strict=True):
        assert star == pytest.approx(handle, abs=2), "faders are read to a hundredth"
    check(page, "balanced, with marks")

    choose(page, "Fair by the policies")
    page.keyboard.press("Escape")
    page.locator("#balance").click()
    expect(status).to_contain_text("Balanced: by the policies’ own rewards")
    expect(status).to_contain_text("Expected: ")
    if "Better in all" in status.inner_text():
        button = page.locator("#better")
        expect(button).to_be_visible()
        before = shares(page)
        button.focus()
        page.keyboard.press("Enter")
        expect(status).to_contain_text("The faders have the better point")
        expect(button).to_be_hidden()
        page.wait_for_function(
            "old => Number(document.querySelector('[data-share]').dataset.exact) !== old", arg=before[0]
        )


def test_floors_come_with_their_choice_and_are_kept(page: Page) -> None:
    status = page.locator("#status")
    choose(page, "Most reward above these floors")
    floor = page.locator("#balance-floor-1 :is(input, textarea)")
    expect(floor).to_be_visible()
    page.locator("#balance").click()
    expect(status).to_contain_text("Type a floor for at least one objective")
    floor.fill("much")
    page.locator("#balance").click()
    expect(status).to_contain_text("harmless: found 'much'")
    floor.fill("-9")
    floor.press("Enter")
    expect(status).to_contain_text("Balanced: the most expected reward above the floors")
    assert page.evaluate("document.documentElement.scrollHeight") <= 900, "the desk scrolls"
    check(page, "with floors")


def test_the_menu_fits_a_phone(browser: Browser, server: Server) -> None:
    with opened(browser, server.url, **PHONE) as page:
        choose(page, "Most reward above these floors")
        floor = page.locator("#balance-floor-3 :is(input, textarea)")
        expect(floor).to_be_visible()
        box = floor.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        expect(page.locator("#marks")).to_contain_text("Even")


def test_the_offer_goes_when_something_else_is_said(page: Page) -> None:
    """What a point is offered with is in the status line; its button is seen exactly as long as that is."""
    offered = (
        '<span class="message info balanced offer" data-said="Taken."'
        """ data-faders='{"helpful": 1, "harmless": 0.5, "concise": 0}'>Better</span>"""
    )
    page.evaluate("(html) => { document.querySelector('#status p').innerHTML = html; }", offered)
    expect(page.locator("#better")).to_be_visible()
    page.locator("#better").click()
    expect(page.locator("#status")).to_contain_text("Taken.")
    expect(page.locator("#better")).to_be_hidden()
    page.wait_for_function("Number(document.querySelector('[data-share]').dataset.exact) === 0.5")
    assert shares(page) == pytest.approx([0.5, 0.25, 0.25, 0.0])
