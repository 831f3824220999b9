"""The Compare tab in a real Chromium: run, stop, restart the server, resume, sort, search, read, download, delete."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from engine import Engine
from tests.browser.conftest import opened
from tests.browser.serving import served

HOSTILE = [
    "<img src=x onerror=\"window.harmed = 1; fetch('http://elsewhere.example')\">",
    "<script>window.harmed = 2</script> {{7*7}} ${window.harmed = 3}",
    "'); DROP TABLE comparisons; --",
    '=HYPERLINK("http://elsewhere.example")',
]

expect.set_options(timeout=30_000)


@contextmanager
def comparing(browser: Browser, url: str) -> Iterator[Page]:
    """The Compare tab, just opened; nothing that was uploaded may do anything in it."""
    with opened(browser, url) as page:
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.locator("#compare-tab-button").click()
        expect(page.locator("#compare-start")).to_be_visible()
        yield page
        assert not dialogs
        assert page.evaluate("window.harmed") is None


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def upload(page: Page, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with page.expect_file_chooser() as chooser:
        page.locator("#compare-upload").click()
    chooser.value.set_files(path)


def fill(page: Page, name: str, value: str) -> None:
    page.locator(f"#compare-{name} :is(input, textarea)").first.fill(value)


def keep_mixtures(page: Page, count: int) -> None:
    tokens = page.locator("#compare-mixtures .token")
    for left in range(tokens.count(), count, -1):
        tokens.nth(left - 1).locator(".token-remove").click()
        expect(tokens).to_have_count(left - 1)


def shown(page: Page) -> list[str]:
    return page.locator(".compare-table .open").all_inner_texts()


def test_what_is_uploaded_is_text_and_what_cannot_be_says_where(
    engine: Engine, browser: Browser, tmp_path: Path
) -> None:
    with served(engine, tmp_path / "mixdesk.db") as (url, desk), comparing(browser, url) as page:
        expect(page.locator("#compare-empty")).to_contain_text("how sure")
        status = page.locator("#compare-status")
        bad = b'{"prompt": "a"}\n' * 6 + b"{nope\n"
        upload(page, tmp_path / "<img src=x onerror=alert(1)>.jsonl", bad)
        expect(status).to_contain_text("line 7: not JSON")
        upload(page, tmp_path / "latin.csv", "prompt\nGrüße\n".encode("latin-1"))
        expect(status).to_contain_text("latin.csv, line 2: not UTF-8")
        assert page.locator("#compare-prompts input").input_value().startswith("demo.jsonl")

        lines = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in [*HOSTILE, HOSTILE[0]])
        upload(page, tmp_path / "hostile.jsonl", lines.encode())
        expect(status).to_contain_text("4 prompts; 1 that came twice are left out")
        keep_mixtures(page, 2)
        fill(page, "typed", "helpful=0.6, humor=0.4")
        page.locator("#compare-add").click()
        expect(status).to_contain_text("no policy is called 'humor'")
        fill(page, "typed", "helpful=0.6, humorous=0.4, gain=1.5")
        page.locator("#compare-add").click()
        expect(page.locator("#compare-mixtures .token")).to_have_count(3)
        cross = page.locator("#compare-mixtures .token .token-remove").nth(2)
        expect(cross).to_have_attribute("aria-label", "Remove helpful=0.6, humorous=0.4, gain=1.5")
        fill(page, "temperature", "hot")
        page.locator("#compare-start").click()
        expect(status).to_contain_text("temperature: found 'hot'")
        assert not desk.comparisons.tables.listing(), "something was stored"
        fill(page, "temperature", "0.7")
        fill(page, "length", "8")
        page.locator("#compare-start").click()
        expect(page.locator("#compare-delete")).to_be_visible()
        assert shown(page) == HOSTILE
        assert page.locator(".wins tbody th").nth(2).inner_text().strip() == "helpful=0.6, humorous=0.4, gain=1.5"
        page.locator(".compare-table .open").first.press("Enter")
        expect(page.locator("dialog[open] .asked")).to_have_text(HOSTILE[0])
        expect(page.locator("dialog[open] article")).to_have_count(3)
        made = desk.comparisons.tables.completions(1, 0)
        assert page.locator("dialog[open] article .text").all_inner_texts() == [
            row["text"].strip() or "(an empty response)" for row in made
        ]
        page.keyboard.press("Escape")
        expect(page.locator("dialog[open]")).to_have_count(0)


def test_a_comparison_from_start_to_deletion(engine: Engine, browser: Browser, tmp_path: Path) -> None:
    db = tmp_path / "mixdesk.db"
    with served(engine, db) as (url, desk), comparing(browser, url) as page:
        keep_mixtures(page, 3)
        fill(page, "most", "60")
        fill(page, "length", "12")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#compare-progress progress")).to_be_visible()
        expect(page.locator("#compare-progress")).to_contain_text("left")  # how long it takes yet
        page.locator("#compare-title").click()
        page.keyboard.press("Escape")
        expect(page.locator("#compare-resume")).to_be_visible()
        (entry,) = desk.comparisons.tables.listing()
        assert 0 < entry.answered < entry.prompts == 60
        expect(page.locator("#compare-progress")).to_contain_text(f"{entry.answered} of 60 prompts are answered")

    with served(engine, db) as (url, desk), comparing(browser, url) as page:
        page.locator("#compare-resume").click()
        expect(page.locator("#compare-progress progress")).to_be_visible()
        page.reload()  # a page that is closed stops nothing
        wait_until(lambda: desk.comparisons.tables.listing()[0].finished)
        page.wait_for_function("document.body.dataset.ready")
        page.locator("#compare-tab-button").click()
        expect(page.locator("#compare-delete")).to_be_visible()
        expect(page.locator(".wins")).to_contain_text("lowest of all")
        expect(page.locator("#compare-radar .polarlayer")).to_be_visible()

        table = page.locator(".compare-table")
        expect(table.locator(".count")).to_have_text("60 of 60 prompts")
        assert len(shown(page)) == 50
        table.locator("select").first.select_option("helpful")
        table.get_by_role("button", name="Sort by helpful").click()
        cells = table.locator("tbody tr td:nth-child(4) b").all_inner_texts()
        scores = [float(cell.replace("−", "-")) for cell in cells]
        assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1]
        table.get_by_role("searchbox").fill("tent?")
        expect(table.locator(".count")).not_to_have_text("60 of 60 prompts")
        assert "tent" in shown(page)[0]
        table.get_by_role("searchbox").fill("")
        table.locator("select").nth(1).select_option("2>0")
        expect(table.locator("td:nth-child(4) .gap.down")).to_have_count(0)
        assert table.locator("td:nth-child(4) .gap.up").count() > 5

        with page.expect_download() as download:
            page.get_by_role("link", name="CSV").click()
        with open(download.value.path(), encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 60 * 3 and {row["mixture"] for row in rows} == {"Reference", "Uniform", "helpful"}

        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.set_viewport_size({"width": 1440, "height": 900})
        page.locator("#compare-delete").click()
        expect(page.locator("#compare-question")).to_contain_text("180 responses")
        page.locator("#compare-keep").click()
        expect(page.locator("#compare-question")).to_be_hidden()
        page.locator("#compare-delete").click()
        page.locator("#compare-sure").click()
        expect(page.locator("#compare-empty")).to_be_visible()
        assert not desk.comparisons.tables.listing()


def test_the_column_of_a_file_is_chosen_in_the_page(engine: Engine, browser: Browser, tmp_path: Path) -> None:
    with served(engine, tmp_path / "mixdesk.db") as (url, _), comparing(browser, url) as page:
        status, column = page.locator("#compare-status"), page.locator("#compare-column input")
        upload(page, tmp_path / "behaviors.csv", b"goal,target\nmix it,Sure\nmove it,Sure\n")
        expect(status).to_contain_text("behaviors.csv: choose the column that the prompts are in")
        column.click()
        page.get_by_role("option", name="goal").click()
        expect(status).to_contain_text("behaviors.csv: 2 prompts")
        expect(page.locator("#compare-prompts input")).to_have_value("behaviors.csv · 2 prompts")
        upload(page, tmp_path / "plain.txt", b"one\ntwo\nthree\n")
        expect(status).to_contain_text("plain.txt: 3 prompts")
        expect(column).to_have_count(0)
