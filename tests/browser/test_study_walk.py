"""A whole study in the running app: its owner makes it, three people in browsers of their own rate, a leaderboard."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from app.storage.database import open_to_read
from tests.app.server.guarding import TOKEN
from tests.browser.annotating import annotator, join
from tests.browser.conftest import opened
from tests.browser.serving import running_app
from tests.browser.test_annotate_tab import create, field, wait_for_responses
from tests.browser.test_results import choose
from tests.browser.walking import DARK, PHONE

expect.set_options(timeout=30_000)

PROMPTS = 3
PAIRS = PROMPTS * 3  # at most: of three mixtures, and those whose responses are the same are left out
# What would tell a mixture: the fields of one, and the names of those that have a name of their own.
TELLING = ('"weights"', '"mixture"', '"system"', '"rule"', '"gain"', '"seed"', '"kind"', "geometric", "Uniform")


def longer(page: Page) -> str:
    """Return the side with the longer response, which everybody here prefers; nobody else is in the same order."""
    a, b = (len(page.locator(f"#text-{side}").inner_text()) for side in "ab")
    return "tie" if a == b else "left" if a > b else "right"


def by_keyboard(page: Page) -> None:
    page.keyboard.press({"left": "ArrowLeft", "right": "ArrowRight", "tie": "ArrowUp"}[longer(page)])


def by_thumb(page: Page) -> None:
    page.get_by_role("button", name={"left": "A is better", "right": "B is better", "tie": "Tie"}[longer(page)]).tap()


def by_mouse(page: Page) -> None:
    page.get_by_role("button", name={"left": "A is better", "right": "B is better", "tie": "Tie"}[longer(page)]).click()


def rate_all(page: Page, answer: Callable[[Page], None]) -> int:
    """Rate until the study has no more for this person, and return the number of pairs."""
    for count in range(PAIRS + 1):
        page.wait_for_selector("body[data-ready], body[data-screen='notice']")
        if page.locator("#notice-title").is_visible():
            expect(page.locator("#notice-title")).to_have_text("Thank you, that was all.")
            return count
        title = page.locator("#pair-title").inner_text()
        answer(page)
        page.wait_for_function(
            "title => document.body.dataset.screen === 'notice' || "
            "document.getElementById('pair-title').textContent !== title",
            arg=title,
        )
    pytest.fail("there are more pairs than the study has")


def test_from_making_a_study_to_its_leaderboard(browser: Browser, tmp_path: Path) -> None:
    db = tmp_path / "mixdesk.db"
    sent: list[str] = []
    with running_app(db, "--owner-token", TOKEN) as url, ExitStack() as stack:
        owner = stack.enter_context(opened(browser, f"{url}/?owner={TOKEN}"))
        owner.locator("#annotate-tab-button").click()
        create(owner, "Longer is better", prompts=PROMPTS, tokens=16)
        wait_for_responses(owner)
        owner.locator("#study-open").click()
        expect(owner.locator("#study-title .state")).to_have_text("Open")
        links = []
        for name in ("Ada", "Björn", "Chen"):
            field(owner, "invite-name").fill(name)
            owner.locator("#study-invite").click()
            expect(owner.locator("#study-invitations tbody tr", has_text=name)).to_be_visible()
            links.append(owner.locator("#study-link input").input_value())
        assert len(set(links)) == 3

        counts = []
        looks: list[tuple[dict, Callable[[Page], None]]] = [({}, by_keyboard), (PHONE, by_thumb), (DARK, by_mouse)]
        for link, (look, answer) in zip(links, looks, strict=True):
            page = stack.enter_context(annotator(browser, "about:blank", **look))
            page.on("response", lambda reply: sent.append(reply.text()) if reply.request.method == "POST" else None)
            page.goto(link)
            expect(page.locator("#join-form")).to_be_visible()
            if answer is by_keyboard:
                join(page, "")
                expect(page.locator("#begin-button")).to_be_visible()
                page.locator("#begin-button").press("Enter")
            else:
                page.get_by_role("button", name="Take part").click()
                page.get_by_role("button", name="Start").click()
            page.wait_for_selector("body[data-ready]")
            found = Axe().run(page).response["violations"]
            assert not found, [violation["help"] for violation in found]
            counts.append(rate_all(page, answer))
        pairs = counts[0]
        assert counts == [pairs] * 3 and 0 < pairs <= PAIRS
        assert sent and not [word for word in TELLING for body in sent if word in body]

        owner.locator("#results-tab-button").click()
        owner.keyboard.press("f")
        choose(owner, "study", "Longer is better")
        expect(owner.locator("#results-about")).to_contain_text(f"{3 * pairs} votes · 3 systems · 3 people")
        rows = owner.locator("#leaderboard tbody tr")
        expect(rows).to_have_count(3)
        ratings = [float(text.replace("−", "-")) for text in owner.locator("#leaderboard .rating b").all_inner_texts()]
        assert ratings == sorted(ratings, reverse=True)
        best = owner.locator("#leaderboard tbody th").first.inner_text()
    # The best wins the most ratings less those that it loses, as counted by hand from what was stored.
    source = open_to_read(db)
    points: dict[str, float] = {}
    for row in source.query(
        "select f.name as first, s.name as second, a.swapped, v.choice from study_answers v "
        "join study_assignments a on a.id = v.assignment_id join study_items i on i.id = a.item_id "
        "join study_systems f on f.study_id = i.study_id and f.place = i.first_system "
        "join study_systems s on s.study_id = i.study_id and s.place = i.second_system"
    ):
        won = {"left": 1, "right": -1}.get(row["choice"], 0) * (-1 if row["swapped"] else 1)
        points[row["first"]] = points.get(row["first"], 0) + won
        points[row["second"]] = points.get(row["second"], 0) - won
    source.close()
    assert points and any(name in best for name in points if points[name] == max(points.values())), (points, best)
