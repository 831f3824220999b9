"""A prompt that the policies do not know is said to be one, above the responses."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from engine.inference.familiarity import WARNING
from tests.browser.conftest import opened
from tests.browser.serving import Server


def test_an_off_topic_prompt_has_a_line_and_the_next_one_clears_it(browser: Browser, server: Server) -> None:
    with opened(browser, server.url) as page:
        line = page.locator("#unfamiliar [role=status]")
        expect(line).to_have_text("")
        page.locator("#prompt textarea").fill("Write a haiku about <b>autumn</b>.")
        page.locator("#generate").click()
        expect(line).to_have_text(WARNING, timeout=30_000)
        assert page.locator("#unfamiliar").bounding_box()["y"] < page.locator("#panels").bounding_box()["y"]
        assert page.evaluate("document.documentElement.scrollHeight - innerHeight") <= 0
        page.wait_for_function("!document.querySelector('#rate-left').disabled")
        page.locator("#prompt textarea").fill("How do I boil an egg?")
        page.locator("#generate").click()
        expect(line).to_have_text("", timeout=30_000)
