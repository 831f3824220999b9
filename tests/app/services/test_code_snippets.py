"""What is copied is run, and makes the tokens that the desk makes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from app.services.app_state import Desk
from app.services.code_snippets import FORMS, Recipe, as_command, as_python, as_yaml
from engine import Engine, InputError, Sampling
from engine.config import DEMO
from tests.conftest import Tiny

ROOT = Path(__file__).parents[3]
PROMPT = "It's \"the\" $HOME `id` $(id) \\ !\nfox; # über 你好 <b> %s {0}\t' --"
RECIPES = {
    "geometric": {"weights": {"plain": 0.9, "stabilized": 0.37, "narrow": 0.0}, "gain": 1.4},
    "power": {"weights": {"plain": 0.1 + 0.2, "stabilized": 1e-05, "narrow": 1.0}, "rule": "power", "exponent": -0.5},
}


TURNS = [
    {"role": "user", "content": "It's a \0 and a % and \\n"},
    {"role": "assistant", "content": 'über\n"quoted" $HOME'},
    {"role": "user", "content": PROMPT},
]


@pytest.fixture(params=[*RECIPES, "conversation"])
def recipe(request, tiny: Tiny) -> Recipe:
    settings = {"rule": "geometric", "gain": 1.0, "exponent": 1.0, **RECIPES.get(request.param, RECIPES["geometric"])}
    sampling = Sampling(max_new_tokens=12, temperature=0.7, min_p=0.05)
    prompt = TURNS if request.param == "conversation" else PROMPT
    return Recipe(prompt, **settings, sampling=sampling, seed=20, config=tiny.config)


@pytest.fixture
def tokens(recipe: Recipe, store, tiny_engine: Engine) -> list[int]:
    """As the desk generates them."""
    mixture = tiny_engine.mixture(recipe.weights, recipe.rule, recipe.gain, recipe.exponent)
    other = tiny_engine.mixture({"reference": 1.0})
    run = Desk(tiny_engine, store).start(
        "me", recipe.prompt, {"left": mixture, "right": other}, recipe.sampling, recipe.seed
    )
    return run.responses["left"].request.completion().tokens


def test_the_python_makes_the_same_tokens(recipe, tokens):
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(as_python(recipe), names)
    assert names["completion"].tokens == tokens
    assert names["completion"].text in output.getvalue()


def test_the_command_line_makes_the_same_tokens(recipe, tokens):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = as_command(recipe).rstrip("\n") + " --json"
    made = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "HOME": "/nowhere"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    completion = json.loads(made.stdout)
    assert completion["prompt"] == recipe.prompt
    assert completion["tokens"] == tokens


def test_the_yaml_has_the_settings_of_generate(recipe, tokens, tiny_engine):
    assert tiny_engine.generate(**yaml.safe_load(as_yaml(recipe))).tokens == tokens


def test_the_bundled_configuration_need_not_be_named():
    recipe = Recipe("-v", {"helpful": 0.5}, "geometric", 1.0, 1.0, Sampling(), 3, DEMO.resolve())
    assert "Engine.from_config()" in as_python(recipe)
    assert as_command(recipe) == (
        "python -m engine generate --prompt=-v --weights helpful=0.5 --rule geometric --max-new-tokens 80 "
        "--temperature 0.7 --seed 3\n"
    )


def test_a_configuration_is_named_from_where_the_app_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, named in (
        (tmp_path.resolve() / "configs", "configs/own.yaml"),
        (Path("/elsewhere"), "/elsewhere/own.yaml"),
    ):
        recipe = Recipe("mix", {"helpful": 0.5}, "geometric", 1.0, 1.0, Sampling(), 3, folder / "own.yaml")
        assert f"from_config('{named}')" in as_python(recipe)
        assert as_command(recipe).endswith(f" --config {named}\n")


def test_a_prompt_that_no_command_line_holds_is_told():
    recipe = Recipe("a\0b", {"helpful": 0.5}, "geometric", 1.0, 1.0, Sampling(), 3, DEMO.resolve())
    with pytest.raises(InputError, match="NUL"):
        as_command(recipe)
    assert yaml.safe_load(as_yaml(recipe))["prompt"] == "a\0b"


STOPS = ("\n\n", "-x", 'It\'s "$HOME"', "a\tb", " c ")


def test_stop_strings_are_copied(tiny: Tiny, tiny_engine: Engine):
    sampling = Sampling(max_new_tokens=12, temperature=0.7, stop=STOPS)
    recipe = Recipe("mix", {"plain": 1.0}, "geometric", 1.0, 1.0, sampling, 3, tiny.config)
    words = shlex.split(as_command(recipe))
    given = [words[i + 1] if word == "--stop" else word for i, word in enumerate(words) if word.startswith("--stop")]
    assert [word.removeprefix("--stop=") for word in given] == list(STOPS)
    assert tuple(yaml.safe_load(as_yaml(recipe))["stop"]) == STOPS
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(as_python(recipe), names)
    assert names["completion"].sampling == sampling
    nothing = Recipe("mix", {"plain": 1.0}, "geometric", 1.0, 1.0, Sampling(stop=("a\0",)), 3, tiny.config)
    with pytest.raises(InputError, match="stop: it holds a NUL"):
        as_command(nothing)


def test_every_prompt_survives_yaml_and_python():
    for prompt in ("yes", "1e3", "- a: b", " leading", "\u2028\x85\r\n", "'''", "\\N{BULLET}", "{x!r}"):
        recipe = Recipe(prompt, {"helpful": 0.5}, "geometric", 1.0, 1.0, Sampling(), 3, DEMO.resolve())
        assert yaml.safe_load(as_yaml(recipe))["prompt"] == prompt
        assert repr(prompt) in FORMS["Python"](recipe)
