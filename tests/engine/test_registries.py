"""A rule, a solver or a kind of reward is one file: the examples of docs/ are found everywhere that lists them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from engine.registry import Registry
from tests import copies
from tests.conftest import Tiny

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages in which the examples were saved as files."""
    folder = tmp_path_factory.mktemp("checkout")
    for package in ("engine", "app"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").symlink_to(ROOT / "data")
    for kind, name in (("rule", "largest"), ("solver", "uniform"), ("reward", "pattern")):
        (example,) = re.findall(r"```python\n(.*?)```", (DOCS / f"add_a_{kind}.md").read_text(), flags=re.DOTALL)
        (folder / "engine" / f"{kind}s" / f"{name}.py").write_text(example)
    return folder


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    done = copies.run([sys.executable, *arguments], folder, environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_they_are_on_the_command_line_and_in_the_list(checkout: Path) -> None:
    listed = json.loads(run(checkout, "-m", "engine", "list", "--json"))
    assert "largest" in [rule["name"] for rule in listed["rules"]]
    assert "uniform" in [solver["name"] for solver in listed["solvers"]]
    prompt = ("--prompt", "How do I boil an egg?", "--max-new-tokens", "8", "--temperature", "0", "--json")
    generated = json.loads(run(checkout, "-m", "engine", "generate", "--rule", "largest", *prompt))
    assert generated["mixture"]["rule"] == "largest" and generated["text"]
    few = ("--limit", "2", "--responses", "6", "--max-new-tokens", "8", "--json")
    solved = json.loads(run(checkout, "-m", "engine", "solve", "--method", "uniform", *few))
    assert solved["method"] == "uniform"
    assert solved["weights"] == pytest.approx(dict.fromkeys(solved["weights"], 0.25))
    assert set(solved["expected"]) == {"helpful", "harmless", "humorous", "concise"}


def test_the_rule_is_among_the_pages_choices(checkout: Path) -> None:
    program = (
        "import gradio as gr\n"
        "from app.ui.controls import build_more\n"
        "with gr.Blocks() as blocks:\n"
        "    build_more(64)\n"
        "print([one.choices for one in blocks.blocks.values() if getattr(one, 'label', '') == 'Rule'])\n"
    )
    assert "('largest', 'largest')" in run(checkout, "-c", program)


@pytest.fixture
def with_patterns(tiny: Tiny) -> Path:
    return tiny.write("pattern.yaml", rewards=[{"objective": "certain", "kind": "pattern", "pattern": "perhaps|maybe"}])


def test_a_reward_of_the_kind_is_computed_and_listed(checkout: Path, with_patterns: Path) -> None:
    listed = json.loads(run(checkout, "-m", "engine", "list", "--json"))
    (kind,) = [kind for kind in listed["rewards"] if kind["name"] == "pattern"]
    assert kind["options"] == {"pattern": "the regular expression to avoid"}
    texts = ("--prompt", "a", "--response", "maybe b, perhaps c, maybe d")
    scored = json.loads(run(checkout, "-m", "engine", "score", "--config", str(with_patterns), *texts, "--json"))
    assert scored["rewards"] == {"certain": -3.0}


def test_a_reward_of_the_kind_is_among_the_pages_choices(checkout: Path, with_patterns: Path, tmp_path: Path) -> None:
    program = (
        "from app.services.app_state import Desk\n"
        "from app.storage.database import Store\n"
        "from app.ui.page import build_page\n"
        "from engine import Engine\n"
        f"with Engine.from_config({str(with_patterns)!r}) as engine:\n"
        f"    blocks = build_page(Desk(engine, Store({str(tmp_path / 'ratings.db')!r})))\n"
        "print([one.label for one in blocks.blocks.values() if 'certain' in str(getattr(one, 'label', ''))])\n"
    )
    assert "certain ≥ σ" in run(checkout, "-c", program)


def test_an_error_in_a_setting_of_the_kind_names_its_key(checkout: Path, tiny: Tiny) -> None:
    rewards = [{"objective": "certain", "kind": "pattern", "pattern": "("}]
    program = f"from engine.config import load_config\nload_config({str(tiny.write('broken.yaml', rewards=rewards))!r})"
    with pytest.raises(AssertionError, match=r"rewards\[0\].pattern: found '\(', expected a regular expression"):
        run(checkout, "-c", program)


def test_the_docs_have_the_lists_tables() -> None:
    tables = run(ROOT, "-m", "engine", "list", "--markdown").strip()
    assert tables in (DOCS / "rules_solvers_rewards.md").read_text(encoding="utf-8")


def test_two_entries_of_one_name_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "twice"
    package.mkdir()
    entry = "from types import SimpleNamespace\nENTRY = SimpleNamespace(name='same', order=1)\n"
    for name in ("__init__", "a", "b"):
        (package / f"{name}.py").write_text(entry if name != "__init__" else "")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="same name: same, same"):
        list(Registry("twice", "ENTRY"))
