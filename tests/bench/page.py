"""What a person feels of the page: the time from the click to the first token they see, and tokens per second.

    python tests/bench/page.py [--runs 10] [--config FILE]

Starts the app, drives Chromium, and prints one JSON object. Asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from playwright.sync_api import Page

from tests.browser.conftest import chromium
from tests.browser.serving import ROOT, free_port, started

# Resolves once both responses are finished: seconds from the click to the first text of each side and to the last text.
MEASURE = """() => new Promise((done) => {
    const areas = ["left", "right"].map((side) => document.querySelector(`#response-${side} .tokens`));
    const before = areas.map((area) => area.textContent), first = [null, null];
    let lengths = [0, 0], last = null, cleared = false;
    const rate = document.querySelector("#rate-left"), began = performance.now();
    const look = () => {
        const now = performance.now() - began;
        cleared = cleared ||
            rate.disabled && areas.every((area, i) => area.textContent !== before[i] || !area.textContent);
        if (cleared) areas.forEach((area, i) => {
            if (area.textContent && first[i] === null) first[i] = now;
            if (area.textContent.length !== lengths[i]) { lengths[i] = area.textContent.length; last = now; }
        });
        if (cleared && first.every((at) => at !== null) && !rate.disabled)
            return done({first: first.map((at) => at / 1000), last: last / 1000});
        setTimeout(look, 2);
    };
    document.querySelector("#generate").click();
    look();
})"""


def measure(page: Page) -> dict[str, float]:
    timed = page.evaluate(MEASURE)
    captions = [page.locator(f"#caption-{side}").inner_text() for side in ("left", "right")]
    tokens = sum(int(caption.split(" tokens")[0].split()[-1]) for caption in captions)
    return {
        "first_token_s": min(timed["first"]),
        "both_first_token_s": max(timed["first"]),
        "tokens": tokens,
        "tokens_per_s": tokens / timed["last"],
        "tokens_per_s_after_first": tokens / max(timed["last"] - min(timed["first"]), 1e-3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--config")
    options = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "app", "--port", str(port), "--db", f"{folder}/bench.db"]
        command += ["--config", options.config] if options.config else []
        began = time.monotonic()
        with started(command, port, Path(folder) / "app.log", ROOT) as url:
            answers = time.monotonic() - began
            with chromium() as browser:
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                page.goto(url)
                page.wait_for_function("document.body.dataset.ready")
                runs = []
                for _ in range(options.runs):
                    runs.append(measure(page))
                    page.wait_for_timeout(300)
    figures = {name: [run[name] for run in runs] for name in runs[0]}
    print(
        json.dumps(
            {
                "page_answers_s": round(answers, 2),
                "runs": len(runs),
                "cores": os.cpu_count(),
                "machine": platform.machine(),
                **{
                    name: {"median": round(statistics.median(values), 3), "worst": round(worst(name, values), 3)}
                    for name, values in figures.items()
                },
            }
        )
    )


def worst(name: str, values: list[float]) -> float:
    return max(values) if name.endswith("token_s") else min(values)


if __name__ == "__main__":
    main()
