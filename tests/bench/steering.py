"""How fast a fader steers: milliseconds from its event in the browser until the engine draws from the new mixture, and
until the page shows the mark; with 1, 4 and 8 visitors, each with two responses under way.

    python tests/bench/steering.py [--visitors 1,4,8] [--moves 40]

Serves the desk from this process, drives Chromium, and prints one JSON object. Asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from playwright.sync_api import Page, sync_playwright

from engine import Engine
from engine.policies import PolicySet
from tests.browser.conftest import QUIET
from tests.browser.serving import served

# Resolves when the mark is there: when the fader moved and when the mark was seen, in ms since the epoch.
MOVE = """(value) => new Promise((done, failed) => {
    const fader = document.querySelector("#fader-0 input[type=range]"), tokens = document.querySelector(".tokens");
    const marks = tokens.querySelectorAll(".mark").length, now = () => performance.timeOrigin + performance.now();
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(fader, value);
    const moved = now();
    fader.dispatchEvent(new Event("input", {bubbles: true}));
    const look = () => {
        if (tokens.querySelectorAll(".mark").length > marks) return done({moved, shown: now()});
        if (now() - moved > 30000) return failed(`no mark in 30 s: ${document.querySelector("#status").innerText}`);
        setTimeout(look, 2);
    };
    look();
})"""


def begin(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#radar .polarlayer")
    page.wait_for_function("document.body.dataset.ready")
    page.locator("#more > button").click()
    page.locator("#length input[type=number]").fill("256")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('#length input[type=range]').value === '256'")


def generate(page: Page) -> None:
    """Begin anew; returns when the new response has begun."""
    page.wait_for_selector("#generate:enabled")
    page.evaluate(
        "document.querySelectorAll('#response-left .token').forEach((token) => { token.dataset.old = true; })"
    )
    page.locator("#generate").click()
    page.wait_for_function("document.querySelectorAll('#response-left .token:not([data-old])').length > 2")


def measure(pages: list[Page], steered: list[float], moves: int) -> dict[str, dict[str, float]]:
    found: dict[str, list[float]] = {"to_mixture_ms": [], "to_mark_ms": []}
    for page in pages:
        generate(page)
    for move in range(moves):
        page = pages[move % len(pages)]
        for other in pages:  # all are kept busy, and the measured one has some way to go
            length = other.evaluate("document.querySelectorAll('#response-left .token').length")
            if length > 90 if other is page else other.locator("#generate").is_enabled():
                other.keyboard.press("Escape")
                generate(other)
        before = len(steered)
        seen = page.evaluate(MOVE, str(round(0.1 + 0.8 * ((move * 7) % moves) / moves, 2)))
        found["to_mixture_ms"].append(steered[before] * 1000 - seen["moved"])
        found["to_mark_ms"].append(seen["shown"] - seen["moved"])
        page.wait_for_timeout(150)
    for page in pages:
        page.keyboard.press("Escape")
    return {
        name: {
            "median": round(statistics.median(values), 1),
            "p95": round(statistics.quantiles(values, n=20, method="inclusive")[-1], 1),
            "worst": round(max(values), 1),
        }
        for name, values in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", default="1,4,8")
    parser.add_argument("--moves", type=int, default=40)
    options = parser.parse_args()
    # The bundled policies end a response after a hundred tokens or so: here they may not.
    PolicySet.stop_ids = property(lambda _: set())  # type: ignore[assignment, method-assign]
    steered: list[float] = []
    steer = Engine._steer
    Engine._steer = lambda *given: (steer(*given), steered.append(time.time()))[0]  # type: ignore[method-assign]
    results = {}
    with (
        Engine.from_config() as engine,
        tempfile.TemporaryDirectory() as folder,
        served(engine, Path(folder) / "bench.db") as (url, _),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET.split())
        pages: list[Page] = []
        for visitors in map(int, options.visitors.split(",")):
            while len(pages) < visitors:
                page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
                page.set_default_timeout(120_000)
                begin(page, url)
                pages.append(page)
            results[visitors] = measure(pages[:visitors], steered, options.moves)
            print(visitors, results[visitors], file=sys.stderr, flush=True)
        browser.close()
    print(json.dumps({"visitors": results, "moves": options.moves, "cores": os.cpu_count(), "load": os.getloadavg()}))


if __name__ == "__main__":
    main()
