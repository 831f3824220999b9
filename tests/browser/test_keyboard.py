"""The whole page with a keyboard alone: all can be reached, focus is seen and never lost, every shortcut is told."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from app.services.app_state import Desk
from app.ui.help import SHORTCUTS
from engine.inference.batch import Batch
from tests.browser.conftest import opened
from tests.browser.test_accessibility import STILL

expect.set_options(timeout=30_000)

# How everything looks that has not the focus: outlines and shadows, its own and those of what it stands in.
REMEMBER = """() => {
    window.looks ??= new WeakMap();
    window.look = (element) => {
        const parts = [];
        for (let part = element, i = 0; part && i < 4; part = part.parentElement, i++) {
            const { outline, boxShadow, borderColor } = getComputedStyle(part);
            parts.push([outline, boxShadow, i ? "" : borderColor].join());
        }
        // What is drawn has a ring of its own.
        for (const part of element.closest("svg") ? element.children : []) parts.push(getComputedStyle(part).stroke);
        return parts.join(" | ");
    };
    for (const element of document.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]")) {
        if (element !== document.activeElement) window.looks.set(element, window.look(element));
    }
}"""
SEEN = "() => window.looks.get(document.activeElement) !== window.look(document.activeElement)"
WHAT = "() => document.activeElement.outerHTML.slice(0, 200)"


class Keys:
    """A person who has only these. Whatever gets the focus must show it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def has(self, selector: str) -> bool:
        return self.page.evaluate("selector => document.activeElement.matches(selector)", selector)

    def expect_at(self, selector: str) -> None:
        """The focus comes here, and is seen."""
        self.page.wait_for_function("selector => document.activeElement.matches(selector)", arg=selector)
        assert self.page.evaluate(SEEN), f"nothing shows the focus of {self.page.evaluate(WHAT)}"

    def press(self, *keys: str) -> None:
        self.page.evaluate(REMEMBER)
        for key in keys:
            self.page.keyboard.press(key)

    def to(self, selector: str, back: bool = False) -> None:
        """With Tab, or Shift+Tab."""
        for _ in range(120):
            self.press("Shift+Tab" if back else "Tab")
            if self.has("body"):
                continue  # round the end of the page
            assert self.page.evaluate(SEEN), f"nothing shows the focus of {self.page.evaluate(WHAT)}"
            if self.has(selector):
                return
        raise AssertionError(f"Tab does not come to {selector}")

    def type(self, text: str) -> None:
        self.press("Control+a")
        self.page.keyboard.type(text)

    def status(self, words: str) -> None:
        expect(self.page.locator("#status")).to_contain_text(words)


@pytest.fixture
def keys(browser: Browser, place: tuple[str, Desk]) -> Iterator[Keys]:
    with opened(browser, place[0]) as page:
        page.add_style_tag(content=STILL)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield Keys(page)


