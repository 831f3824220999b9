"""A desk whose engine is killed while it writes, and started again; and OpenAI's protocol at that desk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI
from playwright.sync_api import Browser, expect

from tests import copies
from tests.browser.conftest import opened, unfold
from tests.browser.serving import ROOT, free_port, running_app


@contextmanager
def engine_process(port: int) -> Iterator[copies.Process]:
    """`python -m engine serve` once it is there, until the block is left."""
    command = [sys.executable, "-m", "engine", "serve", "--port", str(port), "--json"]
    process = copies.start(command, ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout and json.loads(process.stdout.readline())["url"] == f"http://127.0.0.1:{port}/v1"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_an_engine_that_is_killed_while_it_writes(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with (
        engine_process(port) as first,
        running_app(tmp_path / "mixdesk.db", "--engine", address) as url,
        opened(browser, url) as page,
    ):
        unfold(page, "more")
        page.locator("#length input[type=number]").fill("512")
        page.locator("#temperature input[type=number]").fill("2")
        page.keyboard.press("Tab")
        page.locator("#generate").click()
        page.wait_for_selector("#response-left .token[data-place='3']")
        first.kill()
        status = page.locator("#status")
        expect(status).to_contain_text(f"the engine at {address} cannot be reached")
        expect(page.locator("#generate")).to_be_enabled()
        assert page.locator("#response-left .token").count() > 3, "the text so far is gone"
        with engine_process(port):
            page.locator("#length input[type=number]").fill("12")
            page.keyboard.press("Tab")
            page.locator("#generate").click()
            page.wait_for_selector("#rate-left:enabled")
            page.locator("#rate-left").click()
            expect(status).to_contain_text("Saved")
            client = OpenAI(base_url=f"{url}/v1", api_key="none")
            asked = {"messages": [{"role": "user", "content": "How do I boil an egg?"}], "max_tokens": 8, "seed": 1}
            answers = [
                api.chat.completions.create(model="helpful=0.6,concise=0.4", logprobs=True, top_logprobs=2, **asked)
                for api in (client, OpenAI(base_url=f"{address}/v1", api_key="none"))
            ]
            assert answers[0].choices == answers[1].choices and answers[0].choices[0].logprobs
