"""The command line as its users run it: real processes, exit codes, one line an error; most mistakes are made in this
process, which has torch imported already."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transformers.utils import logging as transformers_logging

from engine.cli.main import app
from engine.cli.runner import run as run_here
from tests import copies
from tests.conftest import Tiny

ROOT = Path(__file__).parents[3]


def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess:
    return copies.run([sys.executable, "-m", "engine", *arguments], ROOT, stdin=stdin)


def run_from_scratch(*arguments: str) -> subprocess.CompletedProcess:
    """Run it in a process that imports the libraries itself, as a user's does."""
    command = [sys.executable, "-m", "engine", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)


@pytest.fixture
def mistake(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., str]]:
    """Of a command line that ends with 2: the one line that a process of its own would have written."""
    transformers_logging.disable_progress_bar()  # `run` does it for a process that has not imported transformers yet

    def mistake(*arguments: str) -> str:
        assert run_here(app, "python -m engine", list(arguments)) == 2
        found = capfd.readouterr()
        assert found.out == ""
        assert not caplog.records  # they would be on stderr too
        (line,) = found.err.strip().splitlines()
        return line

    yield mistake
    transformers_logging.enable_progress_bar()


def test_generate_json_is_one_object_and_repeats(tiny: Tiny) -> None:
    arguments = ["generate", "--config", str(tiny.config), "--prompt", "mix", "--weights", "plain=0.6,narrow=0.2"]
    arguments += ["--max-new-tokens", "9", "--temperature", "0.8", "--seed", "4", "--json"]
    first, second = run(*arguments), run(*arguments)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert found == json.loads(second.stdout)
    assert found["mixture"]["weights"] == pytest.approx({"plain": 0.75, "stabilized": 0.0, "narrow": 0.25})
    assert set(found["rewards"]) == {"plain", "narrow"}
    assert len(found["tokens"]) <= 9 and found["seed"] == 4
    assert found["log_normaliser"] is None


def test_generate_from_the_exact_mixture(tiny: Tiny, mistake: Callable[..., str]) -> None:
    arguments = ["generate", "--config", str(tiny.config), "--prompt", "mix", "--max-new-tokens", "6", "--json"]
    found = json.loads(run(*arguments, "--particles", "8").stdout)
    assert found["sampling"]["particles"] == 8
    assert found["log_normaliser"] < 0
    assert mistake(*arguments, "--particles", "8", "--temperature", "0").endswith(
        "give a temperature above 0, or 1 particle"
    )


def test_generate_writes_the_text(tiny: Tiny) -> None:
    arguments = ["generate", "--config", str(tiny.config), "--prompt", "mix", "--max-new-tokens", "9"]
    plain, as_json = run_from_scratch(*arguments), run(*arguments, "--json")
    assert plain.returncode == 0
    assert plain.stdout == json.loads(as_json.stdout)["text"] + "\n"
    assert plain.stderr.strip().startswith("rewards: ")


def test_generate_ends_before_a_stop_string(tiny: Tiny) -> None:
    arguments = ["generate", "--config", str(tiny.config), "--prompt", "mix", "--max-new-tokens", "20", "--seed", "2"]
    whole = json.loads(run(*arguments, "--json").stdout)["text"]
    stop = whole[8:11]
    given = ["--stop", "never said", "--stop", stop]
    found = json.loads(run(*arguments, *given, "--json").stdout)
    assert (found["text"], found["finish_reason"]) == (whole[: whole.index(stop)], "stop_string")
    assert found["sampling"]["stop"] == ["never said", stop]
    assert run(*arguments, *given).stdout == found["text"] + "\n"


def test_score(tiny: Tiny) -> None:
    found = run("score", "--config", str(tiny.config), "--prompt", "mix", "--response", "the lazy dog", "--json")
    scores = json.loads(found.stdout)
    assert set(scores["log_probs"]) == {"reference", "plain", "stabilized", "narrow"}
    for name, values in scores["token_log_probs"].items():
        assert scores["log_probs"][name] == pytest.approx(sum(values))
    assert scores["rewards"]["narrow"] == -3


