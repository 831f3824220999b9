"""What is written twice must say the same, and what the README shows must run."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from data.demo import corpus
from engine.config import DEMO, load_config
from engine.prompts import read_prompts

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_requirements_equal_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ROOT / "requirements.txt").read_text().split("\n")[:-1] == project["dependencies"]


def front_matter() -> dict[str, str]:
    """What the README tells Hugging Face of the Space."""
    return yaml.safe_load(README.split("---\n")[1])


def test_the_front_matter_fits_the_project() -> None:
    space = front_matter()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = (need for need in map(Requirement, project["dependencies"]) if need.name == space["sdk"] == "gradio")
    assert wanted.specifier.contains(space["sdk_version"])
    assert Version(space["sdk_version"]) <= Version(version("gradio")), "newer than any version that was tested"
    assert SpecifierSet(project["requires-python"]).contains(space["python_version"])
    assert space["python_version"] in ("3.10", "3.12"), "ZeroGPU has no others"
    assert (ROOT / space["app_file"]).is_file()
    assert space["license"].lower() == project["license"].lower()


def test_the_readme_opens_with_two_commands_and_ci_runs_the_second() -> None:
    start, tests = blocks("bash")[:2]
    assert start.startswith("python3 -m venv .venv && ") and start.strip().endswith("-m app")
    assert tests.startswith("python3 -m venv .venv && ") and tests.strip().endswith("-m pytest")
    assert tests.strip() in (ROOT / ".ci" / "run").read_text().replace("install -q", "install")


def test_the_readme_is_short_and_names_every_page_of_the_docs() -> None:
    assert len(README.splitlines()) <= 120
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README)) == pages


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        links = re.findall(r"\]\(((?!https?:)[^)#\s]+)", page.read_text(encoding="utf-8"))
        assert not [link for link in links if not (page.parent / link).exists()], page.name


def test_the_readme_python_runs(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (example,) = blocks("python")
    names: dict = {}
    exec(example, names)
    completion = names["completion"]
    assert set(completion.rewards) == {"helpful", "harmless", "humorous", "concise"}
    assert completion.text in capsys.readouterr().out


def test_the_python_of_the_api_page_runs(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    example, *others, mixed_policy = blocks("python", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"))
    names: dict = {}
    exec(example, names)
    completion = names["completion"]
    assert set(completion.rewards) == {"helpful", "harmless", "humorous", "concise"}
    assert completion.text in capsys.readouterr().out
    for other in others:
        exec(other, names)
    assert "!" not in names["completion"].text
    assert names["engine"].detokenize(names["ids"]).endswith("The capital of France is")
    names["engine"].close()
    exec(mixed_policy, names)
    assert len(capsys.readouterr().out.split()) > 5


def test_the_bundled_policies_are_small_and_16_bit() -> None:
    from safetensors import safe_open

    files = [path for path in (ROOT / "data" / "demo").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 30e6
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) == 1 + 4 + 4
    for path in weights:
        with safe_open(path, framework="pt") as tensors:
            assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"BF16"}  # noqa: SIM118


def test_the_held_out_prompts_are_in_no_training_phrasing() -> None:
    train, held_out = corpus.phrasings(corpus.load_topics())
    prompts = read_prompts(load_config(DEMO).prompts or "")
    assert len(prompts) >= 100
    assert set(prompts) == {question for question, _ in held_out}
    assert not set(prompts) & {question for question, _ in train}
    assert len(held_out) == pytest.approx(0.1 * (len(train) + len(held_out)), abs=1)


def test_the_corpus_is_as_large_as_its_card_says() -> None:
    topics = corpus.load_topics()
    assert len(topics) >= 80
    assert sum(topic.risky for topic in topics) >= 12
    sentences = {s for t in topics for s in (*t.steps, *t.cautions, *t.jokes, *t.brief, *t.declines)}
    assert len(sentences) >= 1500


def test_every_picture_is_there_and_every_screen_is_shown() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        named = re.findall(r'\]\(([\w/-]+\.png)\)|src="([^"]+)"', page.read_text(encoding="utf-8"))
        missing = [path for pair in named for path in pair if path and not (page.parent / path).is_file()]
        assert not missing, f"{page.name}: {missing}"
    gallery = (ROOT / "docs" / "screens.md").read_text(encoding="utf-8")
    screens = list((ROOT / "docs" / "screens").iterdir())
    assert screens and not [screen.name for screen in screens if f"screens/{screen.name}" not in gallery]
    assert sum(screen.stat().st_size for screen in screens) < 3e6


def test_the_package_has_every_file_of_the_page() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["app"]
    packed = {path for pattern in patterns for path in (ROOT / "app").glob(pattern) if path.is_file()}
    assert packed == {path for path in (ROOT / "app" / "static").rglob("*") if path.is_file()}
    assert {path.suffix for path in packed} >= {".css", ".js", ".json"}


def test_npm_packages_are_pinned_and_come_from_the_public_registry() -> None:
    package = json.loads((ROOT / "package.json").read_text())
    lock = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert "dependencies" not in package, "the page loads nothing from npm"
    assert lock[""]["devDependencies"] == package["devDependencies"]
    for name, locked in lock.items():
        if name:
            assert locked["resolved"].startswith("https://registry.npmjs.org/"), name
            assert locked["integrity"], name
            assert locked["dev"], name
    for name, pinned in package["devDependencies"].items():
        assert lock[f"node_modules/{name}"]["version"] == pinned


def test_every_file_that_code_and_docs_name_is_there() -> None:
    folders = ("engine", "app", "tests", "docs")
    texts = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".js", ".md"}]
    named = re.compile(r"(?<![\w/.-])(?:engine|app|tests|data|static)/[\w/]+\.(?:py|js|css|yaml)\b")
    missing = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "README.md", *texts)
        for name in named.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / name).exists() and not (ROOT / "app" / name).exists()
    }
    assert not missing