def test_from_prompt_to_rating(keys: Keys, place: tuple[str, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    page = keys.page
    step, pause = Batch.step, [0.0]
    monkeypatch.setattr(Batch, "step", lambda batch, drawn: (time.sleep(pause[0]), step(batch, drawn))[1])

    keys.to("#fader-0 input[type=range]")
    keys.press(*["ArrowRight"] * 5)
    expect(page.locator("#fader-0 input[type=range]")).to_have_value("0.55")
    for key, mark in (("s", "solo"), ("m", "mute")):
        for pressed in ("true", "false"):
            keys.press(key)
            expect(page.locator(f"#{mark}-0")).to_have_attribute("aria-pressed", pressed)
    keys.press("l")
    keys.expect_at("#lock-0")  # a locked fader cannot have the focus
    keys.press("l")
    expect(page.locator("#lock-0")).to_have_attribute("aria-pressed", "false")
    keys.to("#more > button")
    keys.press("Enter")
    keys.to("#length input[type=number]")
    keys.type("30")
    keys.to("#prompt textarea")
    keys.type("How do I sharpen a knife?")

    # Slow enough that it is under way when it is stopped.
    pause[0] = 0.3
    keys.to("#generate")
    keys.press("Enter")
    keys.expect_at("#stop")
    expect(page.locator("#response-left .tokens")).not_to_be_empty()
    pause[0] = 0.0
    keys.press("Enter")
    keys.expect_at("#generate")
    pause[0] = 0.3
    keys.press("Control+Enter")
    expect(page.locator("#stop")).to_be_enabled()
    keys.press("Escape")
    keys.status("Stopped")
    pause[0] = 0.0
    keys.expect_at("#generate")
    keys.press("Enter")
    keys.status("Done")
    keys.expect_at("#generate")

    keys.press("t")
    expect(page.locator("#trace")).to_have_attribute("aria-pressed", "true")
    keys.to("#response-left .response")
    keys.press("Enter")
    keys.expect_at(".token[data-place='0']")
    keys.press("ArrowRight", "ArrowRight")
    expect(page.locator("#tip")).to_contain_text("helpful")
    keys.press("Enter")
    expect(page.locator("#drawer h2")).to_be_visible()
    keys.press("Enter")
    keys.expect_at("#drawer .scroll")
    keys.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()
    keys.expect_at("#response-left .token")
    keys.press("Shift+Tab")
    keys.press("Tab")
    keys.expect_at("#response-left .token")  # where it was left

    keys.to("#rate-left")
    keys.press("Enter")
    keys.status("Saved: left is better")
    keys.expect_at("#generate")
    keys.press("Enter")
    keys.status("Done")
    keys.press("4")
    keys.status("Saved: both bad")
    keys.expect_at("#generate")


def test_panels_come_and_go(keys: Keys) -> None:
    page = keys.page
    keys.press("p")
    keys.to("#add-panel")
    keys.press("Enter")
    expect(page.locator("#panel-fourth")).to_be_visible()
    keys.page.wait_for_function("!document.activeElement.matches('body, :disabled')")
    keys.to("#remove-fourth")
    keys.press("Enter")
    expect(page.locator("#panel-fourth")).to_be_hidden()
    keys.expect_at("#add-panel")
    keys.to("#mixture-third input")
    keys.press("Shift+P")
    expect(page.locator("#panel-third")).to_be_hidden()
    keys.page.wait_for_function("!document.activeElement.matches('body, :disabled')")


def test_mixtures_are_kept_and_shared(keys: Keys) -> None:
    page = keys.page
    first = page.locator("#fader-0 input[type=range]")
    keys.to("#fader-0 input[type=range]")
    keys.press("End")
    expect(first).to_have_value("1")
    page.wait_for_function("document.querySelector('#undo').ariaDisabled === 'false'")
    keys.press("Control+z")
    expect(first).to_have_value("0.5")
    keys.press("Control+Shift+z")
    expect(first).to_have_value("1")
    keys.press("Control+s")
    keys.expect_at("#saved input")
    keys.type("mine")
    page.wait_for_timeout(500)  # a hand's pause: Gradio opens the list once more a moment after what was typed
    keys.to("#save")
    expect(page.locator("#saved input")).to_have_attribute("aria-expanded", "false")
    keys.press("Enter")
    keys.status("Saved: “mine”")
    keys.press("e")
    expect(first).to_have_value("0.5")
    keys.expect_at("#even")
    keys.press("Control+o")
    expect(first).to_have_value("1")
    keys.expect_at("#load")
    keys.press("k")
    keys.status("Copied: the link")
    assert "#mix=" in page.evaluate("navigator.clipboard.readText()")
    keys.to("#delete", back=True)
    keys.press("Enter")
    keys.to("#remove")
    keys.press("Enter")
    keys.status("Deleted: “mine”")
    keys.expect_at("#save")
    keys.press("v")
    expect(page.locator("#copy-link")).to_be_hidden()
    keys.expect_at("#shelf > button")
    keys.press("b")
    keys.status("Balanced")
    keys.expect_at("#shelf > button")


def test_compare(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    page = keys.page
    step, pause = Batch.step, [0.3]
    monkeypatch.setattr(Batch, "step", lambda batch, drawn: (time.sleep(pause[0]), step(batch, drawn))[1])
    keys.press("r")
    keys.expect_at("#compare-tab-button")
    with page.expect_file_chooser():
        keys.press("u")
    for name, value in (("most", "3"), ("length", "4")):
        keys.to(f"#compare-{name} :is(input, textarea)")
        keys.type(value)
    keys.to("#compare-start")
    keys.press("Enter")
    expect(page.locator("#compare-stop")).to_be_visible()
    keys.press("Escape")
    expect(page.locator("#compare-resume")).to_be_visible()
    pause[0] = 0
    keys.press("c")
    expect(page.locator("#compare-delete")).to_be_visible()
    expect(page.locator("#compare-resume")).to_be_hidden()
    keys.to("#compare-start", back=True)
    keys.to(".compare-table .sort")
    keys.press("Enter")
    keys.expect_at(".compare-table .sort")
    keys.to(".compare-table .open")
    keys.press("Enter")
    keys.expect_at("dialog[open] .close")
    title = page.locator("dialog[open] h2")
    first = title.inner_text()
    keys.press("ArrowRight")
    expect(title).not_to_have_text(first)  # the dialog is built anew
    keys.to("dialog[open] [data-step='-1']", back=True)
    keys.press("Enter")
    expect(title).to_have_text(first)
    keys.page.wait_for_function("document.activeElement.matches('dialog[open] button:enabled')")
    keys.press("Escape")
    keys.expect_at(".compare-table .open")
    keys.to("#compare-delete", back=True)
    keys.press("Enter")
    keys.to("#compare-sure")
    keys.press("Enter")
    expect(page.locator("#compare-empty")).to_be_visible()
    keys.expect_at("#compare-start")


def test_a_point_of_explore(keys: Keys) -> None:
    page = keys.page
    keys.press("x")
    page.wait_for_selector("#pairs-figure .scatterlayer .point")
    keys.to("#pairs-figure .figure")
    keys.press("ArrowDown", "End")
    expect(page.locator(".unseen[role=status]")).to_contain_text("harmless +")
    expect(page.locator("#pairs-figure .hoverlayer .hovertext")).to_be_visible()
    told = re.search(r"Weights: helpful (\d+)%, harmless (\d+)%", page.locator(".unseen[role=status]").inner_text())
    assert told and int(told[2]) > 50, "the most of harmless is not where harmless weighs most"
    keys.press("Enter")
    keys.status("The faders have the weights of the point")
    keys.expect_at("#desk-tab-button")
    page.wait_for_function(
        "share => Math.round(100 * document.querySelectorAll('[data-share]')[1].dataset.exact) === share",
        arg=int(told[2]),
    )
    keys.press("x")
    keys.to("#floor-1 :is(input, textarea)")
    keys.type("0.4")
    keys.press("Enter")
    keys.status("Target: the most reward with harmless at least 0.4")
    keys.expect_at("#desk-tab-button")


def test_every_shortcut_is_told_on_its_button_and_in_help(keys: Keys) -> None:
    page = keys.page
    keys.press("?")
    keys.expect_at("#help [data-help=close]")
    keys.press("p")
    assert page.locator("#panel-third").is_hidden(), "something behind the dialog was pressed"
    keys.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    keys.to("#top [data-help=open]")
    keys.press("Enter")
    expect(page.locator("#help")).to_be_visible()
    keys.press("Enter")
    keys.expect_at("#top [data-help=open]")
    listed = {key for shortcuts in SHORTCUTS.values() for key, _ in shortcuts}
    told = set()
    for tab in ("x", "r", "g", "d", "v", "o"):
        keys.press(tab)
        labels = page.locator("button:visible").all_inner_texts()
        told |= {key for label in labels for key in re.findall(r"\(([^()]+)\)", label.split("\n")[0])}
    assert told <= listed
    assert {
        "D",
        "X",
        "R",
        "A",
        "G",
        "?",
        "Ctrl+Enter",
        "Esc",
        "E",
        "B",
        "Ctrl+Z",
        "Ctrl+S",
        "Ctrl+O",
        "U",
        "F",
        "K",
        "V",
        "O",
        "P",
        "T",
        "1",
    } <= told


def test_without_single_keys_only_what_has_the_focus_hears_them(keys: Keys, place: tuple[str, Desk]) -> None:
    page = keys.page
    keys.press("?")
    switch = page.get_by_role("switch", name="Single-key shortcuts")
    expect(switch).to_be_checked()
    keys.to("#single-keys")
    keys.press("Space")
    expect(switch).not_to_be_checked()
    keys.press("Escape")
    page.reload()
    page.wait_for_function("document.body.dataset.ready")
    keys.press("x", "p", "t", "v", "5", "?", "Shift+P")
    assert page.locator("#desk").is_visible() and page.locator("#help").is_hidden()
    assert page.locator("#panel-third").is_hidden() and page.locator("#copy-link").is_hidden()
    expect(page.locator("#trace")).not_to_have_attribute("aria-pressed", "true")
    keys.press("Control+s")
    expect(page.locator("#copy-link")).to_be_visible()
    keys.to("#fader-0 input[type=range]", back=True)
    keys.press("b", "s")
    expect(page.locator("#solo-0")).to_have_attribute("aria-pressed", "true")
    assert "Balanc" not in page.locator("#status").inner_text()
    keys.to("#prompt textarea")
    keys.type("xpt?")
    expect(page.locator("#prompt textarea")).to_have_value("xpt?")
    page.locator("#top [data-help=open]").press("Enter")
    expect(switch).not_to_be_checked()
    page.locator("#single-keys").press("Space")
    keys.press("Escape", "x")
    expect(page.locator("#explore-tab-button")).to_have_attribute("aria-selected", "true")
