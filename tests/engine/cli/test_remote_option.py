"""Commands that ask an engine on another machine: `--engine`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine import Engine
from engine.cli.main import app
from engine.cli.runner import run
from engine.remote.routes import EngineRoutes
from tests.conftest import Tiny
from tests.engine.remote.serving import serving


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def results(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(app, "python -m engine", [*arguments, "--json"]) == 0
    found: dict = json.loads(capsys.readouterr().out)
    return found


def test_the_same_results_as_with_the_configuration(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("move the faders\nmix the policies\n")
    commands = [
        ["generate", "--prompt", "move the faders", "--max-new-tokens", "9", "--seed", "4"],
        ["score", "--prompt", "move the faders", "--response", "the quick brown fox"],
        ["solve", "--prompts", str(prompts), "--responses", "5", "--max-new-tokens", "5"],
        ["evaluate", "--prompts", str(prompts), "--max-new-tokens", "3"],
    ]
    with Engine.from_config(tiny.config) as engine, serving(EngineRoutes(engine).routes()) as url:
        for number, command in enumerate(commands):
            found = []
            for place in (["--config", str(tiny.config)], ["--engine", url]):
                # Caches of their own: else the second would find the first one's bank.
                monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache {number} {place[0]}"))
                one = results(capsys, *command, *place)
                found.append({key: value for key, value in one.items() if key not in ("seconds", "bank")})
            assert found[0] == found[1], command[0]


def test_what_is_wrong_is_one_line(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["generate", "--prompt", "a", "--engine", "nowhere"], "--engine: found 'nowhere'; give an address such as"),
        (["generate", "--prompt", "a", "--engine", "http://127.0.0.1:1"], "cannot be reached"),
        (
            ["generate", "--prompt", "a", "--engine", "http://127.0.0.1:1", "--config", str(tiny.config)],
            "--engine: the configuration is that engine's; leave --config out",
        ),
        (["solve", "--engine", "http://127.0.0.1:1", "--ship"], "--ship is for a configuration's files"),
    ):
        assert run(app, "python -m engine", arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
