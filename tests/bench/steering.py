"""Steering while 1, 4 and 8 visitors stream two responses each: what the fader feels, and what the others feel of it.

    python tests/bench/steering.py [--visitors 1,4,8] [--drags 8]

Serves the desk from this process. Drags last a second and a half, and as long before each nothing moves. Prints one
JSON object; asserts nothing. For each number of visitors twice: `page`, where the one who drags is a Chromium on the
same machine, with an event for each frame of its screen, and `server`, where nobody has a browser, as if all were on
machines of their own (visitors.py).

- to_mixture_ms: from a fader's event (of `server`: the question that the page would ask then) until the engine draws
  from the mixture that it asks for, or from that of a later event.
- to_mark_ms: from a fader's single step until the text shows where it changed.
- updates_per_s and longest_gap_ms: of the text of the one who drags. others_updates_per_s: of one other visitor, from
  the first update of a response to its last.
- tokens_per_s: of all visitors together, as the engine draws them.

Each of the last four is given while nothing moves (still) and while the fader does (dragged).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from playwright.sync_api import Page, Request

from engine import Engine
from engine.models.policy_set import PolicySet
from tests.bench.visitors import WINDOW
from tests.browser.conftest import TOURED, chromium, unfold
from tests.browser.serving import served

# From now on: when the text of the left response was updated, and a fader's move. Times are ms since the epoch.
WATCH = """() => {
    const now = () => performance.timeOrigin + performance.now();
    const fader = document.querySelector("#fader-0 input[type=range]"), text = document.querySelector(".tokens");
    const bench = window.bench = {frames: [], move: (value) => {
        Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(fader, value);
        const moved = now();
        fader.dispatchEvent(new Event("input", {bubbles: true}));
        return moved;
    }};
    new MutationObserver(() => bench.frames.push(now())).observe(text, {childList: true, subtree: true});
}"""
# The fader from 0.1 to 1 in so many seconds, a step a frame: [[when, where to], ...]
DRAG = """(seconds) => new Promise((done) => {
    const events = [], began = performance.now();
    const step = () => {
        const share = (performance.now() - began) / 1000 / seconds;
        if (share >= 1) return done(events);
        const value = (0.1 + 0.9 * share).toFixed(2);
        if (!events.length || value !== events.at(-1)[1]) events.push([bench.move(value), value]);
        requestAnimationFrame(step);
    };
    step();
})"""
# Resolves when the mark of a single step is there, with the ms that it took.
MARK = """(value) => new Promise((done) => {
    const count = () => document.querySelectorAll("#response-left .mark").length;
    const marks = count(), moved = bench.move(value);
    const look = () => {
        const taken = performance.timeOrigin + performance.now() - moved;
        return count() > marks || taken > 30000 ? done(taken) : setTimeout(look, 2);
    };
    look();
})"""


@dataclass
class Seen:
    """Of one window: times are seconds since the epoch."""

    began: float
    ended: float
    frames: list[float] = field(default_factory=list)  # of the page
    others: dict[tuple[int, int], list[float]] = field(default_factory=dict)  # {(visitor, response): its whole text's}
    tokens: int = 0

    def rate_of_others(self) -> float:
        """Between two responses nobody's text is slowed: what counts is each one's time from its first update on."""
        updates = seconds = 0.0
        for times in self.others.values():
            inside = [at for at in times if self.began <= at <= self.ended]
            updates += len(inside)
            seconds += max(0.0, min(self.ended, max(times)) - max(self.began, min(times)))
        return updates / seconds

    def rates(self, others: int) -> dict[str, float]:
        seconds = self.ended - self.began
        edges = [self.began, *self.frames, self.ended]
        return {
            "updates_per_s": len(self.frames) / seconds,
            "longest_gap_ms": 1000 * max(b - a for a, b in pairwise(edges)),
            **({"others_updates_per_s": self.rate_of_others()} if others else {}),
            "tokens_per_s": self.tokens / seconds,
        }


class Bench:
    """tokens: one for each token that is drawn, its time; steered: (time, weight of the first fader's policy)."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.tokens: list[float] = []
        self.steered: list[tuple[float, float]] = []
        self.sent: dict[str, Any] = {}  # what the page sent, as visitors.py has it

    def open(self) -> None:
        page = self.page
        page.set_default_timeout(120_000)
        page.add_init_script(TOURED)
        page.goto(self.url)
        page.wait_for_selector("#radar .polarlayer")
        page.wait_for_function("document.body.dataset.ready")
        unfold(page, "more")
        page.locator("#length input[type=number]").fill("256")
        page.keyboard.press("Tab")
        page.wait_for_function("document.querySelector('#length input[type=range]').value === '256'")
        page.evaluate(WATCH)
        page.on("request", self.note)
        self.generate()
        page.evaluate("bench.move('0.6')")
        while len(self.sent) < 2:
            page.wait_for_timeout(100)
        page.remove_listener("request", self.note)  # to hear of every request takes time of this process

    def note(self, request: Request) -> None:
        if "queue/join" in request.url:
            self.sent.setdefault("generate", request.post_data_json)
        elif request.url.endswith("/steer"):
            self.sent.setdefault("steer", request.post_data_json)

    def generate(self) -> None:
        """Begin anew; returns when the new response has begun."""
        self.page.keyboard.press("Escape")
        self.page.wait_for_selector("#generate:enabled")
        self.page.evaluate("bench.frames.length = 0")
        self.page.locator("#generate").click()
        self.page.wait_for_function("bench.frames.length > 3")

    def window(self, act: Any) -> tuple[Seen, Any]:
        began = time.time()
        result = act()
        seen = Seen(began, time.time())
        seen.frames = [at / 1000 for at in self.page.evaluate("bench.frames") if began <= at / 1000 <= seen.ended]
        return self.count(seen), result

    def count(self, seen: Seen) -> Seen:
        seen.tokens = sum(seen.began <= at <= seen.ended for at in self.tokens)
        return seen

    def of_page(self, drags: int, others: int) -> dict[str, Any]:
        windows: dict[str, list[Seen]] = {"still": [], "dragged": []}
        delays, marks = [], []
        with self.visitors(others) as (_, said):
            wait_for(lambda: len({number for kind, number, *_ in said() if kind == "text"}) == others)
            for drag in range(drags):
                self.page.evaluate("bench.move('0.1')")
                self.generate()
                still, _ = self.window(lambda: self.page.wait_for_timeout(1000 * WINDOW))
                self.generate()
                before = len(self.steered)
                moving, events = self.window(lambda: self.page.evaluate(DRAG, WINDOW))
                self.page.wait_for_timeout(500)
                delays += waits(events, self.steered[before:])
                windows["still"].append(still)
                windows["dragged"].append(moving)
                self.generate()
                marks.append(self.page.evaluate(MARK, f"{0.2 + 0.05 * drag % 0.6:.2f}"))
            self.page.keyboard.press("Escape")
            others_texts = texts(said())
        for seen in (*windows["still"], *windows["dragged"]):
            seen.others = others_texts
        return {"to_mixture_ms": spread(delays), "to_mark_ms": spread(marks), **medians(windows, others)}

    def of_server(self, drags: int, others: int) -> dict[str, Any]:
        windows: dict[str, list[Seen]] = {"still": [], "dragged": []}
        self.steered.clear()
        with self.visitors(others + 1, drags) as (process, said):
            assert process.wait(timeout=600) == 0
            lines = said()
        every = texts(lines)
        others_texts = {key: times for key, times in every.items() if key[0]}
        own = [at for (number, _), times in every.items() if number == 0 for at in times]
        for kind, began, ended in (line for line in lines if line[0] in windows):
            seen = Seen(began, ended, [at for at in own if began <= at <= ended], others_texts)
            windows[kind].append(self.count(seen))
        delays = []
        asked = [(1000 * at, value) for kind, at, value, *_ in lines if kind == "asked"]
        for seen in windows["dragged"]:
            mine = [one for one in asked if seen.began <= one[0] / 1000 <= seen.ended]
            delays += waits(mine, [one for one in self.steered if seen.began <= one[0] <= seen.ended + 0.5])
        return {"to_mixture_ms": spread(delays), **medians(windows, others)}

    @contextmanager
    def visitors(
        self, count: int, drags: int = 0
    ) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], list[list[Any]]]]]:
        """So many visitors without a browser, at work until the block is left; gives what they have said so far."""
        with tempfile.TemporaryDirectory() as folder:
            sent, said = Path(folder) / "sent.json", Path(folder) / "said.jsonl"
            sent.write_text(json.dumps(self.sent))
            with said.open("w") as output:
                program = str(Path(__file__).with_name("visitors.py"))
                command = [sys.executable, program, self.url, str(sent), str(count), f"--drags={drags}"]
                process = subprocess.Popen(command, stdout=output)
                try:
                    yield process, lambda: [json.loads(line) for line in said.read_text().split("\n")[:-1]]
                finally:
                    process.terminate()
                    process.wait(timeout=30)


