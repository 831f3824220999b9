"""Panels that come and go, and faders that steer what is being written, in a real Chromium."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Request, expect

from app.services.app_state import Desk
from app.services.generation_run import Run
from engine.inference.batch import Batch
from tests.browser.conftest import SharedPage, unfold


@pytest.fixture
def page(shared_place: SharedPage, request: pytest.FixtureRequest) -> Iterator[Page]:
    with shared_place.lent(request.session) as page:
        yield page


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As slow as a large model: there is time to move a fader."""
    step = Batch.step
    monkeypatch.setattr(Batch, "step", lambda batch, drawn: (time.sleep(0.08), step(batch, drawn))[1])


def wait_until_done(page: Page) -> None:
    page.wait_for_selector("#rate-left:enabled")
    page.wait_for_selector("#generate:enabled")


def newest(desk: Desk) -> Run:
    return list(desk.runs.values())[-1]


@pytest.mark.usefixtures("slow")
def test_a_fader_steers_what_is_still_to_come(page: Page, place: tuple[str, Desk]) -> None:
    page.locator("#generate").click()
    page.wait_for_selector("#response-left .token:nth-of-type(4)")
    page.locator("#fader-0 input[type=range]").fill("0")
    mark = page.locator("#response-left .mark")
    expect(mark).to_have_count(1)
    page.keyboard.press("Escape")
    wait_until_done(page)
    run = newest(place[1])
    left, right = run.completions["left"], run.completions["right"]
    (begun, first), (at, then) = left.steered.items()
    assert (begun, first.weights["helpful"]) == (0, 0.25)
    assert then.weights["helpful"] == 0 and then.weights["concise"] == pytest.approx(1 / 3)
    # The mark stands before the first token that was drawn from the new weights, and tells them.
    assert (
        page.evaluate("Number(document.querySelector('#response-left .mark').nextElementSibling.dataset.place)") == at
    )
    mark.hover()
    expect(page.locator("#tip")).to_contain_text("Steered to harmless 33%, humorous 33%, concise 33%")
    expect(page.locator("#caption-left")).to_contain_text("steered once")
    assert right.steered == {}, "a panel that does not play the faders was steered"
    expect(page.locator("#response-right .mark")).to_have_count(0)


def test_faders_that_move_at_once_are_one_question(page: Page) -> None:
    """No mixture of which half has moved is ever asked for: neither by Even, nor by Undo."""
    asked: list[list[float]] = []

    def note(sent: Request) -> None:
        if sent.url.endswith("/steer"):
            asked.append(list(sent.post_data_json["mixture"]["faders"].values()))

    page.on("request", note)
    for fader, position in enumerate(("0.9", "0.1", "0.2")):
        with page.expect_response("**/steer"):
            page.locator(f"#fader-{fader} input[type=range]").fill(position)
    assert asked[-1] == [0.9, 0.1, 0.2, 0.5]
    for key, faders in (("e", [0.5, 0.5, 0.5, 0.5]), ("Control+z", [0.9, 0.1, 0.2, 0.5])):
        asked.clear()
        with page.expect_response("**/steer"):
            page.keyboard.press(key)
        page.wait_for_timeout(500)  # for a second question, which must not come
        assert asked == [faders]
    page.remove_listener("request", note)


def test_a_hand_is_heard_before_the_screen_is_drawn(page: Page) -> None:
    """The question leaves with the event itself; what Gradio tells of it later is none."""
    fader = page.locator("#fader-1 input[type=range]")
    fader.fill("0.4")
    page.wait_for_timeout(500)
    asked = page.evaluate(
        """() => {
            const asked = (window.asked = []), send = window.fetch;
            window.fetch = (where, what) => {
                if (where === "steer") asked.push(JSON.parse(what.body).mixture.faders.harmless);
                return send(where, what);
            };
            const fader = document.querySelector("#fader-1 input[type=range]");
            Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(fader, "0.7");
            fader.dispatchEvent(new Event("input", { bubbles: true }));
            return [...asked];
        }"""
    )
    assert asked == [0.7]
    page.wait_for_timeout(500)
    assert page.evaluate("asked") == [0.7]
    expect(page.locator("#fader-1 input[type=number]")).to_have_value("0.7")


def test_panels_are_added_and_removed(page: Page, place: tuple[str, Desk]) -> None:
    third, fourth = page.locator("#panel-third"), page.locator("#panel-fourth")
    expect(third).to_be_hidden()
    page.keyboard.press("p")
    page.locator("#add-panel").click()
    expect(fourth).to_be_visible()
    expect(page.locator("#add-panel")).to_be_disabled()
    assert page.evaluate("document.documentElement.scrollHeight") <= 900, "four panels scroll the page"
    page.get_by_label("Remove the fourth panel").click()
    expect(fourth).to_be_hidden()
    unfold(page, "more")
    page.locator("#length input[type=number]").fill("12")
    page.keyboard.press("Tab")
    page.locator("#generate").click()
    wait_until_done(page)
    made = newest(place[1]).completions
    assert list(made) == ["left", "right", "third"]
    assert made["third"].sampling.particles == 16, "Faders exact is drawn by particles"
    assert [completion.seed - made["left"].seed for completion in made.values()] == [0, 1, 2]
    assert page.locator("#response-third .tokens").text_content() == made["third"].text
    expect(page.locator("#rewards thead th")).to_have_text(["Raw reward", "Left", "Right", "Third"])
    # The reference's ring, the expected polygon, and a line a panel.
    page.wait_for_function("document.querySelectorAll('#radar .scatterlayer .trace').length === 5")
    dashes = page.evaluate(
        "[...new Set(document.querySelector('#radar .js-plotly-plot').data.map((t) => t.line.dash))]"
    )
    assert len(dashes) >= 4
    page.keyboard.press("1")
    expect(page.locator("#status")).to_contain_text("Saved: left is better")
