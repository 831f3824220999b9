"""The Results tab in a real Chromium: from few ratings to the desk, and a study from its ranking to a comment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.storage.database import Store
from engine import Engine, Mixture
from tests.app.conftest import make_completion
from tests.app.services.voting import Ballot, add_study
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


def show(page: Page, view: str) -> None:
    page.locator("#results-view label", has_text=view).click()
    expect(page.locator(f"#results-{view.lower()}")).to_be_visible()


def choose(page: Page, what: str, name: str) -> None:
    page.locator(f"#results-{what} input").click()
    page.get_by_role("option", name=name).click()


def test_from_no_ratings_to_the_desk(page: Page, server: Server) -> None:
    unfold(page, "more")
    page.locator("#results-tab-button").click()
    expect(page.locator("#no-results")).to_contain_text("No ratings yet.")
    expect(page.locator("#no-results")).to_contain_text("choose what Left and Right play")
    assert page.locator("#results-view").is_hidden()
    # Rated meanwhile, elsewhere.
    rate(server.db, "first", FIRST, SECOND, 9, 3)
    page.keyboard.press("f")
    expect(page.locator("#results-about")).to_contain_text("12 votes · 2 systems · 1 person · 1 prompt")
    expect(page.locator("#results-about")).to_contain_text("Not blind")
    assert page.locator("#no-results").is_hidden()
    leaders = page.locator("#leaderboard tbody tr")
    assert leaders.nth(0).locator("th").inner_text().strip() == "helpful 75%, concise 25% · geometric"
    # Odds of 9 to 3 are 191 points.
    assert leaders.locator(".rating b").all_inner_texts() == ["+95", "−95"]
    show(page, "Lottery")
    expect(page.locator("#standing")).to_contain_text("12 ratings of 2 mixtures; 1 of 1 pairs met.")
    cells = page.locator("#lottery tbody tr")
    assert "75%" in cells.nth(0).inner_text() and "of 12" in cells.nth(0).inner_text()
    assert cells.nth(0).locator("b").inner_text() == "100%"
    # A circle of three.
    rate(server.db, "second", SECOND, THIRD, 9, 3)
    rate(server.db, "third", THIRD, FIRST, 9, 3)
    page.locator("#desk-tab-button").click()
    page.locator("#results-tab-button").click()
    expect(page.locator("#standing")).to_contain_text("36 ratings of 3 mixtures; 3 of 3 pairs met.")
    assert page.locator("#lottery tbody b").all_inner_texts() == ["33%"] * 3
    expect(page.locator("#standing")).to_contain_text("duality gap 0.0000")
    expect(page.locator("#lottery .means")).to_contain_text("harmless 33% ± ")
    assert page.evaluate("document.documentElement.scrollHeight") <= 900, "the tab scrolls"
    # The mean: a fifth of it is the reference's, which is a lower gain.
    page.locator("#lottery .means .send").click()
    page.locator("#desk").wait_for(state="visible")
    expect(page.locator("#status")).to_contain_text("The faders have the mean weights: harmless 33%")
    expect(page.locator("#status")).to_contain_text("gain 0.8")
    page.wait_for_function("Number(document.querySelectorAll('[data-share]')[1].dataset.exact) > 0.4")
    assert shares(page) == pytest.approx([0.25 / 0.8, 1 / 3 / 0.8, 0.4 / 3 / 0.8, 0.25 / 3 / 0.8], abs=0.01)
    assert page.locator("#gain input[type=number]").input_value() == "0.8"
    # One of them, from the ranking; what is locked stays, and Undo brings back all of it in one step.
    page.locator("#results-tab-button").click()
    show(page, "Ranking")
    page.locator("#leaderboard tbody tr", has_text="helpful 75%").locator(".send").click()
    page.wait_for_function("Number(document.querySelectorAll('[data-share]')[0].dataset.exact) > 0.74")
    assert shares(page) == pytest.approx([0.75, 0, 0, 0.25], abs=0.01)
    expect(page.locator("#status")).to_contain_text("helpful 75%, concise 25%. Press Generate")
    assert page.locator("#gain input[type=number]").input_value() == "1"
    page.locator("#undo").click()
    page.wait_for_function("Number(document.querySelectorAll('[data-share]')[1].dataset.exact) > 0.4")
    assert page.locator("#gain input[type=number]").input_value() == "0.8"


def test_a_study_from_its_ranking_to_a_comment(page: Page, server: Server) -> None:
    evil = "<img src=x onerror=alert(1)>"
    texts = ("Rinse it.\n- soap\n- water", f"Wait. {evil}")
    ballots = []
    for item in range(12):
        for who in ("Ada", "Bo", evil):
            choice = "left" if item % 4 else "right"
            comment = "Too short" if item == 2 and who == "Ada" else ""
            vote = Ballot(
                f"{item}", item % 3, 3, who, choice, prompt=f"Stain {item}?", texts=texts, comment=comment, day=1 + item
            )
            ballots += [vote, replace(vote, question="kind", choice="tie")]
    store = Store(server.db)
    add_study(store, ballots, ["North", "South", "East", "West"], name="Stains", questions=("overall", "kind"))
    store.close()
    page.locator("#results-tab-button").click()
    page.keyboard.press("f")
    choose(page, "study", "Stains")
    expect(page.locator("#results-about")).to_contain_text("36 votes · 4 systems · 3 people · 12 prompts")
    expect(page.locator("#results-about")).not_to_contain_text("Not blind")
    expect(page.locator("#leaderboard tbody tr")).to_have_count(4)
    page.add_style_tag(content=STILL)
    assert not violations(page), "the ranking"
    for view in ("Wins", "People", "Influences", "Lottery"):
        show(page, view)
        assert not violations(page), view
    expect(page.locator("#annotators tbody tr")).to_have_count(5)  # of two questions and three people
    # By keyboard to a cell, and into its pairs.
    show(page, "Wins")
    first = page.locator(".win-matrix button").first
    expect(first).to_have_attribute("tabindex", "0")
    first.focus()
    before = page.evaluate("document.activeElement.ariaLabel")
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    after = page.evaluate("document.activeElement.ariaLabel")
    assert before and after and before != after
    assert page.locator(".win-matrix button[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.pairs-dialog")
    expect(dialog).to_be_visible()
    assert not violations(page), "the pairs"
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.locator(".win-matrix button[aria-label^='East against West']").click()
    expect(dialog.locator("h2")).to_have_text("East against West")
    expect(dialog.locator("details")).to_have_count(4)
    expect(dialog.locator("details").first.locator(".votes")).to_contain_text("Ada · 2026-03-03")
    expect(dialog.locator("q")).to_have_text("Too short")
    expect(dialog.locator("article").nth(1)).to_contain_text(evil)
    page.keyboard.press("Escape")
    # The other question, then one person's votes of some days.
    choose(page, "question", "Which is kind?")
    expect(page.locator("#leaderboard .record").first).to_contain_text("· 12 ·")
    page.locator("#results-filters > button").click()
    page.wait_for_timeout(500)
    choose(page, "person", "Ada")
    expect(page.locator("#results-about")).to_contain_text("12 votes · 4 systems · 1 person")
    page.locator("#results-since input, #results-since textarea").fill("2026-03-10")
    page.keyboard.press("Enter")
    expect(page.locator("#results-about")).to_contain_text("3 votes")
    page.locator("#results-since input, #results-since textarea").fill("March")
    page.keyboard.press("Enter")
    expect(page.locator("#results-about")).to_contain_text("From: found 'March'; type a day such as 2026-01-31")
    assert not violations(page), "with the filters"