def wait_for(holds: Callable[[], bool], patience: float = 300) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "the visitors are gone"
        time.sleep(0.2)


def texts(lines: list[list[Any]]) -> dict[tuple[int, int], list[float]]:
    """{(visitor, response): when its text was updated}"""
    found: dict[tuple[int, int], list[float]] = {}
    for _, number, at, response in (line for line in lines if line[0] == "text"):
        found.setdefault((number, response), []).append(at)
    return found


def medians(windows: dict[str, list[Seen]], others: int) -> dict[str, dict[str, float]]:
    rates = {kind: [seen.rates(others) for seen in some] for kind, some in windows.items()}
    return {
        what: {kind: round(statistics.median(one[what] for one in some), 1) for kind, some in rates.items()}
        for what in rates["still"][0]
    }


def waits(events: list[tuple[float, str | float]], steered: list[tuple[float, float]]) -> list[float]:
    """Of each event, the ms until the engine had its mixture or a later one's: the other three faders stand at 0.5."""
    found = []
    for at, value in events:
        asked = float(value) / (float(value) + 1.5)
        after = [when for when, weight in steered if weight >= asked - 1e-6 and when * 1000 >= at]
        found.append(after[0] * 1000 - at if after else 30_000.0)
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Its median, what 95 of 100 stay under, and the worst."""
    return {
        "median": round(statistics.median(values), 1),
        "p95": round(statistics.quantiles(values, n=20, method="inclusive")[-1], 1),
        "worst": round(max(values), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--visitors", default="1,4,8")
    parser.add_argument("--drags", type=int, default=8)
    options = parser.parse_args()
    # The bundled policies end a response after a hundred tokens or so: here they may not.
    PolicySet.stop_ids = property(lambda _: set())  # type: ignore[assignment, method-assign]
    with (
        Engine.from_config() as engine,
        tempfile.TemporaryDirectory() as folder,
        served(engine, Path(folder) / "bench.db") as (url, _),
        chromium() as browser,
    ):
        bench = Bench(browser.new_context(viewport={"width": 1440, "height": 900}).new_page(), url)
        steer, hand_over = engine._scheduler._steer, engine._scheduler._publish_one
        first = engine.policy_set.names[0]

        def steering(request: Any, mixture: Any) -> None:
            steer(request, mixture)
            bench.steered.append((time.time(), mixture.weights.get(first, 0.0)))

        def handing_over(request: Any) -> None:
            hand_over(request)
            bench.tokens.append(time.time())

        engine._scheduler._steer, engine._scheduler._publish_one = steering, handing_over  # type: ignore[method-assign]
        gc.freeze()  # as python -m app does: a full collection stops everybody for a second
        bench.open()
        results = {}
        for count in map(int, options.visitors.split(",")):
            results[count] = {
                "page": bench.of_page(options.drags, count - 1),
                "server": bench.of_server(options.drags, count - 1),
            }
            for where, figures in results[count].items():
                print(count, where, json.dumps(figures), file=sys.stderr, flush=True)
    print(json.dumps({"visitors": results, "drags": options.drags, "cores": os.cpu_count(), "load": os.getloadavg()}))


if __name__ == "__main__":
    main()
