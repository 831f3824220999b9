"""The page's main functions on a phone, by touch, and in the dark."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from engine import Engine
from engine.batch import Batch
from tests.browser.conftest import opened
from tests.browser.test_desk import shares, wait_until_done
from tests.browser.walking import DARK, PHONE, Hand, demo_site

expect.set_options(timeout=30_000)
# What moved on the page without anybody's doing, from now on: [[how much, what]].
WATCH = """() => {
    window.shifts = [];
    const name = ({ node }) => node?.id || node?.className || node?.nodeName;
    new PerformanceObserver((list) => list.getEntries().forEach(({ hadRecentInput, value, sources }) => {
        if (!hadRecentInput) window.shifts.push([value, ...sources.map(name)]);
    })).observe({ type: "layout-shift" });
}"""


@pytest.fixture(scope="module")
def url(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with demo_site(engine, tmp_path_factory.mktemp("widths")) as url:
        yield url


@pytest.fixture(params=["phone", "dark"])
def hand(request: pytest.FixtureRequest, browser: Browser, url: str) -> Iterator[Hand]:
    look = PHONE if request.param == "phone" else DARK
    with opened(browser, url, **look) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield Hand(page, phone=look is PHONE, dark=look is DARK)


def test_the_desk(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    page, pause, step = hand.page, [0.1], Batch.step
    # As slow as a large model, until the fader has moved.
    monkeypatch.setattr(Batch, "step", lambda batch: (time.sleep(pause[0]), step(batch))[1])
    hand.look()
    fixed = ["#mix", "#ratings", "#radar", "#panels", "#status"]
    before = {part: hand.box(part) for part in fixed}
    hand.press("#generate", main=True)
    page.wait_for_selector("#response-left .token:nth-of-type(4)")
    if not hand.phone:
        page.evaluate(WATCH)
        assert {part: hand.box(part) for part in fixed} == before, "the layout jumps as the text begins"
        page.wait_for_selector("#response-left .token:nth-of-type(12)")
    hand.slide(0, 0)
    expect(page.locator("#response-left .mark").first).to_be_visible()
    pause[0] = 0
    wait_until_done(page)
    assert shares(page)[0] < 0.02
    if not hand.phone:
        page.wait_for_function("document.querySelectorAll('#radar .scatterlayer .trace').length === 4")
        assert {part: hand.box(part) for part in fixed} == before, "the layout jumps while text comes"
        # A caption's third line, figures in the table: a hundredth of what web.dev/cls calls good.
        shifts = page.evaluate("window.shifts")
        assert sum(value for value, *_ in shifts) < 0.001, f"something moved by itself: {shifts}"
    hand.look()

    hand.press("#trace")
    expect(page.locator("#response-left .sums li").first).to_be_visible()
    hand.look()
    page.locator("#response-left .token[data-place='3']").click()  # a word in a text is as large as the text
    expect(page.locator("#drawer tbody tr.drawn")).to_be_visible()
    hand.look()
    hand.press("#continue", main=True)
    expect(page.locator("#panel-third")).to_be_visible()
    wait_until_done(page)
    hand.press("#close-drawer")
    hand.press("#add-panel")
    expect(page.locator("#panel-fourth")).to_be_visible()
    hand.look()
    hand.press("#remove-fourth")
    hand.press("#remove-third")
    expect(page.locator("[id^=panel-]:visible")).to_have_count(2)
    hand.press("#rate-left", main=True)
    expect(page.locator("#status")).to_contain_text("Saved: left is better")
    hand.look()

    hand.press("#even")
    for mark, shown in (("#solo-2", [0, 0, 1, 0]), ("#mute-2", [0, 0, 0, 0]), ("#lock-1", [0, 0, 0, 0])):
        hand.press(mark)
        expect(page.locator(mark)).to_have_attribute("aria-pressed", "true")
        assert shares(page) == shown
    hand.look()
    hand.press("#undo")
    expect(page.locator("#lock-1")).to_have_attribute("aria-pressed", "false")
    hand.press("#more > button")
    hand.look()


def test_saving_sharing_exploring_and_the_menu(hand: Hand, url: str) -> None:
    page, status = hand.page, hand.page.locator("#status")
    hand.press("#shelf > button")
    name = f"Evening {'phone' if hand.phone else 'dark'}"
    page.locator("#saved input").fill(name)
    hand.slide(0, 1)
    expect(page.locator("[data-share]").first).to_have_text("40%")
    hand.press("#save")
    expect(status).to_contain_text(f"Saved: “{name}”")
    hand.press("#even")
    hand.press("#load")
    expect(page.locator("[data-share]").first).to_have_text("40%")
    hand.press("#delete")
    expect(page.locator("#question")).to_contain_text("for everybody?")
    hand.look()
    hand.press("#remove")
    expect(status).to_contain_text("Deleted")
    page.locator("#prompt textarea").fill("What is a good tea for the evening?")
    hand.press("#copy-link")
    expect(status).to_contain_text("Copied: the link")
    link = page.evaluate("navigator.clipboard.readText()")
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_function("document.body.dataset.ready")
    expect(status).to_contain_text("The desk is as the link has it.")
    expect(page.locator("[data-share]").first).to_have_text("40%")
    assert page.locator("#prompt textarea").input_value() == "What is a good tea for the evening?"

    hand.press("#configurations summary")
    expect(page.locator("#configurations button")).to_have_count(3)
    hand.look()
    hand.press("#configurations [data-configuration=missing]")
    expect(page.locator("#loading")).to_contain_text("missing could not be opened, you still have demo.")
    hand.look()
    if not hand.phone:
        assert page.evaluate("document.documentElement.scrollHeight") <= 900, "the desk scrolls under a line"
    hand.press("#loading [data-notice=loading]")
    expect(page.locator("#loading")).to_be_hidden()

    hand.press("#explore-tab-button", main=True)
    page.wait_for_selector("#pairs-figure .scatterlayer .point")
    page.wait_for_selector("#weights-figure .scatterlayer .point")
    hand.look()
    expect(page.locator("#pairs-figure .legendtext").first).to_be_visible(visible=not hand.phone)
    figure = page.locator("#pairs-figure .figure")
    figure.scroll_into_view_if_needed()
    x, y, *weights = figure.evaluate(
        """(plot) => {
            const trace = plot._fullData.find(({ name, xaxis }) => name === "mostly helpful" && xaxis === "x");
            const best = trace.x.indexOf(Math.max(...trace.x));
            const { xaxis, yaxis } = plot._fullLayout;
            const left = xaxis._offset + xaxis.d2p(trace.x[best]), top = yaxis._offset + yaxis.d2p(trace.y[best]);
            return [left, top, ...trace.customdata[best].slice(0, 4)];
        }"""
    )
    if hand.phone:
        figure.tap(position={"x": x, "y": y})
    else:
        figure.click(position={"x": x, "y": y})
    page.locator("#desk").wait_for(state="visible")
    expect(status).to_contain_text("the weights of the point that you clicked")
    assert shares(page) == pytest.approx(weights, abs=0.01)


def test_comparing(hand: Hand) -> None:
    page = hand.page
    hand.press("#compare-tab-button", main=True)
    hand.look()
    page.locator("#compare-most :is(input, textarea)").first.fill("6")
    page.locator("#compare-length :is(input, textarea)").first.fill("12")
    hand.press("#compare-start", main=True)
    expect(page.locator("#compare-delete")).to_be_visible()
    expect(page.locator("#compare-stop")).to_be_hidden()  # the table is not drawn anew any more
    expect(page.locator(".wins")).to_contain_text("lowest of all")
    expect(page.locator("#compare-radar .polarlayer")).to_be_visible()
    expect(page.locator(".compare-table .count")).to_have_text("6 of 6 prompts")
    expect(page.locator(".compare-table .legend")).to_be_visible()
    hand.look()
    hand.press(page.locator(".compare-table tbody .prompt").first)
    expect(page.locator("dialog[open] article")).to_have_count(6)
    hand.look()
    title = page.locator("dialog[open] h2")
    before = title.inner_text()
    hand.press(page.get_by_role("button", name="Next →"))
    expect(title).not_to_have_text(before)  # the dialog is built anew
    hand.press("dialog[open] .close")
    expect(page.locator("dialog[open]")).to_have_count(0)
    with page.expect_download() as download:
        hand.press(page.get_by_role("link", name="CSV"))
    assert download.value.path().read_text(encoding="utf-8").startswith("place,prompt,")
    hand.press("#compare-delete")
    expect(page.locator("#compare-question")).to_contain_text("36 responses")
    hand.look()
    hand.press("#compare-sure")
    expect(page.locator("#compare-question")).to_be_hidden()
    expect(page.get_by_text("36 responses")).to_have_count(0)
