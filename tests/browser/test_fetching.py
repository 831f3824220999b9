"""From an empty cache to other policies by one click, in a real Chromium: against a hub and an index on this machine,
with a tiny configuration in place of the real one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests import copies
from tests.browser.conftest import opened
from tests.browser.serving import ROOT, free_port
from tests.browser.walking import COLOURED
from tests.conftest import Tiny
from tests.shelf import Shelf, environment, serving, write_manifest

ABOUT = "The bundled ones are <b>tiny</b>."
SHOTS = os.environ.get("MIXDESK_SHOTS")  # a folder to look at what is tested here
# `python -m app` with other bundled configurations.
MAIN = (
    "import sys; from pathlib import Path; import engine.config; engine.config.DEMO = Path(sys.argv[1]);"
    "from app.__main__ import main; sys.exit(main(sys.argv[2:]))"
)


class Machine:
    """A folder of configurations, a cache, and the app that is started there again and again, always at one port."""

    def __init__(self, tiny: Tiny, folder: Path, shelf: Shelf) -> None:
        self.folder, self.shelf, self.port = folder, shelf, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env: dict[str, str] = {**os.environ, **environment(folder / "cache", shelf)}
        configs = folder / "configs"
        configs.mkdir()
        function = {"kind": "function", "function": "engine.rewards:brevity"}
        raw = yaml.safe_load(tiny.config.read_text())
        raw["policies"] = [{**policy, "adapter": str(tiny.folder / policy["adapter"])} for policy in raw["policies"]]
        raw["rewards"] = [{"objective": policy["objective"], **function} for policy in raw["policies"]]
        self.demo = configs / "demo.yaml"
        self.demo.write_text(yaml.safe_dump({**raw, "name": "demo", "about": ABOUT, "base": str(tiny.base)}))
        real = {**raw, "name": "real", "base": "org/model", "policies": raw["policies"][:1]}
        (configs / "real.yaml").write_text(yaml.safe_dump(real))
        # A real base: several files in one folder.
        self.files = {file.name: file.read_bytes() for file in tiny.base.iterdir()}
        manifest = configs / "fetch" / "real.yaml"
        self.size = sum(len(content) for content in self.files.values())
        write_manifest(manifest, self.files, shelf, pieces=2, changes={"title": "the real policies"})

    @contextmanager
    def app(self) -> Iterator[copies.Process]:
        """The app as a process, from when it answers; it is killed at the end."""
        log = self.folder / "app.log"
        command = [
            sys.executable,
            "-c",
            MAIN,
            str(self.demo),
            "--port",
            str(self.port),
            "--db",
            str(self.folder / "a.db"),
        ]
        with log.open("a") as output:
            process = copies.start(command, ROOT, self.env, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: answers(self.url) or process.poll() is not None, 300)
            assert process.poll() is None, log.read_text()
            yield process
            assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], patience: float = 120) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def machine(tiny: Tiny, tmp_path: Path) -> Iterator[Machine]:
    with serving(Shelf()) as shelf:
        yield Machine(tiny, tmp_path, shelf)


def sound(page: Page) -> None:
    """The page fits, and axe finds nothing, by day and by night."""
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=theme == "dark")
        page.wait_for_function(COLOURED)
        violations = Axe().run(page, context="#notices").response["violations"]
        assert not violations, (theme, violations)
    page.emulate_media(color_scheme="light")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "the desk scrolls"


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def wait_for_desk(page: Page, url: str) -> None:
    page.wait_for_url(url, timeout=180_000)  # the model is loaded, which takes long on a busy machine
    page.wait_for_selector("#radar .polarlayer")
    page.wait_for_function("document.body.dataset.ready")


def policies(page: Page) -> list[str]:
    return page.locator(".fader-name").all_inner_texts()


def test_one_click_killed_in_the_middle_and_gone_on_with(machine: Machine, browser: Browser) -> None:
    shelf = machine.shelf
    shelf.trickle_after = machine.size // 2
    with machine.app() as process, opened(browser, machine.url) as page:
        line = page.locator(".offer")
        expect(line).to_contain_text(ABOUT)  # as text
        button = page.get_by_role("button", name="Get the real policies")
        expect(button).to_be_visible()
        sound(page)
        shoot(page, "offer")
        assert not shelf.sent(), "nothing is fetched unless somebody says so"
        button.focus()
        page.keyboard.press("Enter")
        expect(line).to_contain_text("Getting the real policies.")
        expect(line.get_by_role("progressbar")).to_be_visible()
        expect(line).to_contain_text("from the Hugging Face hub (127.0.0.1)")
        wait_for(lambda: shelf.sent() > machine.size / 2)
        sound(page)
        shoot(page, "fetching")
        assert 0 < page.locator(".offer progress").evaluate("bar => bar.value / bar.max") < 1
        process.kill()
        process.wait()
        expect(line).to_contain_text("Mixdesk does not answer; what has come is kept.")
        before = {asked.path: asked.sent for asked in shelf.asked if asked.sent}
        shelf.trickle_after = None
        shelf.asked.clear()
        with machine.app():
            # The page was left open; nobody presses anything.
            wait_for_desk(page, f"{machine.url}/desk/real/")
            assert policies(page) == ["plain"]
            shoot(page, "real")
            # What was whole is not fetched again, and what was not is from where it ended.
            again = {asked.path: asked.start for asked in shelf.asked if asked.sent}
            assert all(start > 0 for path, start in again.items() if path in before)
            assert machine.size * 0.9 < sum(before.values()) + shelf.sent() < machine.size * 1.3
            page.get_by_role("button", name="Generate").click()
            expect(page.locator("#status")).to_contain_text("Which is better?")
    shelf.asked.clear()
    # At the next start they are what it begins with; the small ones stay in the menu.
    with machine.app(), opened(browser, machine.url) as page:
        assert policies(page) == ["plain"]
        expect(page.locator("#configurations summary")).to_have_text("real")
        expect(page.locator(".offer")).to_have_count(0)
        page.locator("#configurations summary").click()
        page.locator("#configurations button", has_text="demo").click()
        wait_for_desk(page, f"{machine.url}/desk/demo/")
        assert policies(page) == ["plain", "stabilized", "narrow"]
        expect(page.locator(".offer")).to_contain_text("Fetched: the real policies.")
        page.get_by_role("button", name="Open them").click()
        wait_for_desk(page, f"{machine.url}/")
    assert not shelf.sent()


def test_no_hub_and_no_index_then_the_index_alone(machine: Machine, browser: Browser) -> None:
    shelf = machine.shelf
    hub = {path: shelf.files.pop(path) for path in list(shelf.files) if path.startswith("/org/")}
    index = {path: shelf.files.pop(path) for path in list(shelf.files)}
    assert hub
    with machine.app(), opened(browser, machine.url) as page:
        # From the menu, too, it has to be fetched first.
        page.locator("#configurations summary").click()
        expect(page.locator("#configurations button", has_text="real")).to_contain_text("to be fetched")
        page.locator("#configurations button", has_text="real").click()
        line = page.locator(".offer")
        expect(line).to_contain_text("It is not fetched yet.")
        expect(page.get_by_role("button", name="Get the real policies")).to_be_focused()
        page.keyboard.press("Enter")
        expect(line).to_contain_text("could not be fetched")
        words = line.locator(".words").inner_text()
        assert "the Hugging Face hub (127.0.0.1): it answers 404" in words
        assert "the Python package index: " in words
        assert "MIXDESK_MIRROR" in words
        assert "\n" not in words
        sound(page)
        shoot(page, "failed")
        shelf.files.update(index)
        shelf.trickle_after = machine.size // 3
        page.get_by_role("button", name="Retry").click()
        expect(line).to_contain_text("from the Python package index")
        wait_for(lambda: page.locator(".offer progress").evaluate("bar => bar.value") > 0)  # something is here
        page.get_by_role("button", name="Cancel").click()
        get_the_rest = page.get_by_role("button", name="Get the rest")
        expect(get_the_rest).to_be_visible()
        expect(line).to_contain_text("are here.")
        shelf.trickle_after = None
        get_the_rest.click()
        wait_for_desk(page, f"{machine.url}/desk/real/")
        assert policies(page) == ["plain"]
        assert all("/packages/" in asked.path for asked in shelf.asked if asked.sent > 2000)


def test_on_a_phone_and_not_now(machine: Machine, browser: Browser) -> None:
    with machine.app(), opened(browser, machine.url, viewport={"width": 390, "height": 844}) as page:
        expect(page.get_by_role("button", name="Get the real policies")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shoot(page, "phone")
        page.get_by_role("button", name="Not now").click()
        expect(page.locator(".offer")).to_be_hidden()
        page.reload()
        page.wait_for_function("document.body.dataset.ready")
        page.wait_for_timeout(1000)
        expect(page.locator(".offer")).to_be_hidden()
