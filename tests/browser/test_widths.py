"""The page's functions on a phone, by touch, and in the dark. By day on a laptop each has tests of its own."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from engine import Engine
from engine.inference.batch import Batch
from tests.browser.conftest import SharedPage
from tests.browser.test_desk import shares, wait_until_done
from tests.browser.test_results import FIRST, SECOND, THIRD, rate
from tests.browser.test_tour import PLACED, TARGETS, WELL
from tests.browser.walking import DARK, LONELY_POINT, PHONE, Hand, demo_site

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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("widths")


@pytest.fixture(scope="module")
def url(engine: Engine, folder: Path) -> Iterator[str]:
    with demo_site(engine, folder) as url:
        yield url


@pytest.fixture(scope="module", params=["phone", "dark"])
def shared(request: pytest.FixtureRequest, browser: Browser, url: str) -> Iterator[SharedPage]:
    page = SharedPage(browser, url, **(PHONE if request.param == "phone" else DARK))
    yield page
    page.close()


@pytest.fixture
def hand(request: pytest.FixtureRequest, shared: SharedPage) -> Iterator[Hand]:
    with shared.lent(request.session) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield Hand(page, phone="is_mobile" in shared.look, dark="color_scheme" in shared.look)


def test_the_desk(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    page, status, pause, step = hand.page, hand.page.locator("#status"), [0.1], Batch.step
    # As slow as a large model, until the fader has moved.
    monkeypatch.setattr(Batch, "step", lambda batch, drawn: (time.sleep(pause[0]), step(batch, drawn))[1])
    hand.look()
    hand.unfold("more")
    hand.look()
    hand.press("#new-seed label")
    page.locator("#temperature input[type=number]").fill("0")
    hand.press("#more > button")
    hand.press(page.locator(".chip").nth(2))
    expect(page.locator("#prompt textarea")).to_have_value(page.locator(".chip").nth(2).inner_text())
    page.evaluate("scrollTo(0, 0)")
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
    if hand.phone:
        place = "box => [box.scrollHeight > box.clientHeight, box.scrollTop]"
        assert page.locator("#response-right .response").evaluate(place) == [True, 0], "it is read from its beginning"
    else:
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
    expect(status).to_contain_text("Saved: left is better")
    hand.look()

    hand.press("#reply-right")
    expect(page.locator("#transcript .turn")).to_have_count(2)
    transcript, prompt = hand.box("#transcript"), hand.box("#prompt")
    assert 0 <= prompt["y"] - (transcript["y"] + transcript["height"]) < 80, "what was said is above what one writes"
    hand.look()
    page.locator("#prompt textarea").fill("And what else?")
    hand.press("#mixture-right input")
    hand.press(page.get_by_role("option", name="Uniform"))
    pause[0] = 0.1
    hand.press("#generate", main=True)
    hand.press("#stop", main=True)
    pause[0] = 0
    expect(status).to_contain_text("Stopped")
    hand.press("#generate", main=True)
    wait_until_done(page)
    hand.press("#reply-left")
    expect(page.locator("#transcript .turn")).to_have_count(4)
    hand.look()
    hand.press("#back")
    expect(page.locator("#prompt textarea")).to_have_value("And what else?")
    hand.press("#conversation summary")
    expect(page.locator("#transcript")).to_be_hidden()
    hand.press("#new-conversation")
    expect(page.locator("#conversation")).to_be_hidden()

    hand.press("#even")
    page.wait_for_function("Number(document.querySelector('[data-share]').dataset.exact) === 0.25")
    hand.press("#balance")
    expect(status).to_contain_text("Balanced: ")
    expect(status).to_be_in_viewport()
    hand.look()
    knob = page.get_by_role("slider", name="Target for helpful").locator(".knob")
    hand.drag(knob, -24, -24)
    expect(status).to_contain_text("your target: helpful +")
    assert shares(page)[0] > 0.5
    hand.look()
    hand.press("#radar-target .clear")
    expect(page.locator("#radar-target .clear")).to_be_hidden()

    hand.press("#even")
    for mark, shown in (("#solo-2", [0, 0, 1, 0]), ("#mute-2", [0, 0, 0, 0]), ("#lock-1", [0, 0, 0, 0])):
        hand.press(mark)
        expect(page.locator(mark)).to_have_attribute("aria-pressed", "true")
        assert shares(page) == shown
    hand.look()
    for button, pressed in (("#undo", "false"), ("#redo", "true")):
        hand.press(button)
        expect(page.locator("#lock-1")).to_have_attribute("aria-pressed", pressed)


def test_saving_sharing_exploring_and_the_menu(hand: Hand, url: str) -> None:
    page, status = hand.page, hand.page.locator("#status")
    hand.unfold("shelf")
    name = f"Evening {'phone' if hand.phone else 'dark'}"
    page.locator("#saved input").fill(name)
    hand.slide(0, 1)
    expect(page.locator("[data-share]").first).to_have_text("40%")
    hand.press("#save")
    expect(status).to_contain_text(f"Saved: “{name}”")
    hand.press("#even")
    hand.press("#save")
    expect(page.locator("#question")).to_contain_text("Replace it?")
    hand.look()
    hand.press("#cancel")
    hand.press("#load")
    expect(page.locator("[data-share]").first).to_have_text("40%")
    hand.press("#delete")
    expect(page.locator("#question")).to_contain_text("for all users?")
    hand.look()
    hand.press("#remove")
    expect(status).to_contain_text("Deleted")
    hand.press("#copy-yaml")
    expect(status).to_contain_text("Copied: the mixture as YAML")
    expect(status).to_be_in_viewport()
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
    x, y, *weights = figure.evaluate(LONELY_POINT)
    if hand.phone:
        figure.tap(position={"x": x, "y": y})
    else:
        figure.click(position={"x": x, "y": y})
    page.locator("#desk").wait_for(state="visible")
    expect(status).to_contain_text("the weights of the point that you clicked")
    assert shares(page) == pytest.approx(weights, abs=0.01)
    hand.press("#explore-tab-button", main=True)
    hand.press("#sample")
    expect(page.locator("#explore-status")).to_contain_text("Sampling:")
    hand.look()
    hand.press("#explore-stop")
    expect(page.locator("#sample")).to_be_enabled()
    page.locator("#floor-1 :is(input, textarea)").fill("much")
    hand.press("#find", main=True)
    expect(page.locator("#explore-status")).to_contain_text("harmless: found 'much'")
    hand.look()
    page.locator("#floor-1 :is(input, textarea)").fill("0.4")
    hand.press("#find", main=True)
    expect(status).to_contain_text("harmless at least 0.4")


def test_comparing(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    page, status, pause, step = hand.page, hand.page.locator("#compare-status"), [0.1], Batch.step
    monkeypatch.setattr(Batch, "step", lambda batch, drawn: (time.sleep(pause[0]), step(batch, drawn))[1])
    hand.press("#compare-tab-button", main=True)
    hand.look()
    with page.expect_file_chooser() as chooser:
        hand.press("#compare-upload")
    prompts = "".join(json.dumps({"prompt": f"What is {what}?"}) + "\n" for what in ("tea", "rain", *range(6)))
    chooser.value.set_files({"name": "asked.jsonl", "mimeType": "text/plain", "buffer": prompts.encode()})
    expect(status).to_contain_text("asked.jsonl: 8 prompts.")
    page.locator("#compare-typed :is(input, textarea)").fill("helpful=0.6, harmless=0.4")
    hand.press("#compare-add")
    expect(status).to_contain_text("take one out first")
    hand.look()
    hand.press(page.locator("#compare-mixtures .token", has_text="concise").locator(".token-remove"))
    hand.press("#compare-add")
    expect(page.locator("#compare-mixtures .token").last).to_contain_text("helpful=0.6")
    page.locator("#compare-most :is(input, textarea)").first.fill("6")
    page.locator("#compare-length :is(input, textarea)").first.fill("12")
    hand.press("#compare-start", main=True)
    expect(page.locator("#compare-progress")).to_contain_text("of 6 prompts answered")
    hand.look()
    hand.press("#compare-stop")
    expect(status).to_contain_text("Stopping")
    pause[0] = 0
    hand.press("#compare-resume")
    expect(status).to_be_hidden()
    expect(page.locator("#compare-delete")).to_be_visible()
    expect(page.locator("#compare-stop")).to_be_hidden()  # the table is not drawn anew any more
    expect(page.locator(".wins")).to_contain_text("lowest of all")
    expect(page.locator("#compare-radar .polarlayer")).to_be_visible()
    expect(page.locator(".compare-table .count")).to_have_text("6 of 6 prompts")
    expect(page.locator(".compare-table .legend")).to_be_visible()
    hand.look()
    hand.press(page.locator(".compare-table .sort").nth(1))
    page.locator(".compare-table .tools input").fill("rain")
    expect(page.locator(".compare-table .count")).to_have_text("1 of 6 prompts")
    page.locator(".compare-table .tools input").fill("")
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
    hand.press("#compare-keep")
    expect(page.locator("#compare-question")).to_be_hidden()
    hand.press("#compare-delete")
    hand.press("#compare-sure")
    expect(page.locator("#compare-question")).to_be_hidden()
    expect(page.get_by_text("36 responses")).to_have_count(0)


def test_results_help_and_the_tour(hand: Hand, folder: Path) -> None:
    page, db = hand.page, folder / "mixdesk.db"
    with sqlite3.connect(db) as store:
        store.execute("delete from ratings")
    hand.press("#results-tab-button", main=True)
    expect(page.locator("#no-results")).to_contain_text("No ratings yet.")
    hand.look(least=10)
    for i, (left, right) in enumerate(((FIRST, SECOND), (SECOND, THIRD), (THIRD, FIRST))):
        rate(db, f"{'phone' if hand.phone else 'dark'}-{i}", left, right, 2, 1)
    hand.press("#refresh")
    expect(page.locator("#leaderboard tbody tr")).to_have_count(3)
    expect(page.locator("#results-about")).to_contain_text("9 votes · 3 systems · 1 person · 1 prompt")
    hand.look()
    for view in ("Wins", "People", "Influences", "Lottery"):
        hand.press(page.locator("#results-view label", has_text=view))
        expect(page.locator(f"#results-{view.lower()}")).to_be_visible()
        hand.look()
    expect(page.locator("#standing")).to_contain_text("Too few ratings for the weights to mean much: 3 a pair")
    expect(page.locator("#lottery tbody tr")).to_have_count(3)
    hand.look()
    hand.press(page.get_by_role("button", name="Send mixture 1 of the lottery to the desk"))
    page.locator("#desk").wait_for(state="visible")
    expect(page.locator("#status")).to_contain_text("The faders have mixture 1 of the lottery")

    page.evaluate("scrollTo(0, 0)")
    hand.press("#top [data-help=open]")
    expect(page.locator("#help")).to_be_visible()
    hand.look()
    for checked in (False, True):
        hand.press("#single-keys")
        expect(page.locator("#single-keys")).to_be_checked(checked=checked)
    hand.press("#help [data-help=tour]")
    title = hand.box("#top h1")
    for i, target in enumerate(TARGETS):
        expect(page.locator("#tour small")).to_have_text(f"{i + 1} of 5")
        page.wait_for_function(f"target => ({PLACED})(target).seen", arg=target)
        assert page.evaluate(PLACED, target) == WELL, target
        if i == 0:
            assert title["y"] >= 0 and hand.box("#top h1") == title, "the title went out of sight"
            tour = hand.box("#tour")
            assert title["y"] + title["height"] <= tour["y"], "the tour lies over the title"
        hand.look()
        hand.press("#tour .next")
    expect(page.locator("#tour")).to_have_count(0)
