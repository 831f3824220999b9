from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from urllib.error import HTTPError

import pytest

from app.server.startup_page import answering
from engine.listening import bind_address

ROOT = Path(__file__).parents[3]


def ask(url: str, method: str = "GET", accept: str = "*/*") -> tuple[int, dict[str, str], str]:
    """Status, headers and body. Raises OSError where nothing answers."""
    request = urllib.request.Request(url, method=method, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except HTTPError as answer:
        with answer:
            return answer.code, dict(answer.headers), answer.read().decode()


def asked(process: subprocess.Popen[str], url: str) -> Iterator[tuple[int, str]]:
    """All answers until the desk's first, or the process's end: status and text, of a connection that failed 0."""
    while process.poll() is None:
        try:
            status, _, text = ask(url)
        except OSError as error:
            status, text = 0, str(error)
        yield status, text
        if status == 200:
            return
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path):
    """`python -m app` with these arguments."""
    processes = []

    def begin(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        listener = bind_address("127.0.0.1", 0)
        port = listener.getsockname()[1]
        listener.close()
        command = [sys.executable, "-m", "app", "--port", str(port), "--db", str(tmp_path / "a.db"), *arguments]
        env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process, f"http://127.0.0.1:{port}"

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_every_request_is_told_to_come_again():
    listener = bind_address("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/any/thing?load=other"
    with listener, answering(listener) as tell:
        tell("loading the policy <b>")
        for method in ("GET", "POST", "HEAD", "OPTIONS"):
            status, headers, text = ask(url, method)
            assert (status, headers["Retry-After"], headers["Cache-Control"]) == (503, "1", "no-store")
            words = "" if method == "HEAD" else r"Mixdesk is starting: loading the policy <b>\. \d+ s\n"
            assert re.fullmatch(words, text)
        _, headers, page = ask(url, accept="text/html,*/*;q=0.8")
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert "loading the policy &lt;b&gt;." in page


def test_a_host_sees_that_the_process_answers_and_is_not_ready() -> None:
    listener = bind_address("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener, answering(listener):
        status, headers, text = ask(f"{url}/healthz")
        assert (status, text, headers.get("Retry-After")) == (200, "ok\n", None)
        assert ask(f"{url}/readyz")[0] == ask(f"{url}/healthz/x")[0] == 503


def test_who_asks_between_two_servers_waits_for_the_second():
    listener = bind_address("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener:
        with answering(listener):
            assert ask(url)[0] == 503
        with pytest.raises(TimeoutError):  # not: ConnectionRefusedError
            urllib.request.urlopen(url, timeout=0.3)
        with answering(listener):
            assert ask(url)[0] == 503


def test_the_port_never_refuses_again(tiny, start):
    process, url = start("--config", str(tiny.config))
    answers = list(dropwhile(lambda answer: answer[0] == 0, asked(process, url)))
    assert {status for status, _ in answers} == {503, 200}, answers
    assert "importing the libraries" in answers[0][1]
    assert "gradio" in answers[-1][1]


def test_a_mistake_found_while_loading_ends_the_app_as_ever(tiny, start):
    process, url = start("--config", str(tiny.write("lost.yaml", base="nowhere")))
    assert 503 in [status for status, _ in asked(process, url)]
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert len(said.splitlines()) == 1, said
    assert said.startswith("error: ")


def test_another_sites_name_shows_no_progress() -> None:
    listener = bind_address("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with listener, answering(listener, lambda host: host.startswith("127.0.0.1")):
        assert ask(url)[0] == 503
        request = urllib.request.Request(url, headers={"Host": "evil.example"})
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 421
