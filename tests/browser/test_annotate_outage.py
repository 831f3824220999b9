"""The annotators' page when the server goes away, when it is loaded again, and when nobody looks at it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.storage.database import Store
from tests.browser.annotating import Place, add_study, annotating, annotator, join, mortal, wait_for_pair
from tests.browser.serving import Relay
from tests.browser.test_fetching import answers, wait_for

AWAY = "The server cannot be reached. Your answer is kept in this browser, and is sent again until it is saved."
HIDE = """hidden => {
    const get = () => hidden ? "hidden" : "visible";
    Object.defineProperty(document, "visibilityState", { configurable: true, get });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_server_that_is_killed_while_an_answer_is_stored(browser: Browser, tmp_path: Path, moment: str) -> None:
    """The answer is stored once, whether the process died before it was, or before it could say so."""
    db = tmp_path / "mixdesk.db"
    with mortal(db) as server:
        store = Store(db)
        place = Place(store, server.url, add_study(store))
        server.tell("start")
        wait_for(lambda: answers(place.page))
        with annotator(browser, place.invite()) as page:
            join(page)
            wait_for_pair(page, "Pair 1 of 4")
            server.tell("kill")
            server.tell(f"start {moment}")
            wait_for(lambda: answers(place.page))
            page.keyboard.press("ArrowLeft")
            expect(page.locator("#outage-text")).to_have_text(AWAY)
            expect(page.locator("#pair-title")).to_have_text("Pair 1 of 4")
            page.keyboard.press("ArrowRight")  # it has been answered
            page.keyboard.press("s")
            assert len(place.answered()) == (1 if moment == "after" else 0)
            server.tell("start")
            wait_for_pair(page, "Pair 2 of 4")
            expect(page.locator("#outage")).to_be_hidden()
            assert [row["choice"] for row in place.answered()] == ["left"]
            assert page.evaluate("localStorage.length") == 0
            page.keyboard.press("ArrowRight")
            wait_for_pair(page, "Pair 3 of 4")
            assert [row["choice"] for row in place.answered()] == ["left", "right"]
            assert not place.rows(where="state = 'skipped'")
        store.close()


def test_an_answer_outlives_the_tab_in_which_it_was_given(browser: Browser, tmp_path: Path) -> None:
    with annotating(tmp_path / "mixdesk.db") as place:
        relay = Relay(place.url)
        place.url = relay.url
        with annotator(browser, place.invite()) as page:
            join(page)
            wait_for_pair(page, "Pair 1 of 4")
            relay.cut()
            page.keyboard.press("ArrowUp")
            expect(page.locator("#outage-text")).to_have_text(AWAY)
            assert not place.answered()
            context = page.context
            page.close()
            relay.mend()
            again = context.new_page()
            again.goto(place.page)
            wait_for_pair(again, "Pair 2 of 4")
            assert [row["choice"] for row in place.answered()] == ["tie"]


def test_try_now(browser: Browser, tmp_path: Path) -> None:
    with annotating(tmp_path / "mixdesk.db") as place:
        relay = Relay(place.url)
        place.url = relay.url
        with annotator(browser, place.invite()) as page:
            join(page)
            wait_for_pair(page, "Pair 1 of 4")
            before = page.locator("#choices").bounding_box()
            relay.cut()
            page.keyboard.press("ArrowUp")
            expect(page.locator("#outage")).to_be_visible()
            assert page.locator("#choices").bounding_box() == before  # it lies over the text
            page.wait_for_timeout(3500)  # the next attempt by itself is some seconds away
            relay.mend()
            page.get_by_role("button", name="Try now").click()
            wait_for_pair(page, "Pair 2 of 4")
            assert [row["choice"] for row in place.answered()] == ["tie"]


def test_the_time_is_that_of_looking(browser: Browser, tmp_path: Path) -> None:
    """Without a hidden tab, an open dialog and a pause; with what was before the page was loaded again."""
    with annotating(tmp_path / "mixdesk.db") as place:
        page = browser.new_context().new_page()
        page.clock.install()
        page.goto(place.invite())
        join(page)
        began(page, "Pair 1 of 4")
        page.clock.fast_forward(40_000)
        page.evaluate(HIDE, True)
        page.clock.fast_forward(1_000_000)
        page.evaluate(HIDE, False)
        page.clock.fast_forward(20_000)
        page.keyboard.press("g")
        page.clock.fast_forward(1_000_000)
        page.keyboard.press("Escape")
        page.wait_for_function("!document.querySelector('dialog[open]')")
        page.keyboard.press("p")
        expect(page.locator("#notice-title")).to_have_text("Paused")
        page.clock.fast_forward(1_000_000)
        page.keyboard.press("Enter")
        began(page, "Pair 1 of 4")
        page.clock.fast_forward(10_000)
        page.reload()
        began(page, "Pair 1 of 4")
        page.clock.fast_forward(30_000)
        page.keyboard.press("1")
        began(page, "Pair 2 of 4")
        page.clock.fast_forward(5000)
        page.keyboard.press("1")
        began(page, "Pair 3 of 4")
        first, second = (row["seconds"] for row in place.answered())
        assert 100 <= first < 160, first  # and as long as the test took between
        assert 5 <= second < 60, second
        page.context.close()


def began(page: Page, title: str) -> None:
    """As wait_for_pair, where the clock is the test's."""
    expect(page.locator("#pair-title")).to_have_text(title)
    page.clock.fast_forward(500)
    page.wait_for_selector("body[data-ready]")


def test_two_tabs_of_one_person(browser: Browser, tmp_path: Path) -> None:
    """Both show the same pair; the one that is late is told, and goes on."""
    with annotating(tmp_path / "mixdesk.db") as place, annotator(browser, place.invite()) as page:
        join(page)
        wait_for_pair(page, "Pair 1 of 4")
        other = page.context.new_page()
        other.goto(place.page)
        wait_for_pair(other, "Pair 1 of 4")
        assert other.locator("#text-a").inner_text() == page.locator("#text-a").inner_text()
        page.keyboard.press("1")
        wait_for_pair(page, "Pair 2 of 4")
        other.keyboard.press("2")
        expect(other.locator("#flash")).to_contain_text("You have answered this pair already")
        wait_for_pair(other, "Pair 2 of 4")
        assert [row["choice"] for row in place.answered()] == ["left"]
        other.keyboard.press("2")
        wait_for_pair(other, "Pair 3 of 4")
        page.keyboard.press("2")  # the same answer: it is stored once
        wait_for_pair(page, "Pair 3 of 4")
        assert [row["choice"] for row in place.answered()] == ["left", "right"]
