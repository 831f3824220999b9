"""Expected rewards that follow the faders, Balance, and Explore, in a real Chromium."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.services import bank_service
from engine import Engine, Sampling
from tests.browser.conftest import SharedPage, opened, unfold
from tests.browser.serving import served
from tests.browser.test_desk import shares, wait_until_done
from tests.browser.walking import LONELY_POINT

# The radar's trace of this name, as plotly holds it.
TRACE = "document.querySelector('#radar .figure').data.find((trace) => trace.name === 'Expected')"


@pytest.fixture
def page(shared: SharedPage, request: pytest.FixtureRequest) -> Iterator[Page]:
    with shared.lent(request.session) as page:
        page.wait_for_function(TRACE)
        yield page


def heights(page: Page) -> list[float]:
    return page.evaluate(f"{TRACE}.r")


def said(page: Page) -> str:
    return page.locator("#expected").inner_text()


def choose_rule(page: Page, rule: str) -> None:
    unfold(page, "more")
    page.get_by_label("Rule").click()
    page.get_by_role("option", name=rule, exact=True).click()


def test_the_polygon_follows_a_fader_while_it_is_dragged(page: Page) -> None:
    page.locator("#generate").click()
    wait_until_done(page)
    page.wait_for_function("document.querySelector('#radar .figure').data.length === 4")
    sides = "document.querySelector('#radar .figure').data.slice(2).map((trace) => [trace.name, trace.r])"
    before, drawn = heights(page), page.evaluate(sides)
    page.evaluate("window.plot = document.querySelector('#radar .main-svg')")
    knob = page.locator("#fader-3 input[type=range]").bounding_box()
    assert knob is not None
    x, y = knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    seen = [before]
    for step in (1, 2, 3):
        page.mouse.move(x + step * knob["width"] / 8, y)
        page.wait_for_function(f"old => String({TRACE}.r) !== String(old)", arg=seen[-1])
        seen.append(heights(page))
    # Concise is the last axis; the more of it, the more concise.
    assert [r[3] for r in seen] == sorted(r[3] for r in seen)
    assert page.evaluate("window.plot.isConnected"), "the figure began anew"
    page.mouse.up()
    assert page.evaluate(sides) == drawn, "the responses' polygons are gone"
    assert page.evaluate("document.activeElement.type") == "range", "the focus was taken"
    assert "over 24 prompts at temperature 0.7" in said(page)


def test_where_little_counts_it_is_grey_and_says_so(page: Page) -> None:
    colour = page.evaluate(f"{TRACE}.line.color")
    unfold(page, "more")
    page.locator("#gain input[type=number]").fill("4")
    page.keyboard.press("Tab")
    page.locator("#solo-2").click()
    expect(page.locator("#expected")).to_contain_text("a guess here")
    assert "lower the gain, or sample more in Explore" in said(page)
    page.wait_for_function(f"old => {TRACE}.line.color !== old", arg=colour)
    page.locator("#gain input[type=number]").fill("1")
    page.keyboard.press("Tab")
    page.wait_for_function(f"old => {TRACE}.line.color === old", arg=colour)
    assert "guess" not in said(page)


def test_another_rule_has_no_polygon_and_says_why(page: Page) -> None:
    choose_rule(page, "soup")
    expect(page.locator("#expected")).to_contain_text("No expected rewards for the soup rule")
    page.wait_for_function(f"!({TRACE})")


def test_balance_moves_the_faders_and_says_why(page: Page) -> None:
    assert shares(page) == pytest.approx([0.25] * 4)
    before = heights(page)
    page.locator("#top h1").click()
    page.keyboard.press("b")
    status = page.locator("#status")
    expect(status).to_contain_text("Balanced: by the reward models, the least expected reward is the most it can be")
    page.wait_for_function("Math.abs(Number(document.querySelector('[data-share]').dataset.exact) - 0.25) > 0.01")
    # The sentence has the weights that the faders show, to a percent; Balance has the bank's own error besides.
    for name, share in zip(["helpful", "harmless", "humorous", "concise"], shares(page), strict=True):
        told = int(status.inner_text().split(f"{name} ")[1].split("%")[0])
        assert told == pytest.approx(100 * share, abs=1)
    page.wait_for_function(f"old => String({TRACE}.r) !== String(old)", arg=before)
    assert page.evaluate("document.documentElement.scrollHeight") <= 900, "the desk scrolls"
    page.locator("#even").click()
    page.wait_for_function("Math.abs(Number(document.querySelector('[data-share]').dataset.exact) - 0.25) < 0.001")
    # Typing a b is typing.
    page.locator("#prompt textarea").press("b")
    page.wait_for_timeout(500)
    assert shares(page) == pytest.approx([0.25] * 4)


def test_a_click_in_explore_sets_the_faders(page: Page) -> None:
    page.locator("#explore-tab-button").click()
    figure = page.locator("#pairs-figure .figure")
    page.wait_for_selector("#pairs-figure .scatterlayer .point")
    page.wait_for_selector("#weights-figure .scatterlayer .point")
    size = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size[0] <= 1440 and size[1] <= 900, "Explore scrolls"
    page.keyboard.press("1")  # what is not seen is not rated
    left, top, *weights = figure.evaluate(LONELY_POINT)
    box = figure.bounding_box()
    assert box is not None
    x, y = box["x"] + left, box["y"] + top
    page.mouse.move(x, y)
    page.wait_for_selector("#pairs-figure .hoverlayer .hovertext")
    assert "of the bank counts" in str(page.locator("#pairs-figure .hoverlayer").text_content())
    page.mouse.click(x, y)
    page.locator("#desk").wait_for(state="visible")
    expect(page.locator("#status")).to_contain_text("the weights of the point that you clicked")
    assert shares(page) == pytest.approx(weights, abs=0.01)
    size = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size[0] <= 1440 and size[1] <= 900, "the desk scrolls"


def test_a_target_sets_the_faders_or_says_what_is_in_the_way(page: Page) -> None:
    assert page.evaluate(f"{TRACE}.r[1]") < 0.35
    page.locator("#explore-tab-button").click()
    floor = page.locator("#floor-1 input, #floor-1 textarea").first
    floor.fill("much")
    page.locator("#find").click()
    expect(page.locator("#explore-status")).to_contain_text("harmless: found 'much'")
    floor.fill("99")
    page.locator("#find").click()
    expect(page.locator("#explore-status")).to_contain_text("no weights keep to")
    floor.fill("0.4")
    page.locator("#find").click()
    expect(page.locator("#status")).to_contain_text("Target: the most reward with harmless at least 0.4")
    page.locator("#desk").wait_for(state="visible")
    page.wait_for_function(f"{TRACE}.r[1] > 0.35")
    # What counts more gets more, with the same floor.
    page.wait_for_timeout(500)  # the figure's own numbers follow when the faders are at rest
    before = page.evaluate(f"{TRACE}.r[3]")
    page.locator("#explore-tab-button").click()
    worth = page.locator("#worth :is(input, textarea)")
    worth.fill("funny=4")
    page.locator("#find").click()
    expect(page.locator("#explore-status")).to_contain_text("no reward is for 'funny'; there are helpful")
    worth.fill("concise=4")
    worth.press("Enter")
    expect(page.locator("#status")).to_contain_text("with harmless at least 0.4 and concise counting 4")
    page.wait_for_function(f"{TRACE}.r[1] > 0.35 && {TRACE}.r[3] > {before} + 0.3")


@pytest.fixture
def without_bank(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The app with no bank that fits: responses are fewer and shorter than those of the one that ships."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bank_service, "SAMPLING", Sampling(max_new_tokens=12, temperature=0.9))
    monkeypatch.setattr(bank_service, "PROMPTS", 8)
    with served(engine, tmp_path / "mixdesk.db") as (url, _):
        yield url


def test_a_bank_is_sampled_where_there_is_none(
    without_bank: str, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, may_go_on = bank_service.collection.finish, threading.Event()
    finished: list[object] = []

    def slow(*arguments: object) -> object:
        if len(finished) >= 3:
            assert may_go_on.wait(60)
        finished.append(None)
        return finish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bank_service.collection, "finish", slow)
    with opened(browser, without_bank) as page, opened(browser, without_bank) as other:
        expect(page.locator("#expected")).to_contain_text("No expected rewards yet: press Balance")
        assert not page.evaluate(f"Boolean({TRACE})")
        page.locator("#balance").click()
        expect(page.locator("#status")).to_contain_text("Sampling a bank to balance with: 18 of 96 responses.")
        # The engine serves others meanwhile.
        other.locator("#generate").click()
        wait_until_done(other)
        assert page.locator("#stop").is_enabled()
        page.locator("#stop").click()
        expect(page.locator("#status")).to_contain_text("Stopped: 18 of 96 responses are kept")
        expect(page.locator("#balance")).to_be_enabled()
        may_go_on.set()
        # Explore says what a bank is, and goes on with what was kept.
        page.locator("#explore-tab-button").click()
        expect(page.locator("#empty")).to_contain_text("What can be had?")
        title = page.locator("#top h1").bounding_box()
        assert title is not None and title["x"] < 100, "the page shrank to what is in it"
        page.keyboard.press("Control+Enter")
        expect(page.locator("#explore-status")).to_contain_text("The bank is there", timeout=120_000)
        page.wait_for_selector("#pairs-figure .scatterlayer .point")
        assert page.locator("#empty").is_hidden()
        assert page.locator("#sample").inner_text().startswith("Sample more") and page.locator("#sample").is_enabled()
        page.locator("#desk-tab-button").click()
        page.wait_for_function(TRACE)
        page.locator("#balance").click()
        expect(page.locator("#status")).to_contain_text("Balanced: ")
