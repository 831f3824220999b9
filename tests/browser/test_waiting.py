"""What a person sees of the engine's queue, and of its mishaps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gradio.queueing import ProcessCompletedMessage, Queue
from playwright.sync_api import Browser, Page, expect

from engine import Engine
from engine.inference import recovery
from engine.inference.batch import Batch
from tests.browser.conftest import opened
from tests.browser.serving import served


@pytest.fixture(scope="module")
def url(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(engine, tmp_path_factory.mktemp("waiting") / "mixdesk.db") as (url, _):
        yield url


def generate(page: Page) -> None:
    page.get_by_role("button", name="Generate").click()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_waiting_is_shown_and_a_closed_page_makes_room(
    engine: Engine, url: str, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Room for one person's two panels.
    monkeypatch.setattr(engine._scheduler.batch, "max_rows", 2 * len(engine.policy_set.policies))
    step, pause = Batch.step, [0.5]  # seconds: the first must not finish while the others open
    monkeypatch.setattr(Batch, "step", lambda batch, drawn: (time.sleep(pause[0]), step(batch, drawn))[1])
    with opened(browser, url) as second, opened(browser, url) as third:
        with opened(browser, url) as first:
            generate(first)
            expect(first.locator("#response-left .tokens")).not_to_be_empty()
            generate(second)
            expect(second.locator("#status")).to_contain_text("Waiting in the queue: you are next.")
            generate(third)
            expect(third.locator("#status")).to_contain_text("Waiting in the queue: 1 ahead of you.")
            expect(third.locator("#response-left .tokens")).to_be_empty()
            under_way = list(engine._scheduler.running)
        # The page is closed: the others need not wait for the end of what nobody reads.
        wait_until(lambda: all(request.done for request in under_way))
        assert {request.completion().finish_reason for request in under_way} == {"stopped"}
        expect(second.locator("#status")).to_contain_text("Generating")
        pause[0] = 0
        for page in (second, third):
            expect(page.locator("#status")).to_contain_text("Which is better?", timeout=60_000)
    assert engine.waiting == engine._scheduler.batch.rows == 0


def test_an_engine_that_begins_again_is_shown(
    engine: Engine, url: str, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts = engine.restarts
    with opened(browser, url) as page:
        with monkeypatch.context() as patch:
            patch.setattr(Batch, "begin", lambda *_: (_ for _ in ()).throw(SystemError("a mistake of ours")))
            patch.setattr(recovery, "isolate_failure", lambda *_: (_ for _ in ()).throw(KeyError("and another")))
            generate(page)
            expect(page.locator("#status")).to_contain_text("The engine had to restart, and is ready now.")
        assert engine.restarts > restarts
        generate(page)
        expect(page.locator("#status")).to_contain_text("Which is better?", timeout=60_000)


def test_a_click_while_an_answer_ends_is_heard(browser: Browser, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    send = Queue.send_message

    def slowly(queue: Queue, event: Any, said: Any) -> None:
        # Gradio's page takes an event for under way until this comes, long after its last words.
        delay = 2 if isinstance(said, ProcessCompletedMessage) else 0
        asyncio.get_running_loop().call_later(delay, send, queue, event, said)

    with opened(browser, url) as page:
        monkeypatch.setattr(Queue, "send_message", slowly)
        page.locator("#prompt textarea").fill("")
        page.locator("#generate").click()
        expect(page.locator("#status")).to_contain_text("prompt:")
        page.locator("#prompt textarea").fill("How do I store herbs?")
        page.locator("#generate").click()
        page.wait_for_selector("#rate-left:enabled")


def test_two_clicks_give_one_pair(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        page.locator("#prompt textarea").fill("How do I store herbs?")
        page.locator("#generate").dblclick()
        page.wait_for_selector("#rate-left:enabled")
        page.wait_for_selector("#generate:enabled")
        expect(page.locator("#status")).to_contain_text("Done")
        page.wait_for_timeout(500)  # what the first click asked for says nothing more
        expect(page.locator("#status")).to_contain_text("Done")
        assert page.locator("#rate-left").is_enabled()
