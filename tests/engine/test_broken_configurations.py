"""A walk over broken configurations: each is exit code 2 and one line that names the file, the key and the mend.

Nothing is asked at the terminal, and no line is another library's heading, which would end in a colon.
"""

from __future__ import annotations

import builtins
import io
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from transformers.utils import logging as transformers_logging

from engine.cli.main import app
from engine.cli.runner import run as run_here
from engine.errors import one_line
from tests import copies
from tests.conftest import Tiny
from tests.engine.broken_texts import TEXTS
from tests.engine.hostile_texts import HOSTILE
from tests.engine.models.broken_models import ADAPTERS, BASES, HUB, POLICIES, PROMPTS, REWARDS, Case

ROOT = Path(__file__).parent.parent.parent
MEND = re.compile(r"; |expected |give |did you mean ")


class Terminal(io.StringIO):
    """A terminal with nobody at it."""

    def read(self, *_: object) -> str:
        raise AssertionError("it waits for input")

    readline = read  # type: ignore[assignment]


@pytest.fixture
def mistake(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Of a command line that ends with 2: its one line."""
    questions: list[str] = []
    monkeypatch.setattr(builtins, "input", lambda text="": questions.append(text) or "")
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # as `run` does where transformers is not imported yet
    transformers_logging.disable_progress_bar()

    def mistake(*arguments: str) -> str:
        status = run_here(app, "python -m engine", list(arguments))
        found = capfd.readouterr()
        assert status == 2, found.err
        assert (found.out, questions) == ("", [])
        assert [record.getMessage() for record in caplog.records] == []  # they would be on stderr too
        (line,) = found.err.strip().splitlines()
        return line

    yield mistake
    transformers_logging.set_verbosity(before)
    transformers_logging.enable_progress_bar()


def check(line: str, said: str, *names: str) -> None:
    """The line has what was expected of it, names these, and says how to mend it."""
    assert said in line
    for name in names:
        assert name in line
    assert line.startswith("error: ")
    assert not line.endswith((":", ": ", ","))
    assert MEND.search(line), line
    assert "Traceback" not in line and len(line) < 1200


@pytest.mark.parametrize("name", [*TEXTS, *HOSTILE])
def test_what_cannot_be_read(name: str, tmp_path: Path, mistake: Callable[..., str]) -> None:
    text, said = {**TEXTS, **HOSTILE}[name]
    for folder in ("base", "plain"):
        (tmp_path / folder).mkdir()
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "loop").symlink_to("loop")
    file = tmp_path / "broken.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    check(mistake("generate", "--config", str(file), "--prompt", "mix"), said, str(file))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ("gone", "no such file"),
        ("folder", "a folder"),
        ("loop", "--config: "),
        ("dangling", "no such file"),
        ("pipe", "not a regular file"),
        ("huge", "1,073,741,824 bytes large"),
        ("x" * 300, "--config: "),
        ("notes.txt/x.yaml", "no such file"),
    ],
)
def test_what_is_no_file(make: str, said: str, tmp_path: Path, mistake: Callable[..., str]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "notes.txt").write_text("notes")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 30)
    named = tmp_path / ("gone" if make == "dangling" else make)
    check(mistake("generate", "--config", str(tmp_path / make), "--prompt", "mix"), said, str(named))


def walk(case: Case, tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict]:
    monkeypatch.syspath_prepend(str(folder))
    settings = {
        "name": "broken",
        "base": str(tiny.base),
        "policies": [{"name": "plain", "objective": "plain", "adapter": str(tiny.adapters["plain"])}],
    }
    settings |= case.make(folder, tiny)
    file = folder / "broken.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file, settings


@pytest.mark.parametrize("case", [*BASES, *ADAPTERS, *POLICIES, *REWARDS, *HUB], ids=lambda case: case.name)
def test_what_cannot_be_loaded(
    case: Case, tiny: Tiny, tmp_path: Path, mistake: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = walk(case, tiny, tmp_path, monkeypatch)
    line = mistake("generate", "--config", str(file), "--prompt", "mix", "--max-new-tokens", "1")
    check(line, case.said, str(file), f" {case.key}")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("case", PROMPTS, ids=lambda case: case.name)
def test_prompts_that_cannot_be_read(
    case: Case, tiny: Tiny, tmp_path: Path, mistake: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, settings = walk(case, tiny, tmp_path, monkeypatch)
    check(mistake("evaluate", "--config", str(file)), case.said, settings["prompts"])


@pytest.mark.parametrize("command", ["engine", "engine offline", "app"])
def test_as_a_process_with_its_input_closed(command: str, tiny: Tiny, tmp_path: Path) -> None:
    settings = {
        "name": "broken",
        "base": str(tiny.base),
        "policies": [{"name": "plain", "objective": "plain", "adapter": str(tiny.adapters["plain"])}],
    }
    arguments, said = ["engine", "generate", "--prompt", "mix", "--config"], "auto_map"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("HF_HUB_OFFLINE", None)
    if command == "engine":
        settings |= next(case for case in BASES if case.name == "code of its own").make(tmp_path, tiny)
    elif command == "app":
        settings |= next(case for case in ADAPTERS if case.name == "no configuration").make(tmp_path, tiny)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            arguments = ["app", "--port", str(free.getsockname()[1]), "--db", str(tmp_path / "db"), "--config"]
        said = "adapter_config.json is missing"
    else:
        settings["base"] = "someone/some-base"
        environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache"), "NO_PROXY": "*"}
        said = "base: 'someone/some-base' is neither a folder nor downloaded"
    file = tmp_path / "broken.yaml"
    file.write_text(yaml.safe_dump(settings))
    done = copies.run([sys.executable, "-m", *arguments, str(file)], tmp_path, environment, timeout=300)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    check(line, said, str(file))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError("Error(s) in loading:\n\tsize mismatch for a.weight: 3\n\n"),
            "Error(s) in loading: size mismatch for a.weight: 3",
        ),
        (ValueError("not to be had because of:\n"), "not to be had because of"),
        (KeyError("model_type"), "KeyError: 'model_type'"),
        (OSError(), "OSError"),
        (ValueError(f"one of {'model, ' * 100}"), f"one of {'model, ' * 55}model ..."),
    ],
)
def test_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line
    assert len(one_line(error)) <= 404
