"""A conversation of several turns, in a real Chromium."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from engine import Engine
from tests.browser.conftest import SharedPage, opened, without_dialogs
from tests.browser.serving import Server
from tests.browser.test_desk import status, text, wait_for_status
from tests.browser.test_mixtures import EVIL, set_more, shelf
from tests.browser.test_mixtures import generate as generated

FIRST = f"How do I wash a wool jumper? {EVIL}"
SECOND, THIRD = "And when it is still dirty?", "What about silk?"


@pytest.fixture
def page(shared: SharedPage, request: pytest.FixtureRequest) -> Iterator[Page]:
    with shared.lent(request.session) as page, without_dialogs(page):
        yield page
        assert page.locator("img[src=x]").count() == 0


def prompt(page: Page) -> str:
    return page.locator("#prompt textarea").input_value()


def generate(page: Page, message: str | None = None) -> dict[str, str]:
    """Ask, and wait for both responses."""
    if message is not None:
        page.locator("#prompt textarea").fill(message)
    return generated(page)


def transcript(page: Page) -> list[tuple[str, str]]:
    """(whose, what) of all that is shown of the conversation."""
    found = page.eval_on_selector_all(
        "#transcript .turn",
        "turns => turns.map((turn) => [turn.children[0].textContent, turn.children[1].textContent])",
    )
    return [(who, said) for who, said in found]


def expect_turns(page: Page, *said: str) -> None:
    page.wait_for_function("count => document.querySelectorAll('#transcript .turn').length === count", arg=len(said))
    assert [what for _, what in transcript(page)] == list(said)


def reply(page: Page, side: str, *said: str) -> None:
    """Go on from a response; said: what the conversation is then."""
    page.locator(f"#reply-{side}").click()
    wait_for_status(page, f"continues from the {side} response")
    expect_turns(page, *said)


def fits(page: Page) -> bool:
    size: list[int] = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    return size[0] <= 1440 and size[1] <= 900


def as_messages(*said: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": what} for i, what in enumerate(said)]


def test_three_turns_right_then_left_rated_back_and_shared(
    page: Page, browser: Browser, server: Server, engine: Engine
) -> None:
    conversation, before = page.locator("#conversation"), len(server.pairs())
    expect(conversation).to_be_hidden()
    expect(page.locator("#reply-left")).to_be_hidden()
    expect(page.locator("#examples")).to_be_visible()
    set_more(page, length=24, seed=7, temperature=0.7)
    page.locator("#more > button").click()  # closed again: the first screen is looked at

    first = generate(page, FIRST)
    expect(conversation).to_be_hidden()
    reply(page, "right", FIRST, first["right"])
    expect(conversation).to_be_visible()
    expect(page.locator("#examples")).to_be_hidden()
    assert prompt(page) == ""
    expect(page.locator("#prompt textarea")).to_be_focused()
    assert fits(page), "the desk scrolls"
    assert transcript(page)[1][0] == "Right · reference"
    # The pair can be rated still: it answers the first message alone.
    page.locator("#rate-right").click()
    wait_for_status(page, "Saved")

    second = generate(page, SECOND)
    history = as_messages(FIRST, first["right"], SECOND)
    for side, weights, seed in (("left", None, 7), ("right", {"reference": 1.0}, 8)):
        made = engine.generate(history, weights, max_new_tokens=24, temperature=0.7, min_p=0.1, seed=seed)
        assert made.text == second[side]
    page.locator("#rate-left").click()
    wait_for_status(page, "Saved")
    page.locator("#top h1").click()
    page.keyboard.press("5")
    wait_for_status(page, "continues from the left response")
    expect_turns(page, FIRST, first["right"], SECOND, second["left"])
    assert transcript(page)[3][0].startswith("Left · helpful 25%")
    third = generate(page, THIRD)
    assert fits(page), "the desk scrolls"

    pairs = server.pairs()[before:]
    assert [(pair["choice"], pair["prompt"]) for pair in pairs] == [("right", FIRST), ("left", history)]
    row = pairs[1]["left"]
    again = engine.generate(row["prompt"], **row["mixture"], **row["sampling"], seed=row["seed"])
    assert again.text == row["text"] == second["left"]

    # The link opens it elsewhere; there the same seeds say the same.
    shelf(page)
    for temperature in (0.7, 0):
        if temperature == 0:
            set_more(page, temperature=0)
            third = generate(page)
        page.locator("#copy-link").click()
        wait_for_status(page, "Copied: the link")
        with opened(browser, page.evaluate("navigator.clipboard.readText()")) as other:
            wait_for_status(other, "The desk is as the link has it.")
            expect_turns(other, FIRST, first["right"], SECOND, second["left"])
            assert transcript(other) == transcript(page)
            assert prompt(other) == THIRD
            assert generate(other) == third
            assert other.locator("img[src=x]").count() == 0
    for name in ("YAML", "Command line"):
        page.get_by_role("button", name=name, exact=True).click()
        wait_for_status(page, f"Copied: the mixture as {name}")
        copied = page.evaluate("navigator.clipboard.readText()")
        if name == "YAML":
            assert engine.generate(**yaml.safe_load(copied)).text == third["left"]
        else:
            assert copied.startswith("printf %s '[") and "| python -m engine generate --messages=- " in copied

    # Back: the last message is in the box again, and what answered a later one is gone.
    page.locator("#top h1").click()
    page.keyboard.press("Shift+Backspace")
    wait_for_status(page, "One turn back")
    expect_turns(page, FIRST, first["right"])
    assert prompt(page) == SECOND
    page.wait_for_function("!document.querySelector('#response-left .token')")
    expect(page.locator("#rate-left")).to_be_disabled()
    set_more(page, temperature=0.7)
    assert generate(page) == second
    reply(page, "right", FIRST, first["right"], SECOND, second["right"])
    # Of the newest turn another response can be chosen, and Back leaves its responses where they are.
    reply(page, "left", FIRST, first["right"], SECOND, second["left"])
    page.locator("#back").click()
    expect_turns(page, FIRST, first["right"])
    assert {side: text(page, side) for side in second} == second
    page.locator("#top h1").click()
    page.keyboard.press("Shift+N")
    wait_for_status(page, "A new conversation")
    expect(conversation).to_be_hidden()
    expect(page.locator("#examples")).to_be_visible()
    assert prompt(page) == ""
    assert generate(page, FIRST) == first


def test_what_cannot_be_asked_is_told_and_a_draft_stays(page: Page) -> None:
    set_more(page, length=10)
    first = generate(page, FIRST)
    page.locator("#prompt textarea").fill("a draft")
    reply(page, "left", FIRST, first["left"])
    assert prompt(page) == "a draft"
    page.locator("#prompt textarea").fill(" ")
    page.locator("#generate").click()
    wait_for_status(page, "prompt: it is empty; write the next message")
    page.locator("#prompt textarea").fill("word " * 900)
    page.locator("#generate").click()
    wait_for_status(page, "or leave out turns")
    expect_turns(page, FIRST, first["left"])
    page.locator("#prompt textarea").press("Shift+N")
    assert prompt(page).endswith("N"), "a shortcut fired while typing"
    expect_turns(page, FIRST, first["left"])


def test_the_conversation_scrolls_in_itself(page: Page, server: Server) -> None:
    turns = [{**message, "made": EVIL} for message in as_messages(*[f"{EVIL} message {i}" for i in range(8)])]
    page.evaluate("hash => { location.hash = hash; }", f"#mix={packed(turns)}")
    wait_for_status(page, "The desk is as the link has it.")
    expect_turns(page, *[turn["content"] for turn in turns])
    assert fits(page), "the desk scrolls"
    place = "document.querySelector('#transcript')"
    assert page.evaluate(f"{place}.scrollHeight > 2 * {place}.clientHeight && {place}.scrollTop > 0")
    seen = """place => {
        const box = place.getBoundingClientRect(), last = place.lastElementChild.getBoundingClientRect();
        return last.top < box.bottom && last.bottom > box.top;
    }"""
    assert page.locator("#transcript").evaluate(seen), "the newest turn is not seen"
    page.locator("#conversation summary").click()
    expect(page.locator("#transcript")).to_be_hidden()


def packed(turns: Any) -> str:
    link = {
        "v": 2, "turns": turns, "prompt": "and?", "panels": {}, "sampling": {}, "seed": "1",
        "mixture": {"faders": {"helpful": 1}, "rule": "geometric", "gain": 1, "exponent": 1},
    }  # fmt: skip
    return base64.urlsafe_b64encode(json.dumps(link).encode()).decode().rstrip("=")


HOSTILE = [
    ([{"role": "system", "content": EVIL}], "link: it is broken"),
    (as_messages(EVIL), "link: prompt, message 2: the role is 'user', expected 'assistant'"),
    (EVIL, "link: it is broken"),
    (as_messages(EVIL, " "), "link: prompt, message 2: it is empty"),
    (as_messages(EVIL, "word " * 100_000), "characters long, and these models hold 512 tokens"),
]


def test_a_hostile_conversation_in_a_link_is_told_in_one_line(page: Page) -> None:
    """One after another on one page, which stays as it was; no two in a row are told the same."""
    before = prompt(page)
    for turns, says in HOSTILE:
        assert says not in status(page)
        page.evaluate("hash => { location.hash = hash; }", f"#mix={packed(turns)}")
        wait_for_status(page, says)
        assert "\n" not in status(page).strip()
        assert prompt(page) == before
        expect(page.locator("#conversation")).to_be_hidden()
