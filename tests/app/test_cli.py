from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_export_prints_one_json_object(store, completion, tmp_path, capsys):
    store.rate("r", completion(), completion("b"), "left", "anna")
    arguments = ["export", "--db", str(store.path), "--format", "trl", "--out", str(tmp_path / "o.jsonl"), "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "--db", "{tmp}/missing.db", "--out", "{tmp}/o"], "no such database"),
        (["export", "--db", "{tmp}/missing.db", "--format", "xml", "--out", "{tmp}/o"], "--format"),
        (["export", "--db", "{tmp}/missing.db"], "--out"),
        (["--config", "{tmp}/missing.yaml", "--db", "{tmp}/a.db"], "no such file"),
        (["--port", "many"], "--port"),
        (["--port", "70000"], "--port"),
        (["--db", "{tmp}"], "cannot use it as the database"),
        (["--colour", "red"], "--colour"),
        (["serve"], "serve"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, says, tmp_path, capsys):
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert says in said.err
    assert not (tmp_path / "missing.db").exists()


def test_a_port_in_use_is_a_mistake(tiny, tmp_path, listening, capsys):
    arguments = ["--config", str(tiny.config), "--port", str(listening), "--db", str(tmp_path / "a.db")]
    assert main(arguments) == 2
    assert "--port" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["PORT", "GRADIO_SERVER_PORT"])
def test_the_port_may_come_from_the_environment(name, tiny, tmp_path, listening, capsys, monkeypatch):
    monkeypatch.setenv(name, str(listening))
    assert main(["--config", str(tiny.config), "--db", str(tmp_path / "a.db")]) == 2
    assert f"cannot listen on 127.0.0.1:{listening}" in capsys.readouterr().err


def test_the_configuration_may_come_from_the_environment(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MIXDESK_CONFIG", str(tmp_path / "chosen.yaml"))
    assert main(["--db", str(tmp_path / "a.db")]) == 2
    assert f"{tmp_path / 'chosen.yaml'}: no such file" in capsys.readouterr().err


def test_the_file_runs_by_its_path(tmp_path):
    """As Hugging Face Spaces runs it."""
    ended = subprocess.run(
        [sys.executable, "app/__main__.py", "export", "--db", str(tmp_path / "no.db"), "--out", "o"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
