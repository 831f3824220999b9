"""axe-core on the annotators' page in every state, in light and dark, on a wide screen and a phone; nothing moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from app.schemas.study import StudyState
from tests.browser.annotating import GUIDELINES, THREE, TRAINING, annotating, annotator, join, wait_for_pair
from tests.browser.serving import Relay
from tests.browser.test_accessibility import SIZES, THEMES

QUIET: dict[str, Any] = {"reduced_motion": "reduce"}


def check(page: Page, state: str) -> None:
    """No rule of axe is broken in this state, and nothing is wider than the screen."""
    found = []
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        sizes = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
        found += [] if sizes[0] <= sizes[1] else [f"{width} px: the page is {sizes[0]} px wide"]
        for theme, options in THEMES.items():
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            for violation in Axe().run(page, None, options).response["violations"]:
                for node in violation["nodes"]:
                    why = "; ".join(one["message"] for one in (*node["any"], *node["all"], *node["none"]))
                    found.append(f"{width} px, {theme}: {violation['id']} at {node['target']}: {why}")
    page.set_viewport_size({"width": SIZES[0][0], "height": SIZES[0][1]})
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    assert not found, "\n".join([f"{state}:", *found])


def test_from_joining_to_the_work(browser: Browser, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"guidelines": GUIDELINES, "training": TRAINING, "sign_in": True, "anonymous": True}
    with annotating(tmp_path / "mixdesk.db", **settings) as place, annotator(browser, place.page, **QUIET) as page:
        expect(page.locator("#name")).to_be_focused()
        check(page, "joining")
        join(page)
        expect(page.locator("#guidelines")).to_be_visible()
        check(page, "the guidelines")
        page.locator("#begin-button").click()
        wait_for_pair(page, "Training pair 1 of 2")
        check(page, "training")
        page.keyboard.press("ArrowUp")
        expect(page.locator("#feedback")).to_be_visible()
        check(page, "the feedback on a wrong answer")
        page.goto(f"{place.url}/annotate/nothing-here")
        check(page, "no such study")


def test_the_work_and_what_opens_over_it(browser: Browser, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"guidelines": GUIDELINES, "questions": THREE}
    with annotating(tmp_path / "mixdesk.db", **settings) as place:
        relay = Relay(place.url)
        place.url = relay.url
        with annotator(browser, place.invite(), **QUIET) as page:
            join(page)
            page.locator("#begin-button").click()
            for i in range(1, 5):
                wait_for_pair(page, f"Pair {i} of 4")
                page.keyboard.press("ArrowLeft")
                check(page, f"the pair {i}, with a question answered")
                page.keyboard.press("ArrowUp")
                page.keyboard.press("ArrowRight")
                if i < 4:
                    page.keyboard.press("Enter")
            for key, dialog in (("?", "keys"), ("g", "reading"), ("f", "flagging")):
                page.keyboard.press(key)
                expect(page.locator(f"#{dialog}")).to_be_visible()
                check(page, f"the dialog {dialog}")
                page.keyboard.press("Escape")
            page.keyboard.press("p")
            expect(page.locator("#notice-title")).to_have_text("Paused")
            check(page, "paused")
            page.keyboard.press("Enter")
            wait_for_pair(page, "Pair 4 of 4")
            relay.cut()
            page.keyboard.press("Enter")
            expect(page.locator("#outage")).to_be_visible()
            check(page, "the server is away")
            relay.mend()
            expect(page.locator("#notice-title")).to_have_text("Thank you, that was all.")
            check(page, "done")
            place.tables.set_state(place.id, StudyState.CLOSED)
            page.reload()
            expect(page.locator("#notice-title")).to_have_text("The study is closed")
            check(page, "closed")


def test_what_is_wrong_is_found(browser: Browser, tmp_path: Path) -> None:
    with annotating(tmp_path / "mixdesk.db") as place, annotator(browser, place.invite(), **QUIET) as page:
        expect(page.locator("#name")).to_be_focused()
        page.evaluate("document.getElementById('join-lead').style.color = '#ccc'")
        page.evaluate("document.querySelector('label[for=name]').remove()")
        try:
            check(page, "joining")
        except AssertionError as error:
            assert "light: color-contrast" in str(error) and "390 px, light: label" in str(error)
        else:
            raise AssertionError("nothing was found")


def test_nothing_moves_from_pair_to_pair(browser: Browser, tmp_path: Path) -> None:
    """The head, the place where the prompt begins, and every button stay where they are, while a pair comes as well."""
    with annotating(tmp_path / "mixdesk.db") as place, annotator(browser, place.invite()) as page:
        join(page)
        wait_for_pair(page, "Pair 1 of 4")
        page.evaluate("""() => {
            window.places = new Set();
            const parts = ["#top", "#prompt", "#bottom", ".choice", "#undo", "#skip", "#flag", "#pause"]
                .flatMap((part) => [...document.querySelectorAll(part)]);
            const look = () => {
                if (scrollY === 0) places.add(JSON.stringify(parts.map((part) => {
                    const { x, y, width, height } = part.getBoundingClientRect();
                    return part.id === "prompt" ? [x, y, width] : [x, y, width, height];
                })));
                requestAnimationFrame(look);
            };
            look();
        }""")
        for i in range(1, 4):
            page.keyboard.press("ArrowLeft")
            wait_for_pair(page, f"Pair {i + 1} of 4")
        assert page.evaluate("[...places]") == page.evaluate("[...places].slice(0, 1)")
