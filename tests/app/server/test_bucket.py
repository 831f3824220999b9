"""A Space with a storage bucket: its process is killed, its disk is lost, and its ratings are there again."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from gradio_client import Client

from app.storage.snapshots import snapshots_in
from tests import copies
from tests.browser.serving import ROOT, free_port
from tests.conftest import Tiny


@contextmanager
def space(config: Path, disk: Path, bucket: Path) -> Iterator[str]:
    """The address of the app as on a Space with a disk of its own, until the block is left, where it is killed."""
    disk.mkdir()
    port = free_port()
    own = {"SPACE_ID": "me/desk", "MIXDESK_BUCKET": str(bucket), "XDG_CACHE_HOME": str(disk), "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **own}
    command = [sys.executable, "-m", "app", "--config", str(config), "--port", str(port)]
    with (disk / "log").open("w") as log:
        process = copies.start(command, disk, environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (disk / "log").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def ratings_in(db: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(db)) as connection:
        return connection.execute("select id, choice from ratings").fetchall()


def test_ratings_outlive_a_killed_process_and_its_disk(tiny: Tiny, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    with space(tiny.config, tmp_path / "first", bucket) as url:
        client = Client(url, verbose=False, analytics_enabled=False, download_files=False)
        left, right = (client.predict("mix", max_new_tokens=4, seed=seed, api_name="/generate") for seed in (1, 2))
        pair = {"left": left["id"], "right": right["id"]}
        rated = client.predict(**pair, choice="left", annotator="anna", rating_id="mine", api_name="/rate")
        assert rated["new"]
        deadline = time.monotonic() + 30
        while not any(ratings_in(path) for _, path in snapshots_in(bucket)):
            assert time.monotonic() < deadline, "no snapshot has the rating"
            time.sleep(0.1)
    assert "lost when this Space restarts" not in (tmp_path / "first" / "log").read_text()
    shutil.rmtree(tmp_path / "first")
    with space(tiny.config, tmp_path / "second", bucket) as url:
        assert ratings_in(tmp_path / "second" / "mixdesk.db") == [("mine", "left")]
    assert "The database is that of mixdesk-0000000" in (tmp_path / "second" / "log").read_text()
