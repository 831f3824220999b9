"""The page's own scripts and style sheets: ES modules that a browser loads before Gradio's."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse

from app.server.gradio_compat import load_before_gradio
from app.server.versioned_files import IMMUTABLE, digest_of, read_files
from app.ui.shortcuts import load_shortcuts

STATIC = Path(__file__).parents[1] / "static"
SCRIPTS = STATIC / "js"


def style_sheets() -> str:
    """Return all style sheets: the desk's own first, since the others build on it."""
    files = sorted((STATIC / "css").glob("*.css"), key=lambda file: (file.stem != "desk", file.name))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@lru_cache
def load_scripts() -> dict[str, bytes]:
    """Return every module by its path under js/, as an import names it."""
    return read_files(SCRIPTS, {".js"})


@lru_cache
def scripts_version() -> str:
    """Return the digest of all modules."""
    return digest_of(load_scripts())


def script_tags() -> str:
    """Return what goes into the page's head; the addresses are relative, as a page may be at any path."""
    table = json.dumps(load_shortcuts(), ensure_ascii=False).replace("<", "\\u003c")
    folder = f"js/{scripts_version()}"
    return "".join(
        (
            f'<script type="application/json" id="mixdesk-shortcuts">{table}</script>\n',
            *(f'<link rel="modulepreload" href="{folder}/{name}">\n' for name in load_scripts()),
            f'<script type="module" src="{folder}/main.js"></script>\n',
        )
    )


def serve_scripts(app: FastAPI) -> None:
    """Serve the modules, and name them in every page of this process."""
    load_before_gradio(script_tags)

    @app.get("/js/{version}/{name:path}")
    def script(version: str, name: str) -> Response:
        text = load_scripts().get(name)
        if text is None or version != scripts_version():
            return PlainTextResponse("There is no such script: reload the page.\n", 404)
        return Response(text, media_type="text/javascript", headers={"Cache-Control": IMMUTABLE})
