"""`python -m engine serve` as a process, and the examples of its page of the docs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from engine import Engine
from engine.config import DEMO
from engine.remote import EngineError, RemoteEngine
from tests import copies
from tests.conftest import Tiny
from tests.engine.api.conftest import KEY, make_app, serving_api

ROOT = Path(__file__).parent.parent.parent.parent
ONLY = [{"name": "only", "objective": "only", "adapter": "plain"}]
MESSAGES: list[Any] = [{"role": "user", "content": "mix the policies"}]


@contextlib.contextmanager
def served(*options: str, **environment: str) -> Iterator[tuple[copies.Process, str]]:
    command = [sys.executable, "-m", "engine", "serve", "--port", "0", "--json", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    process = copies.start(command, ROOT, env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield process, json.loads(line)["url"]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_it_in_the_middle_of_streams(tiny: Tiny, number: signal.Signals) -> None:
    with served("--config", str(tiny.config)) as (process, url):
        with openai.OpenAI(base_url=url, api_key="x", max_retries=0, timeout=30) as client:
            streams = [
                client.chat.completions.create(model="plain", messages=MESSAGES, n=8, max_tokens=240, stream=True)
                for _ in range(4)
            ]
            for stream in streams:
                next(stream)
            process.send_signal(number)
            with pytest.raises(openai.APIError):
                for stream in streams:
                    list(stream)
        assert process.wait(timeout=30) == 0
        _, errors = process.communicate()
        assert "Traceback" not in errors and len(errors.splitlines()) <= 2, errors


def test_with_keys_it_serves_those_who_have_one(tiny: Tiny) -> None:
    with served("--config", str(tiny.config), "--host", "0.0.0.0", MIXDESK_API_KEYS=KEY) as (_, url):
        assert httpx.get(f"{url}/models").status_code == 401
        found = httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {KEY}", "Host": "box.example"})
        assert found.status_code == 200 and found.json()["data"][1]["id"] == "plain"


def test_several_configurations(tiny: Tiny) -> None:
    other = tiny.write("second.yaml", name="Second one", policies=ONLY, rewards=[])
    with served("--config", str(tiny.config), "--config", str(other)) as (process, url):
        names = [model["id"] for model in httpx.get(f"{url}/models").json()["data"]]
        assert names == ["reference", "plain", "stabilized", "narrow", "second-one/reference", "second-one/only"]
        assert httpx.get(f"{url[:-3]}/readyz").json()["engines"] == {"tiny": "ready", "second-one": "ready"}
        body = {"model": "second-one/only", "prompt": "mix", "max_tokens": 4, "seed": 3}
        text = httpx.post(f"{url}/completions", json=body).json()["choices"][0]["text"]
        assert text == httpx.post(f"{url}/completions", json={**body, "model": "plain"}).json()["choices"][0]["text"]
        for address, policies in {
            url[:-3]: ["plain", "stabilized", "narrow"],
            f"{url[:-3]}/tiny": ["plain", "stabilized", "narrow"],
            f"{url[:-3]}/second-one": ["only"],
        }.items():
            with RemoteEngine(address) as engine:
                assert list(engine.policy_set.names) == policies
                assert engine.generate("mix", max_new_tokens=3).tokens
        with pytest.raises(EngineError, match="there is no engine at"):
            RemoteEngine(f"{url[:-3]}/third")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_mistakes_are_one_line(tiny: Tiny) -> None:
    def run(*options: str, **environment: str) -> tuple[int, str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        done = copies.run([sys.executable, "-m", "engine", "serve", *options], ROOT, env)
        return done.returncode, done.stderr

    status, errors = run(MIXDESK_API_KEYS="short")
    assert status == 2 and errors == "error: MIXDESK_API_KEYS: a key has 5 characters; give 16 or more\n"
    with served("--config", str(tiny.config)) as (_, url):
        status, errors = run("--port", str(httpx.URL(url).port))
        assert status == 2 and errors.count("\n") == 1 and "cannot listen on 127.0.0.1" in errors


def test_the_python_of_the_page_runs(capsys: pytest.CaptureFixture) -> None:
    page = (ROOT / "docs" / "openai_api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    with Engine.from_config(DEMO) as engine, serving_api(make_app(engine).routes) as url:
        exec(example.replace("http://127.0.0.1:8000/v1", url), {})
    assert len(capsys.readouterr().out.split()) > 20


def test_the_harness_reads_the_model_arguments_of_the_page() -> None:
    utils = pytest.importorskip("lm_eval.utils")
    page = (ROOT / "docs" / "openai_api.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"'(base_url=.*)'", page)
    found = utils.simple_parse_args_string(line)
    assert found["model"] == "helpful=0.6;humorous=0.4" and found["base_url"].endswith("/v1/completions")
