"""Eight policies with long names, on screens of any width: nothing is cut off, and nothing lies over anything else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from engine import Engine
from engine.config import DEMO
from tests.browser.conftest import opened
from tests.browser.serving import served
from tests.browser.test_desk import wait_until_done

NAMES = [
    "helpful and honest in every answer",
    'harmless "above all"',
    "humorous & dry",
    "concise",
    "instruction-following",
    "trustworthiness",
    "factual_accuracy_of_medical_advice",
    "it's <b>kind</b>",
]
POLICIES = [re.sub("[^A-Za-z_]+", "-", name).strip("-") for name in NAMES]
SETTLED = 15.0  # seconds in which the page must have drawn what changed
WIDTHS = [320, 390, 720, 768, 1024, 1181, 1366, 1440, 1920]
# The box of the text in a dropdown's field, as far as it is shown, and that of its arrow.
FIELD = """(field) => {
    const style = getComputedStyle(field), box = field.getBoundingClientRect();
    const context = document.createElement("canvas").getContext("2d");
    context.font = style.font;
    const text = context.measureText(field.value).width, left = box.left + parseFloat(style.paddingLeft);
    const room = box.width - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const arrow = field.parentElement.parentElement.querySelector("svg").getBoundingClientRect();
    return { text, room, right: left + Math.min(text, room), arrow: arrow.left, ellipsis: style.textOverflow };
}"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A desk with the bundled policies twice, under other names."""
    folder = tmp_path_factory.mktemp("names")
    raw: dict[str, Any] = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    place = DEMO.parent
    raw["base"], raw["prompts"] = str(place / raw["base"]), str(place / raw["prompts"])
    for kind, path in (("policies", "adapter"), ("rewards", "model")):
        parts = [{**part, path: str(place / part[path])} for part in raw[kind]] * 2
        raw[kind] = [{**part, "objective": name} for part, name in zip(parts, NAMES, strict=True)]
    raw["policies"] = [{**policy, "name": name} for policy, name in zip(raw["policies"], POLICIES, strict=True)]
    config = folder / "names.yaml"
    config.write_text(yaml.safe_dump(raw))
    with Engine.from_config(config) as engine, served(engine, folder / "mixdesk.db") as (url, _):
        yield url


def boxes(page: Page, selector: str) -> list[dict[str, float]]:
    return [box for part in page.locator(selector).all() if (box := part.bounding_box()) and box["width"]]


def overlap(one: dict[str, float], two: dict[str, float], by: float = 0.5) -> bool:
    return all(
        min(one[start] + one[size], two[start] + two[size]) - max(one[start], two[start]) > by
        for start, size in (("x", "width"), ("y", "height"))
    )


def check_tabs_and_radar(page: Page) -> None:
    size = page.viewport_size
    assert size
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], "the page is too wide"

    tabs = page.get_by_role("tab").all()
    assert len(tabs) == 5
    for tab in tabs:
        assert tab.evaluate("tab => tab.scrollWidth <= tab.clientWidth + 1"), tab.inner_text()
    for one, two in combinations([tab.bounding_box() for tab in tabs], 2):
        assert one and two and not overlap(dict(one), dict(two))
    words = page.get_by_role("tab").evaluate_all(
        """(tabs) => tabs.map((tab) => {
            const range = document.createRange();
            range.selectNodeContents(tab);
            return range.getBoundingClientRect().toJSON();
        })"""
    )
    assert not any(overlap(one, two) for one, two in combinations(words, 2)), "labels of tabs"

    radar = page.locator("#radar").bounding_box()
    assert radar
    labels = page.locator("#radar .angularaxistick text")
    shown = labels.evaluate_all("(labels) => [...new Set(labels)].map((label) => label.textContent)")
    assert len(shown) == 8
    assert any('"above' in label for label in shown) and not any("&" in label and ";" in label for label in shown)
    for label, box in zip(shown, boxes(page, "#radar .angularaxistick text"), strict=True):
        assert box["x"] >= radar["x"] - 1 and box["x"] + box["width"] <= radar["x"] + radar["width"] + 1, label
        assert box["y"] >= radar["y"] - 1 and box["y"] + box["height"] <= radar["y"] + radar["height"] + 1, label
    for one, two in combinations(boxes(page, "#radar .angularaxistick text"), 2):
        assert not overlap(one, two), "labels on the radar"


