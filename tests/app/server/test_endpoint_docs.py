"""The examples of docs/gradio_api.md run against the bundled desk."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from app.services.app_state import Desk
from app.storage.database import Store
from engine import Engine
from tests.app.server.guarding import LOCAL, app_of
from tests.browser.serving import running

PAGE = (Path(__file__).parents[3] / "docs" / "gradio_api.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_examples_run(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    with Engine.from_config() as engine:
        desk = Desk(engine, Store(tmp_path / "mixdesk.db"))
        with running(app_of(desk, LOCAL)) as (url, _):
            names: dict = {}
            for example in blocks("python"):
                exec(example.replace("http://127.0.0.1:7860", url), names)
            printed = capsys.readouterr().out
            (example,) = blocks("bash")
            script = example.replace("http://127.0.0.1:7860", url)
            called = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=True)
        (pair,) = desk.store.pairs()
        desk.store.close()
    assert pair["choice"] == "right" and [pair[side]["text"] for side in ("left", "right")] == [
        names[side]["text"] for side in ("left", "right")
    ]
    assert names["left"]["text"] in printed and names["part"]["finish_reason"] in ("end", "length")
    assert sum(names["found"]["weights"].values()) == pytest.approx(1)
    assert called.stdout.startswith("event: complete") and '"finish_reason"' in called.stdout


def test_every_endpoint_is_described() -> None:
    named = set(re.findall(r"^\| `/(\w+)` \|", PAGE, flags=re.MULTILINE))
    assert named == {"generate", "stream", "score", "expected_rewards", "solve", "rate", "mixtures"}
