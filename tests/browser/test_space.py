"""As a Space runs it: the tracked files, what requirements.txt names and nothing else, the front matter's file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from playwright.sync_api import Browser, expect

from tests.browser.conftest import opened
from tests.browser.serving import ROOT, free_port, started
from tests.test_project import front_matter


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the app in a folder and an environment of its own."""
    folder = tmp_path_factory.mktemp("space")
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]:
        if (ROOT / name).is_file():  # or deleted, and not committed yet
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    python = folder / ".venv" / "bin" / "python"
    (packages,) = (folder / ".venv" / "lib").glob("python*/site-packages")
    needs = map(Requirement, (folder / "requirements.txt").read_text().splitlines())
    for brought in all_brought(needs):
        # Linked, not installed again: a gigabyte would be unpacked, and removed.
        for name in {file.parts[0] for file in brought.files or ()} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(str(brought.locate_file(name)))
    port = free_port()
    settings = {"SPACE_ID": "someone/mixdesk", "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    known = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MIXDESK", "GRADIO", "HF_"))
    }
    command = [python, front_matter()["app_file"]]
    with started(command, port, folder / "space.log", folder, known | settings) as url:
        yield url


def all_brought(needs: Iterable[Requirement]) -> list[Distribution]:
    """What pip would install for these: the distributions that they name, and what those name in turn."""
    brought, todo, seen = {}, list(needs), set()
    while todo:
        need = todo.pop()
        name = canonicalize_name(need.name)
        if (name, *sorted(need.extras)) in seen:
            continue
        seen.add((name, *sorted(need.extras)))
        brought[name] = distribution(name)
        assert need.specifier.contains(brought[name].version, prereleases=True), f"{need}: {brought[name].version}"
        for inner in map(Requirement, brought[name].requires or ()):
            if not inner.marker or any(inner.marker.evaluate({"extra": extra}) for extra in ("", *need.extras)):
                todo.append(inner)
    return list(brought.values())


def test_a_space_answers_and_warns_its_owner(space: str, browser: Browser) -> None:
    with opened(browser, space) as page:
        expect(page.locator("#warning")).to_contain_text("Ratings are lost when this Space restarts")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator("#status")).to_contain_text("Which is better?", timeout=60_000)
