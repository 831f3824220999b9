"""As a Space runs it: the tracked files, what requirements.txt names and nothing else, the front matter's file."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import opened
from tests.test_project import front_matter

ROOT = Path(__file__).parents[2]


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
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"SPACE_ID": "someone/mixdesk", "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "0.0.0.0"}
    known = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MIXDESK", "GRADIO", "HF_"))
    }
    log = folder / "space.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [python, front_matter()["app_file"]], cwd=folder, env=known | settings, stdout=output, stderr=output
        )
    try:
        deadline, url = time.monotonic() + 300, f"http://127.0.0.1:{port}"
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
        process.terminate()
        assert process.wait(timeout=30) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)  # a gigabyte


def test_a_space_answers_and_warns_its_owner(space: str, browser: Browser) -> None:
    with opened(browser, space) as page:
        expect(page.locator("#warning")).to_contain_text("Ratings are lost when this Space restarts")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator("#status")).to_contain_text("Which is better?", timeout=60_000)
