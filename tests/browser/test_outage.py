"""The server goes away and comes back while somebody is at the page: nothing is lost, and the page says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.services.app_state import Desk
from app.storage.database import open_to_read, read_pairs
from engine import Engine
from tests import copies
from tests.browser.conftest import TOURED, unfold
from tests.browser.serving import ROOT, Relay, free_port, served
from tests.browser.test_desk import wait_until_done
from tests.browser.test_fetching import answers, wait_for

# `python -m app`, a fifth of a second slower at each token.
SLOW = (
    "import sys, time; from engine.inference.batch import Batch; step = Batch.step;"
    "Batch.step = lambda batch, drawn: (time.sleep(0.2), step(batch, drawn))[1];"
    "from app.__main__ import main; sys.exit(main(sys.argv[1:]))"
)
LOST = "The server cannot be reached. What was under way was broken off; your prompt, faders and responses are kept."
BACK = "The server is back. Press Generate to try again."
UNHEARD = "The faders were not heard: the server cannot be reached. Move one again."
UNSAVED = "Not saved yet: the server cannot be reached; it will be sent again."
# Set when a page is loaded by itself; a mark of the test's own tells which page is there.
MARKED, UNMARKED = "window.marked = true", "!window.marked && document.body.dataset.ready"


@contextmanager
def process(port: int, db: Path) -> Iterator[copies.Process]:
    """The app, from when it answers; it is killed at the end."""
    command = [sys.executable, "-c", SLOW, "--port", str(port), "--db", str(db)]
    env = {**os.environ, "XDG_CACHE_HOME": str(db.parent)}
    with db.with_suffix(".log").open("a") as log:
        app = copies.start(command, ROOT, env, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}") or app.poll() is not None, 300)
        assert app.poll() is None, db.with_suffix(".log").read_text()
        yield app
    finally:
        app.kill()
        app.wait()


@contextmanager
def desk_page(browser: Browser, url: str) -> Iterator[Page]:
    """The desk, ready. Gradio throws when its requests fail, so that errors of scripts are not looked at."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_init_script(TOURED)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(url)
    ready(page)
    yield page
    page.goto("about:blank")
    context.close()


def ready(page: Page) -> None:
    page.wait_for_function("document.body.dataset.ready")
    page.wait_for_selector("#radar .polarlayer")


@pytest.fixture(scope="module")
def place(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Desk]]:
    with served(engine, tmp_path_factory.mktemp("outage") / "mixdesk.db") as (url, desk):
        yield Relay(url), desk


@pytest.fixture
def page(browser: Browser, place: tuple[Relay, Desk]) -> Iterator[Page]:
    with desk_page(browser, place[0].url) as page:
        yield page


def move(page: Page, fader: int, position: float) -> None:
    page.locator(f"#fader-{fader} input[type=range]").fill(str(position))


def position(page: Page, fader: int) -> float:
    return float(page.locator(f"#fader-{fader} input[type=range]").input_value())


def choose(page: Page, side: str, choice: str) -> None:
    page.locator(f"#mixture-{side} input").click()
    page.get_by_role("option", name=choice, exact=True).click()
    expect(page.locator(f"#mixture-{side} input")).to_have_value(choice)


def text(page: Page, side: str) -> str:
    return page.locator(f"#response-{side} .tokens").inner_text()


def test_a_server_that_is_killed_while_text_comes_and_started_again(browser: Browser, tmp_path: Path) -> None:
    port, db = free_port(), tmp_path / "mixdesk.db"
    url, status = f"http://127.0.0.1:{port}", "#status"
    with process(port, db) as app, desk_page(browser, url) as page:
        page.locator("#add-panel").click()
        choose(page, "right", "humorous")
        move(page, 0, 0.9)
        page.locator("#prompt textarea").fill("How do I store herbs?")
        page.locator("#generate").click()
        page.wait_for_selector("#response-left .token[data-place='6']")
        page.evaluate(MARKED)
        app.kill()
        app.wait()
        expect(page.locator(status)).to_have_text(LOST)
        expect(page.locator("#stop")).to_be_disabled()
        expect(page.locator("#generate")).to_be_enabled()
        for side in ("left", "right", "third"):
            expect(page.locator(f"#caption-{side}")).to_contain_text("Broken off")
        broken = text(page, "left")
        assert broken
        # What is done meanwhile is kept as well.
        move(page, 1, 0.2)
        expect(page.locator(status)).to_have_text(UNHEARD)
        page.locator("#generate").click()
        expect(page.locator(status)).to_have_text(LOST)
        page.locator("#prompt textarea").fill("How do I dry herbs?")
        choose(page, "left", "concise")
        with process(port, db):
            page.wait_for_function(UNMARKED, timeout=120_000)
            ready(page)
            expect(page.locator(status)).to_have_text(BACK)
            expect(page.locator("#prompt textarea")).to_have_value("How do I dry herbs?")
            expect(page.locator("#mixture-left input")).to_have_value("concise")
            expect(page.locator("#mixture-right input")).to_have_value("humorous")
            expect(page.locator("#panel-third")).to_be_visible()
            assert [position(page, i) for i in range(3)] == [0.9, 0.2, 0.5]
            assert text(page, "left") == broken
            expect(page.locator("#caption-left")).to_contain_text("From before the reload · Broken off")
            expect(page.locator("#rate-left")).to_be_disabled()
            page.locator("#generate").click()
            page.wait_for_selector("#response-left .token[data-place='2']")
            assert text(page, "left") != broken
            expect(page.locator("#caption-left")).not_to_contain_text("before the reload")
            page.locator("#stop").click()
            wait_until_done(page)


