"""As a Space runs it: the tracked files, what requirements.txt names and nothing else, the front matter's file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
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
    python = folder / ".venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True)
    # Each file is compiled when it is first imported; most never are.
    install = [python, "-m", "pip", "install", "-q", "--no-compile", "-r", "requirements.txt"]
    subprocess.run(install, cwd=folder, check=True, timeout=600)
    port = free_port()
    settings = {"SPACE_ID": "someone/mixdesk", "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    known = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MIXDESK", "GRADIO", "HF_"))
    }
    command = [python, front_matter()["app_file"]]
    try:
        with started(command, port, folder / "space.log", folder, known | settings, patience=300) as url:
            yield url
    finally:
        shutil.rmtree(folder)  # a gigabyte


def test_a_space_answers_and_warns_its_owner(space: str, browser: Browser) -> None:
    with opened(browser, space) as page:
        expect(page.locator("#warning")).to_contain_text("Ratings are lost when this Space restarts")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator("#status")).to_contain_text("Which is better?", timeout=60_000)
