"""The Ratings tab in a real Chromium: few ratings, who wins, the lottery, and its way to the desk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.storage.database import Store
from engine import Engine, Mixture
from tests.app.conftest import make_completion
from tests.browser.conftest import opened, unfold
from tests.browser.serving import Server, served
from tests.browser.test_accessibility import STILL, violations
from tests.browser.test_desk import shares

FIRST = Mixture({"helpful": 0.75, "concise": 0.25})
SECOND, THIRD = Mixture({"harmless": 1.0}), Mixture({"humorous": 0.4, "reference": 0.6})


@pytest.fixture(scope="module")
def server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A desk that nobody rated at."""
    db: Path = tmp_path_factory.mktemp("ratings") / "mixdesk.db"
    with served(engine, db) as (url, _):
        yield Server(url, db)


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with opened(browser, server.url) as page:
        yield page


def rate(db: Path, name: str, left: Mixture, right: Mixture, wins: int, losses: int) -> None:
    """As another window's annotator would."""
    store = Store(db)
    for i, choice in enumerate(["left"] * wins + ["right"] * losses):
        sides = [make_completion(mixture=mixture) for mixture in (left, right)]
        assert store.rate(f"{name}-{i}", *sides, choice, "anna", model="demo")
    store.close()


def test_from_no_ratings_to_the_desk(page: Page, server: Server) -> None:
    unfold(page, "more")
    page.locator("#ratings-tab-button").click()
    expect(page.locator("#no-ratings")).to_contain_text("No ratings yet.")
    expect(page.locator("#no-ratings")).to_contain_text("choose what Left and Right play")
    assert page.locator("#lottery").is_hidden()
    # Rated meanwhile, elsewhere.
    rate(server.db, "first", FIRST, SECOND, 9, 3)
    page.keyboard.press("f")
    expect(page.locator("#standing")).to_contain_text("12 ratings of 2 mixtures; 1 of 1 pairs met.")
    assert page.locator("#no-ratings").is_hidden()
    cells = page.locator("#lottery tbody tr")
    assert "75%" in cells.nth(0).inner_text() and "of 12" in cells.nth(0).inner_text()
    assert cells.nth(0).locator("th").inner_text().strip() == "helpful 75%, concise 25% · geometric"
    assert cells.nth(0).locator("b").inner_text() == "100%"
    # A circle of three.
    rate(server.db, "second", SECOND, THIRD, 9, 3)
    rate(server.db, "third", THIRD, FIRST, 9, 3)
    page.locator("#desk-tab-button").click()
    page.locator("#ratings-tab-button").click()
    expect(page.locator("#standing")).to_contain_text("36 ratings of 3 mixtures; 3 of 3 pairs met.")
    assert page.locator("#lottery tbody b").all_inner_texts() == ["33%"] * 3
    expect(page.locator("#standing")).to_contain_text("duality gap 0.0000")
    expect(page.locator("#lottery .means")).to_contain_text("harmless 33% ± ")
    assert page.evaluate("document.documentElement.scrollHeight") <= 900, "the tab scrolls"
    page.add_style_tag(content=STILL)
    assert not violations(page)
    # The mean: a fifth of it is the reference's, which is a lower gain.
    page.locator("#lottery .means .send").click()
    page.locator("#desk").wait_for(state="visible")
    expect(page.locator("#status")).to_contain_text("The faders have the mean weights: harmless 33%")
    expect(page.locator("#status")).to_contain_text("gain 0.8")
    page.wait_for_function("Number(document.querySelectorAll('[data-share]')[1].dataset.exact) > 0.4")
    assert shares(page) == pytest.approx([0.25 / 0.8, 1 / 3 / 0.8, 0.4 / 3 / 0.8, 0.25 / 3 / 0.8], abs=0.01)
    assert page.locator("#gain input[type=number]").input_value() == "0.8"
    # One of them; what is locked stays, and Undo brings back all of it in one step.
    page.locator("#ratings-tab-button").click()
    row = page.locator("#lottery tbody tr", has_text="helpful 75%")
    row.locator(".send").click()
    page.wait_for_function("Number(document.querySelectorAll('[data-share]')[0].dataset.exact) > 0.74")
    assert shares(page) == pytest.approx([0.75, 0, 0, 0.25], abs=0.01)
    expect(page.locator("#status")).to_contain_text("helpful 75%, concise 25%. Press Generate")
    assert page.locator("#gain input[type=number]").input_value() == "1"
    page.locator("#undo").click()
    page.wait_for_function("Number(document.querySelectorAll('[data-share]')[1].dataset.exact) > 0.4")
    assert page.locator("#gain input[type=number]").input_value() == "0.8"