def test_evaluate(tiny: Tiny, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("mix\nmove the faders\n\nthe quick brown fox\n")
    arguments = ["evaluate", "--config", str(tiny.config), "--prompts", str(prompts), "--max-new-tokens", "6", "--json"]
    found = json.loads(run(*arguments).stdout)
    assert found["n_prompts"] == 3
    assert set(found["policies"]) == set(found["sweep"]) == {"plain", "stabilized", "narrow"}
    for policy in found["policies"].values():
        assert set(policy["win_rate_vs_reference"]) == {"plain", "narrow"}
        assert all(0 <= rate <= 1 for rate in policy["win_rate_vs_reference"].values())
    for column in found["sweep"].values():
        assert all(len(means) == 5 for means in column["rewards"].values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", "mix", "--weights", "nobody=1"], "no policy is called 'nobody'"),  # told when models are loaded
        (["--prompt", "mix", "--seed", "some"], "--seed"),  # and when nothing is
    ],
)
def test_a_process_that_was_asked_wrongly_ends_with_2_and_one_line(tiny: Tiny, arguments: list[str], said: str) -> None:
    found = run_from_scratch("generate", "--config", str(tiny.config), *arguments)
    assert found.returncode == 2
    assert found.stdout == ""
    (line,) = found.stderr.strip().splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "--prompt", "mix", "--weights", "plain=0"], "all are zero"),
        (["generate", "--prompt", "mix", "--weights", "plain=nan"], "plain is nan"),
        (["generate", "--prompt", "mix", "--weights", "plain=inf"], "plain is inf"),
        (["generate", "--prompt", "mix", "--weights", "plain=-1"], "cannot be negative"),
        (["generate", "--prompt", "mix", "--weights", "plain"], "expected name=number"),
        (["generate", "--prompt", "mix", "--weights", "plain=1,plain=2"], "plain is given twice"),
        (["generate", "--prompt", ""], "prompt: it is empty"),
        (["generate", "--prompt", "x " * 50_000], "100,000 characters long"),
        (["generate", "--prompt", "mix", "--rule", "alchemy"], "no rule is called 'alchemy'"),
        (["generate"], "give either --prompt TEXT or --messages FILE"),
        (["score", "--response", "mix"], "give either --prompt TEXT or --messages FILE"),
        (["generate", "--prompt", "mix", "--messages", "-"], "give either --prompt TEXT or --messages FILE"),
        (["generate", "--messages", "/nowhere/at.all"], "/nowhere/at.all: No such file"),
        (["generate", "--messages", ""], "a JSON file, a list of messages"),
        (["score", "--prompt", "mix"], "Missing option '--response'"),
        (["score", "--prompt", "mix", "--response", "x " * 50_000], "response's tokens"),
        (["conjure"], "No such command 'conjure'"),
        (["evaluate"], "prompts: found nothing"),
        (["evaluate", "--prompts", "/nowhere/at.all"], "/nowhere/at.all: No such file"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    tiny: Tiny, mistake: Callable[..., str], arguments: list[str], said: str
) -> None:
    config = [] if arguments in (["conjure"],) else ["--config", str(tiny.config)]
    assert said in mistake(*arguments[:1], *config, *arguments[1:])


@pytest.mark.parametrize(("text", "said"), [("name: [", "malformed YAML"), (None, "no such file")])
def test_configuration_mistakes(tmp_path: Path, mistake: Callable[..., str], text: str | None, said: str) -> None:
    file = tmp_path / "bad.yaml"
    if text is not None:
        file.write_text(text)
    line = mistake("generate", "--config", str(file), "--prompt", "mix")
    assert said in line and str(file) in line


def test_prompt_files_with_mistakes_are_named(tiny: Tiny, tmp_path: Path, mistake: Callable[..., str]) -> None:
    file = tmp_path / "prompts.jsonl"
    for text, said in (
        ('{"prompt": "a"}\nnope\n', "line 2: not JSON"),
        ('{"query": "a"}\n', "line 1"),
        ("", "no prompts"),
    ):
        file.write_text(text)
        assert said in mistake("evaluate", "--config", str(tiny.config), "--prompts", str(file))