def test_a_rating_when_the_server_was_started_again(browser: Browser, tmp_path: Path) -> None:
    port, db = free_port(), tmp_path / "mixdesk.db"
    url, status = f"http://127.0.0.1:{port}", "#status"
    with process(port, db) as app, desk_page(browser, url) as page:
        page.locator("#generate").click()
        page.wait_for_selector("#response-right .token[data-place='2']")
        page.locator("#stop").click()
        wait_until_done(page)
        page.evaluate(MARKED)
        app.kill()
        app.wait()
        page.locator("#rate-left").click()
        expect(page.locator(status)).to_have_text(UNSAVED)
        with process(port, db):
            page.wait_for_function(UNMARKED, timeout=120_000)
            expect(page.locator(status)).to_have_text("Saved: left is better.")
            # Sent once.
            page.reload()
            ready(page)
            expect(page.locator(status)).to_contain_text("as it was before the reload")
    with closing(open_to_read(db)) as stored:
        (pair,) = read_pairs(stored)
    assert pair["choice"] == "left" and pair["left"]["text"] and pair["right"]["rewards"]


def test_a_rating_while_the_network_is_away(page: Page, place: tuple[Relay, Desk]) -> None:
    relay, desk = place
    before = len(list(desk.store.pairs()))
    page.locator("#generate").click()
    wait_until_done(page)
    left = text(page, "left")
    relay.cut()
    page.evaluate(MARKED)
    page.locator("#rate-right").click()
    expect(page.locator("#status")).to_have_text(UNSAVED)
    assert len(list(desk.store.pairs())) == before
    relay.mend()
    page.wait_for_function(UNMARKED)
    expect(page.locator("#status")).to_have_text("Saved: right is better.")
    *_, pair = desk.store.pairs()
    assert len(list(desk.store.pairs())) == before + 1
    assert pair["choice"] == "right" and pair["left"]["text"].split() == left.split()
    assert text(page, "left") == left
    page.locator("#generate").click()
    wait_until_done(page)
    page.locator("#rate-left").click()
    expect(page.locator("#status")).to_have_text("Saved: left is better.")


def test_a_fader_that_is_not_heard(page: Page, place: tuple[Relay, Desk]) -> None:
    relay, _ = place
    for i in range(2):
        relay.cut()
        move(page, 1, 0.3 + i / 10)
        expect(page.locator("#status")).to_have_text(UNHEARD)
        move(page, 1, 0.8 + i / 10)
        expect(page.locator("#status")).to_have_text(UNHEARD)
        relay.mend()
        expect(page.locator("#status")).to_have_text(BACK)
    assert position(page, 1) == 0.9
    page.locator("#generate").click()
    wait_until_done(page)


def test_steering_that_fails_alone_is_no_outage(page: Page, place: tuple[Relay, Desk]) -> None:
    page.route("**/steer", lambda route: route.abort())
    move(page, 1, 0.3)
    expect(page.locator("#status")).to_have_text(UNHEARD)
    page.unroute("**/steer")
    page.wait_for_timeout(1500)
    expect(page.locator("#status")).to_have_text(UNHEARD)  # no outage, and none that is over


def test_a_reload_keeps_the_desk_and_a_link_is_opened_instead(page: Page, place: tuple[Relay, Desk]) -> None:
    page.locator("#prompt textarea").fill("How do I sharpen a knife?")
    page.locator("#generate").click()
    wait_until_done(page)
    page.locator("#reply-left").click()
    expect(page.locator("#transcript .turn")).to_have_count(2)
    page.locator("#prompt textarea").fill("And a pair of scissors?")
    move(page, 2, 0.15)
    page.locator("#solo-1").click()
    page.locator("#add-panel").click()
    choose(page, "third", "Uniform")
    unfold(page, "more")
    page.locator("#temperature input[type=range]").fill("0.35")
    page.locator("#new-seed input").uncheck()
    page.locator("#seed :is(input, textarea)").first.fill("17")
    left, caption = text(page, "left"), page.locator("#caption-left").inner_text()
    page.reload()
    ready(page)
    for _ in range(2):
        expect(page.locator("#status")).to_have_text("The desk is as it was before the reload.")
        expect(page.locator("#prompt textarea")).to_have_value("And a pair of scissors?")
        expect(page.locator("#transcript .turn")).to_have_count(2)
        expect(page.locator("#mixture-third input")).to_have_value("Uniform")
        expect(page.locator("#solo-1")).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#panel-third")).to_be_visible()
        assert position(page, 2) == 0.15
        assert text(page, "left") == left
        expect(page.locator("#caption-left")).to_have_text(f"From before the reload · {caption}")
        expect(page.locator("#rate-left")).to_be_disabled()
        unfold(page, "more")
        expect(page.locator("#temperature input[type=number]")).to_have_value("0.35")
        expect(page.locator("#seed :is(input, textarea)").first).to_have_value("17")
        expect(page.locator("#new-seed input")).not_to_be_checked()
        page.reload()
        ready(page)
    # A link to another desk.
    link = page.evaluate("""async () => {
        const state = JSON.parse(sessionStorage.getItem("mixdesk-desk:/")).state;
        const other = { ...state, v: 1, turns: [], prompt: "What is tea?", seed: "3" };
        return "#mix=" + btoa(JSON.stringify(other)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    }""")
    page.goto("about:blank")
    page.goto(place[0].url + "/" + link)
    ready(page)
    expect(page.locator("#status")).to_have_text("The desk is as the link has it.")
    expect(page.locator("#prompt textarea")).to_have_value("What is tea?")
    expect(page.locator("#transcript .turn")).to_have_count(0)
    # What was changed since the link was opened is kept as well.
    page.locator("#prompt textarea").fill("What is coffee?")
    page.reload()
    ready(page)
    expect(page.locator("#prompt textarea")).to_have_value("What is coffee?")
