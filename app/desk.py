"""The page: tabs, engine and store in one gr.Blocks."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from app.controls import Steering
from app.figures import serve_library
from app.runs import Desk
from app.tabs import desk as desk_tab
from app.tabs import explore

TAGLINE = "Mix language-model policies while they write, and say which mixture is better."
STATIC = Path(__file__).parent / "static"
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace"]


def build(desk: Desk) -> gr.Blocks:
    with gr.Blocks(title="Mixdesk", fill_width=True, analytics_enabled=False) as blocks:
        gr.HTML(f"<header><h1>Mixdesk</h1><p>{TAGLINE}</p></header>", elem_id="top")
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            with gr.Tab("Desk", id="desk", elem_id="desk-tab"):
                faders, status = desk_tab.build(desk)
            with gr.Tab("Explore", id="explore", elem_id="explore-tab") as tab:
                explore.build(desk, tab, Steering(faders, status, tabs))
    return blocks


def static(ending: str) -> str:
    """All style sheets, or all scripts: the desk's own first, since the others build on it."""
    files = sorted(STATIC.glob(f"*.{ending}"), key=lambda file: (file.stem != "desk", file.name))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def web_app(blocks: gr.Blocks) -> FastAPI:
    """The page as an ASGI application.

    Not Blocks.launch: that asks itself for the page first, and gives up where a busy machine or a proxy is in the way.
    Fonts are the system's: nothing is fetched from elsewhere.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    serve_library(app)
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=gr.themes.Default(primary_hue="violet", neutral_hue="zinc", font=FONTS, font_mono=MONO),
        css=static("css"),
        head=f"<script>{static('js')}</script>",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
    )
