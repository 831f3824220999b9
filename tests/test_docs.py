"""The examples of the documentation run, its commands parse, and the code and headings that it names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from app.__main__ import cli as app_commands
from engine.cli.main import app as engine_commands
from engine.config import Config

ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
GROUPS: dict[str, Any] = {
    "engine": typer.main.get_command(engine_commands),
    "app": typer.main.get_command(app_commands),
}


def code_blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language; a block inside a list item is indented."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGES[page], flags=re.DOTALL | re.MULTILINE)


def documented_commands() -> list[str]:
    """Return every `python -m engine ...` and `python -m app ...` of the code blocks, from the package's name on."""
    lines = [line for page in PAGES for block in code_blocks(page, "bash") for line in block.splitlines()]
    return sorted({found for line in lines for found in re.findall(r"python -m ((?:engine|app)\b.*)", line)})


def slugs(page: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", PAGES[page], flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("line", documented_commands())
def test_every_command_of_the_docs_parses(line: str) -> None:
    package, *arguments = shlex.split(line, comments=True)
    group = GROUPS[package]
    if arguments and arguments[0] in group.commands:
        name, *arguments = arguments
        group.commands[name].make_context(name, arguments)
    else:
        group.make_context(package, arguments)


def test_the_docs_show_every_command() -> None:
    used = {tuple(line.split()[:2]) for line in documented_commands()}
    assert not [name for name in GROUPS["engine"].commands if ("engine", name) not in used]


def test_the_example_of_a_configuration_is_valid() -> None:
    (example,) = code_blocks("configuration.md", "yaml")
    config = Config.model_validate(yaml.safe_load(example))
    assert len(config.policies) == 4
    assert {reward.kind for reward in config.rewards} == {"classifier", "head", "function", "implicit"}


def test_the_numbers_of_the_rules_are_those_that_are_printed(capsys: pytest.CaptureFixture) -> None:
    (example,) = code_blocks("methods.md", "python")
    expected = [re.findall(r"\d\.\d{4}", line.partition("#")[2]) for line in example.splitlines() if "print(" in line]
    exec(example, {})
    printed = [re.findall(r"\d\.\d{4}", line) for line in capsys.readouterr().out.splitlines()]
    assert len(expected) == 4 and printed == expected


@pytest.mark.parametrize("page", ["methods.md", "statistics.md"])
def test_the_code_that_methods_names_is_there(page: str) -> None:
    text = " ".join(PAGES[page].split())
    named = re.findall(r"((?:`\w+`(?:, | and )?)+) in `((?:engine|app|data)/[\w/]+\.py)`", text)
    assert named and len(named) == len(re.findall(r" in `(?:engine|app|data)/", text))
    for names, file in named:
        source = (ROOT / file).read_text(encoding="utf-8")
        for name in re.findall(r"\w+", names.replace(" and ", " ")):
            defined = rf"^\s*(?:def|class) {name}\b|^\s*{name} ?[:=]"
            assert re.search(defined, source, flags=re.MULTILINE), f"{file} does not define {name}"


def test_every_link_to_a_heading_leads_to_one() -> None:
    links = [(page, *link) for page in PAGES for link in re.findall(r"\]\(([\w-]+\.md)#([\w-]+)\)", PAGES[page])]
    assert links and not [link for link in links if link[2] not in slugs(link[1])]