def check_panel_heads(page: Page) -> None:
    size = page.viewport_size
    assert size
    for side in ("left", "right", "third", "fourth"):
        field = page.locator(f"#mixture-{side} input").evaluate(FIELD)
        assert field["text"] <= field["room"], f"{side}: the choice is cut off: {field}"
        assert field["right"] <= field["arrow"], f"{side}: the arrow lies over the choice: {field}"
        heads = boxes(page, f"#panel-{side} .panel-head > *")
        assert not any(overlap(one, two) for one, two in combinations(heads, 2)), side
        assert all(box["x"] + box["width"] <= size["width"] for box in heads)


def settled(check: Callable[[Page], None], page: Page) -> None:
    """Check once more until it passes, for a while: a busy machine draws what has changed later."""
    deadline = time.monotonic() + SETTLED
    while True:
        try:
            return check(page)
        except (AssertionError, ValueError):  # a label that has no box yet
            if time.monotonic() > deadline:
                raise
            page.wait_for_timeout(250)


def check_caption(page: Page) -> None:
    size = page.viewport_size
    assert size
    lines = page.locator("#response-left .response").evaluate("box => box.clientHeight / (1.6 * 16)")
    assert lines >= 5, f"{lines} lines of text"
    page.locator("#caption-left summary").click()
    unfolded = page.locator("#caption-left .made p")
    expect(unfolded).to_contain_text(POLICIES[0])
    box = unfolded.bounding_box()
    page.locator("#caption-left summary").click()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= size["width"]


def check_a_long_choice(page: Page) -> None:
    field = page.locator("#mixture-right input").evaluate(FIELD)
    assert field["right"] <= field["arrow"] and field["ellipsis"] == "ellipsis", field


def on_all_widths(page: Page, *checks: Callable[[Page], None]) -> None:
    """Check the page as it is on every screen; what fails says on which."""
    wrong = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 768})
        for check in checks:
            try:
                settled(check, page)
            except (AssertionError, ValueError) as error:
                wrong.append(f"{width} px, {check.__name__}: {error}")
    assert not wrong, "\n".join(wrong)


def generate_and_stop(page: Page, *sides: str) -> None:
    """Until these panels, which were empty, have some text."""
    page.locator("#generate").click()
    for side in sides:
        page.wait_for_selector(f"#response-{side} .token[data-place='1']")
    page.keyboard.press("Escape")  # Stop; on a slow machine they may have ended by themselves
    wait_until_done(page)


def test_the_page_with_long_names(browser: Browser, url: str) -> None:
    """One page that is made wider. It begins as the narrowest, whose layout a page may not come to when it shrinks."""
    with opened(browser, url, viewport={"width": WIDTHS[0], "height": 768}) as page:
        on_all_widths(page, check_tabs_and_radar)
        generate_and_stop(page, "left", "right")
        expect(page.locator("#caption-left summary")).to_contain_text("8 policies")
        on_all_widths(page, check_caption)
        for _ in range(2):
            page.locator("#add-panel").click()
        generate_and_stop(page, "third", "fourth")
        on_all_widths(page, check_panel_heads)
        page.locator("#mixture-right input").click()
        page.get_by_role("option", name=POLICIES[0]).click()
        on_all_widths(page, check_a_long_choice)


@pytest.mark.parametrize("width", [WIDTHS[0], WIDTHS[-1]])
def test_a_page_that_is_opened_at_a_width(browser: Browser, url: str, width: int) -> None:
    with opened(browser, url, viewport={"width": width, "height": 768}) as page:
        settled(check_tabs_and_radar, page)
