"""The tour: once, beside what it explains, and in nobody's way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import opened
from tests.browser.serving import Server
from tests.browser.test_accessibility import STILL, violations
from tests.browser.test_desk import wait_until_done

expect.set_options(timeout=30_000)

TARGETS = ["#mix .fader", "#generate", "#trace", "#radar", "#ratings"]
# Whether the tour lies over any of these, and whether all of it can be seen.
PLACED = """selector => {
    const tour = document.querySelector("#tour").getBoundingClientRect();
    const over = [...document.querySelectorAll(selector), document.querySelector("#generate")].some((part) => {
        const box = part.getBoundingClientRect();
        return tour.left < box.right && box.left < tour.right && tour.top < box.bottom && box.top < tour.bottom;
    });
    const seen = tour.top >= 0 && tour.left >= 0 && tour.bottom <= innerHeight && tour.right <= innerWidth;
    return { over, seen, wide: document.documentElement.scrollWidth <= innerWidth };
}"""
WELL = {"over": False, "seen": True, "wide": True}


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The first visit."""
    with opened(browser, server.url, tour=True) as page:
        page.add_style_tag(content=STILL)
        yield page


def test_it_comes_once_and_explains(page: Page) -> None:
    tour = page.get_by_role("dialog", name="Mix the policies")
    expect(tour).to_be_focused()
    assert not violations(page)
    expect(tour).to_have_accessible_description("Each fader is a policy with one objective. Raise those that you want "
                                                "more of; the bar shows the mixture.")  # fmt: skip
    titles = []
    for step, target in enumerate(TARGETS):
        titles.append(page.locator("#tour h2").inner_text())
        expect(page.locator("#tour small")).to_have_text(f"{step + 1} of {len(TARGETS)}")
        assert page.evaluate(PLACED, target) == WELL, titles[-1]
        page.keyboard.press("Tab")
        if step == 0:
            page.keyboard.press("ArrowLeft")  # there is nothing before
            assert page.locator("#tour h2").inner_text() == titles[0]
        page.locator("#tour .next").press("Enter" if step % 2 else "ArrowRight") if step < 4 else None
    assert len(set(titles)) == len(TARGETS)
    page.locator("#tour .back").press("Enter")
    expect(page.locator("#tour h2")).to_have_text(titles[3])
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Done").press("Enter")
    expect(page.locator("#tour")).to_have_count(0)
    expect(page.locator("#generate")).to_be_focused()

    page.reload()
    page.wait_for_function("document.body.dataset.ready")
    expect(page.locator("#tour")).to_have_count(0)
    page.keyboard.press("x")
    page.locator("#top [data-help=open]").press("Enter")
    page.get_by_role("button", name="Start the tour").press("Enter")
    expect(page.get_by_role("dialog", name="Mix the policies")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#tour")).to_have_count(0)
    page.wait_for_function("!document.activeElement.matches('body')")


def test_a_newcomer_may_generate_at_once(page: Page) -> None:
    expect(page.locator("#tour")).to_be_visible()
    page.locator("#generate").click()
    wait_until_done(page)
    expect(page.locator("#tour")).to_be_visible()
    page.locator("#compare-tab-button").click()
    expect(page.locator("#tour")).to_be_hidden()  # what it explains is not there
    page.locator("#desk-tab-button").click()
    expect(page.locator("#tour")).to_be_visible()
    page.get_by_role("button", name="Skip").click()
    expect(page.locator("#tour")).to_have_count(0)
