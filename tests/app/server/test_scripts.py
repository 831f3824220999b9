"""The page's scripts: served as modules, named in the page before Gradio's, with one table of shortcuts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import gradio.routes
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.server.scripts import load_scripts, scripts_version, serve_scripts
from app.ui.shortcuts import labelled, load_shortcuts


def client() -> TestClient:
    app = FastAPI()
    serve_scripts(app)
    return TestClient(app)


def test_every_import_names_a_module_that_is_served() -> None:
    scripts = load_scripts()
    browser = client()
    for name, text in scripts.items():
        answer = browser.get(f"/js/{scripts_version()}/{name}")
        assert answer.content == text
        assert answer.headers["content-type"].startswith("text/javascript")
        assert "immutable" in answer.headers["cache-control"]
        for target in re.findall(r'^import .* from "(.*)";$', text.decode(), flags=re.MULTILINE):
            assert target.startswith("."), f"{name} imports {target}"
            folder = Path("/", name).parent
            assert (folder / target).resolve().relative_to("/").as_posix() in scripts, f"{name} imports {target}"


def test_another_version_or_name_is_not_found() -> None:
    browser = client()
    assert browser.get("/js/0123456789abcdef/main.js").status_code == 404
    assert browser.get(f"/js/{scripts_version()}/other.js").status_code == 404
    assert browser.get(f"/js/{scripts_version()}/%2e%2e/shortcuts.json").status_code == 404


def test_the_page_has_the_scripts_before_gradios() -> None:
    """Fails where a new version of Gradio builds its page otherwise."""
    client()
    environment = gradio.routes.templates.env
    source, _, _ = environment.loader.get_source(environment, "frontend/index.html")  # type: ignore[union-attr]
    modules = re.findall(r'<script type="module"[^>]* src="([^"]+)"', source)
    assert modules[0] == f"js/{scripts_version()}/main.js"
    assert len(modules) == 2 and "/assets/" in modules[1]
    (table,) = re.findall(r'id="mixdesk-shortcuts">(.*?)</script>', source)
    assert json.loads(table) == load_shortcuts()
    preloaded = re.findall(r'rel="modulepreload" href="([^"]+)"', source)
    assert preloaded == [f"js/{scripts_version()}/{name}" for name in load_scripts()]


def test_no_two_shortcuts_press_the_same_button() -> None:
    shortcuts = [shortcut for group in load_shortcuts().values() for shortcut in group]
    buttons = Counter(button for one in shortcuts for button in (*one.get("press", ()), *one.get("buttons", ())))
    assert not [button for button, count in buttons.items() if count > 1]
    keys = {"shown", "help", "key", "ctrl", "shift", "press", "focus", "id", "buttons"}
    assert all("shown" in shortcut and set(shortcut) <= keys for shortcut in shortcuts)
    assert labelled("Balance", "balance") == "Balance (B)"
