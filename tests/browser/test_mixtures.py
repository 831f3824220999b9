"""What is around the faders, in a real Chromium: Lock, Solo, Mute, Undo, saved mixtures, links, recipes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from random import Random

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from app.schemas.solo_mute_lock import Channels
from engine import Engine
from tests.browser.conftest import SharedPage, opened, unfold, without_dialogs
from tests.browser.serving import Server
from tests.browser.test_desk import shares, status, text, wait_for_status, wait_until_done

POLYGON = "document.querySelector('#radar .figure').data[0].r"
EVIL = "<img src=x onerror=alert(1)>"
# The button is disabled for a moment only: a short response may be over before it is looked at.
BEGUN = """() => {
    window.begun = false;
    new MutationObserver((_, observer) => {
        if (!document.querySelector("#generate").disabled) return;
        window.begun = true;
        observer.disconnect();
    }).observe(document.querySelector("#generate"), { attributes: true });
}"""
EVIL_PROMPT = f"How do I wash a \"wool\" $jumper?\n'Please' say 你好 {EVIL}"


@pytest.fixture
def url(server: Server) -> str:
    return server.url


@pytest.fixture
def page(shared: SharedPage, request: pytest.FixtureRequest) -> Iterator[Page]:
    with shared.lent(request.session) as page, without_dialogs(page):
        yield page


def fader(page: Page, i: int) -> float:
    return float(page.locator(f"#fader-{i} input[type=range]").input_value())


def move(page: Page, i: int, position: float) -> None:
    page.locator(f"#fader-{i} input[type=range]").fill(str(position))


def expect_shares(page: Page, *weights: float) -> None:
    """These, to a percent, once what is under way is done."""
    page.wait_for_function(
        """weights => [...document.querySelectorAll("[data-share]")].every(
            (output, i) => Math.abs(output.dataset.exact - weights[i]) < 0.006)""",
        arg=[weight / sum(weights) for weight in weights],
    )


def expect_positions(page: Page, *positions: float) -> None:
    page.wait_for_function(
        """positions => positions.every((position, i) =>
            Number(document.querySelector(`#fader-${i} input[type=range]`).value) === position)""",
        arg=list(positions),
    )


def set_more(page: Page, **settings: float | str) -> None:
    if not page.locator("#new-seed input").is_visible():
        unfold(page, "more")
    page.locator("#new-seed input").uncheck()
    for name, value in settings.items():
        page.locator(f"#{name} input[type=number], #{name} textarea, #{name} input[type=text]").first.fill(str(value))
        page.keyboard.press("Tab")


def generate(page: Page) -> dict[str, str]:
    page.evaluate(BEGUN)
    page.locator("#generate").click()
    page.wait_for_function("window.begun")
    wait_until_done(page)
    return {side: text(page, side) for side in ("left", "right")}


def made(page: Page) -> str:
    return page.locator("#caption-left").inner_text()


def shelf(page: Page) -> None:
    unfold(page, "shelf")
    expect(page.locator("#copy-link")).to_be_visible()


def expected_polygon(page: Page) -> list[float]:
    return page.evaluate(POLYGON)


def test_what_is_muted_or_not_soloed_is_not_heard(page: Page) -> None:
    set_more(page, length=6, seed=1)
    move(page, 0, 0.9)
    page.locator("#mute-1").click()
    expect_shares(page, 0.9, 0, 0.5, 0.5)
    assert fader(page, 1) == 0.5, "the fader itself stays where it is"
    expect(page.locator("#mute-1")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#mute-1")).to_have_attribute("aria-label", "Mute harmless")
    generate(page)
    assert "helpful 47%, humorous 26%, concise 26%" in made(page)

    page.locator("#solo-2").click()
    page.locator("#solo-1").click()
    expect_shares(page, 0, 0, 1, 0)
    page.locator("#mute-1").click()
    expect_shares(page, 0, 0.5, 0.5, 0)
    page.locator("#solo-1").click()
    expect_shares(page, 0, 0, 1, 0)
    generate(page)
    assert made(page).startswith("humorous ·"), "Solo is heard in what is generated"
    soloed = expected_polygon(page)
    page.locator("#solo-2").click()
    expect_shares(page, 0.9, 0.5, 0.5, 0.5)
    page.wait_for_function(f"old => String({POLYGON}) !== String(old)", arg=soloed)
    for i, position in enumerate([0, 0, 0.5, 0]):
        move(page, i, position)
    # It is of what is heard.
    page.wait_for_function(f"old => String({POLYGON}) === String(old)", arg=soloed)
    page.locator("#mute-2").click()
    page.locator("#generate").click()
    wait_for_status(page, "No policy is heard")


def test_a_locked_weight_stays(page: Page) -> None:
    set_more(page, length=6)
    for i, position in enumerate([0.9, 0.3, 0.3, 0.3]):
        move(page, i, position)
    expect_shares(page, 0.5, 1 / 6, 1 / 6, 1 / 6)
    page.locator("#fader-0 input[type=range]").focus()
    page.keyboard.press("l")
    expect(page.locator("#lock-0")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#fader-0 input[type=range]")).to_be_disabled()
    move(page, 3, 0.9)
    expect_shares(page, 0.5, 0.1, 0.1, 0.3)
    generate(page)
    assert "helpful 50%, harmless 10%, humorous 10%, concise 30%" in made(page)
    page.locator("#even").click()
    expect_shares(page, 0.5, 1 / 6, 1 / 6, 1 / 6)
    expect_positions(page, 0.9, 0.5, 0.5, 0.5)
    page.locator("#balance").click()
    wait_for_status(page, "Around what is locked and silent.")
    assert fader(page, 0) == 0.9
    assert shares(page)[0] == pytest.approx(0.5)
    # Explore's way to the faders.
    now = [0.9, 0.5, 0.5, 0.5, '{"lock": {"helpful": 0.5}}']
    assert page.evaluate("now => mixdesk.mixer.placed(now, [0.1, 0.2, 0.3, 0.4])", now) == [0.9, 0.2, 0.3, 0.4]
    before = shares(page)
    page.locator("#lock-0").click()
    expect(page.locator("#fader-0 input[type=range]")).to_be_enabled()
    expect_shares(page, *before)
    move(page, 0, 0)
    page.wait_for_function("document.querySelector('[data-share]').dataset.exact === '0'")


def test_the_page_and_the_server_hear_the_same(page: Page) -> None:
    names, random = ["helpful", "harmless", "humorous", "concise"], Random(1)
    for _ in range(200):
        faders = {name: random.choice([0, 0.01, 0.5, random.random()]) for name in names}
        solo, mute, lock = ([name for name in names if random.random() < 0.3] for _ in range(3))
        channels = Channels(solo=solo, mute=mute, lock={name: random.choice([0, 0.2, 0.7]) for name in lock})
        page.evaluate("mixture => mixdesk.mixer.show(mixture)", {"faders": faders, "channels": channels.model_dump()})
        heard = channels.weights(faders)
        total = sum(heard.values()) or 1
        assert shares(page) == pytest.approx([weight / total for weight in heard.values()])


@pytest.fixture
def new_page(browser: Browser, url: str) -> Iterator[Page]:
    """A page where nothing can be undone."""
    with opened(browser, url) as page:
        yield page


def test_undo_goes_back_one_gesture_at_a_time(new_page: Page) -> None:
    page = new_page
    expect(page.locator("#undo")).to_have_attribute("aria-disabled", "true")
    track = page.locator("#fader-0 input[type=range]").bounding_box()
    assert track
    y = track["y"] + track["height"] / 2
    page.mouse.move(track["x"] + track["width"] / 2, y)
    page.mouse.down()
    for part in (0.6, 0.7, 0.75, 0.8):
        page.mouse.move(track["x"] + part * track["width"], y)
        page.wait_for_timeout(150)  # longer in all than the pause that ends a gesture
    page.mouse.up()
    dragged = fader(page, 0)
    assert 0.7 < dragged < 0.9
    # A person's pauses: what a click changes is heard before the next one.
    page.wait_for_timeout(500)
    page.locator("#mute-1").click()
    expect_shares(page, dragged, 0, 0.5, 0.5)
    page.wait_for_timeout(500)
    page.locator("#even").click()
    expect_positions(page, 0.5, 0.5)
    set_more(page, gain=2)
    page.locator("#top h1").click()
    page.wait_for_timeout(600)

    page.keyboard.press("Control+z")
    expect(page.locator("#gain input[type=number]")).to_have_value("1")
    page.keyboard.press("Control+z")
    expect_positions(page, dragged, 0.5)
    expect_shares(page, dragged, 0, 0.5, 0.5)
    page.keyboard.press("Control+z")
    expect_shares(page, dragged, 0.5, 0.5, 0.5)
    page.keyboard.press("Control+z")
    expect_shares(page, 1, 1, 1, 1)
    expect(page.locator("#undo")).to_have_attribute("aria-disabled", "true")
    for _ in range(3):
        page.keyboard.press("Control+Shift+Z")
    expect_shares(page, 0.5, 0, 0.5, 0.5)
    page.locator("#redo").click()
    expect(page.locator("#gain input[type=number]")).to_have_value("2")
    # What is done after going back takes the place of what was undone.
    page.locator("#undo").click()
    page.locator("#solo-3").click()
    expect_shares(page, 0, 0, 0, 1)
    page.wait_for_timeout(600)
    expect(page.locator("#redo")).to_have_attribute("aria-disabled", "true")

    # A text field has an undo of its own.
    page.locator("#prompt textarea").fill("typed")
    page.locator("#prompt textarea").press("Control+z")
    page.wait_for_timeout(200)
    expect_shares(page, 0, 0, 0, 1)


def test_a_mixture_is_saved_loaded_and_deleted(page: Page, browser: Browser, url: str) -> None:
    shelf(page)
    size = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size[0] <= 1440 and size[1] <= 900, "the desk scrolls"
    name = page.locator("#saved input")
    page.locator("#save").click()
    wait_for_status(page, "name: it is empty")
    move(page, 0, 0.9)
    page.locator("#mute-1").click()
    expect_shares(page, 0.9, 0, 0.5, 0.5)
    name.fill(f"  {EVIL} ")
    page.locator("#save").click()
    wait_for_status(page, "Saved: ")
    assert EVIL in status(page)

    # The same name again is asked about first.
    page.locator("#even").click()
    expect_shares(page, 1, 0, 1, 1)
    page.locator("#save").click()
    expect(page.locator("#question")).to_contain_text(f"There is a mixture “{EVIL}” already. Replace it?")
    page.locator("#cancel").click()
    expect(page.locator("#question")).to_be_hidden()
    page.locator("#load").click()
    expect_positions(page, 0.9, 0.5, 0.5, 0.5)
    expect_shares(page, 0.9, 0, 0.5, 0.5)
    page.locator("#mute-1").click()
    page.locator("#save").click()
    page.locator("#replace").click()
    wait_for_status(page, "Saved over the old one")

    # Somebody else finds it, and deletes it when they are sure.
    with opened(browser, url) as other:
        other.on("dialog", lambda dialog: pytest.fail(dialog.message))
        shelf(other)
        other.locator("#saved input").click()
        other.get_by_role("option", name=EVIL, exact=True).click()
        other.locator("#load").click()
        expect_shares(other, 0.9, 0.5, 0.5, 0.5)
        other.locator("#delete").click()
        expect(other.locator("#question")).to_contain_text(f"Delete “{EVIL}” for all users?")
        assert other.locator("img[src=x]").count() == 0
        other.locator("#remove").click()
        wait_for_status(other, "Deleted")
    page.locator("#load").click()
    wait_for_status(page, f"There is no saved mixture “{EVIL}” any more.")
    assert page.locator("img[src=x]").count() == 0


def test_a_link_brings_the_same_responses_to_a_fresh_browser(page: Page, browser: Browser, url: str) -> None:
    page.locator("#prompt textarea").fill(EVIL_PROMPT)
    set_more(page, length=40, seed=77, gain=1.3)
    move(page, 0, 0.83)
    page.locator("#mute-3").click()
    page.locator("#lock-2").click()
    page.locator("#mixture-right input").click()
    page.get_by_role("option", name="harmless", exact=True).click()
    shelf(page)
    for temperature in (0, 0.7):
        set_more(page, temperature=temperature)
        here = generate(page)
        page.locator("#copy-link").click()
        wait_for_status(page, "Copied: the link")
        link = page.evaluate("navigator.clipboard.readText()")
        assert link.startswith(f"{url}/#mix=")
        with opened(browser, link) as other:
            wait_for_status(other, "The desk is as the link has it.")
            assert other.locator("#prompt textarea").input_value() == EVIL_PROMPT
            assert shares(other) == pytest.approx(shares(page))
            assert generate(other) == here
            assert made(other) == made(page)
            assert other.locator("img[src=x]").count() == 0


def test_a_broken_or_hostile_link_leaves_the_desk_as_it_was(page: Page, browser: Browser, url: str) -> None:
    hostile = {
        "v": 1, "prompt": EVIL, "panels": {"left": EVIL}, "sampling": {}, "seed": "1",
        "mixture": {"faders": {"helpful": 1}, "rule": "geometric", "gain": 1, "exponent": 1},
    }  # fmt: skip
    huge = {**hostile, "panels": {}, "mixture": {**hostile["mixture"], "gain": 1e9}}
    packed = [base64.urlsafe_b64encode(json.dumps(link).encode()).decode() for link in (hostile, huge)]
    with opened(browser, f"{url}/#mix={EVIL}") as other:
        wait_for_status(other, "link: it is broken; copy it again, all of it.")
        for link, says in zip(packed, (f"no mixture “{EVIL}”", "gain is 1e+09; this desk takes 0 to 4"), strict=True):
            other.evaluate("link => { location.hash = '#mix=' + link; }", link)
            wait_for_status(other, says)
        assert other.locator("#prompt textarea").input_value() == page.locator("#prompt textarea").input_value()
        assert shares(other) == shares(page) == [0.25] * 4
        assert other.locator("img[src=x]").count() == 0


def test_what_is_copied_makes_the_same_response(page: Page, engine: Engine) -> None:
    page.locator("#prompt textarea").fill(EVIL_PROMPT)
    set_more(page, length=24, temperature=0.7, seed=5)
    move(page, 1, 0.21)
    page.locator("#mute-2").click()
    here = generate(page)
    shelf(page)
    copied = {}
    for name in ("YAML", "Python", "Command line"):
        page.get_by_role("button", name=name, exact=True).click()
        wait_for_status(page, f"Copied: the mixture as {name}")
        copied[name] = page.evaluate("navigator.clipboard.readText()")
    settings = yaml.safe_load(copied["YAML"])
    assert settings["weights"] == {"helpful": 0.5, "harmless": 0.21, "concise": 0.5}
    assert engine.generate(**settings).text == here["left"]
    assert "engine.generate(" in copied["Python"] and repr(EVIL_PROMPT) in copied["Python"]
    assert copied["Command line"].startswith("python -m engine generate --prompt ")

    # Pages without a clipboard show the text.
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    page.locator("#copy-yaml").click()
    expect(page.locator("#copy-text textarea")).to_have_value(copied["YAML"])
    wait_for_status(page, "may not use the clipboard")
    page.evaluate("delete navigator.clipboard")
