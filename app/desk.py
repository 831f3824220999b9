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
PARTS = ["desk", "mixer", "sharing"]  # each a script and a style sheet
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace"]


def build(desk: Desk) -> gr.Blocks:
    with gr.Blocks(title="Mixdesk", fill_width=True, analytics_enabled=False) as blocks:
        gr.HTML(f"<header><h1>Mixdesk</h1><p>{TAGLINE}</p></header>", elem_id="top")
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            with gr.Tab("Desk", id="desk", elem_id="desk-tab") as first:
                faders, channels, status = desk_tab.build(desk, first)
            with gr.Tab("Explore", id="explore", elem_id="explore-tab") as second:
                explore.build(desk, second, Steering(faders, channels, status, tabs))
    return blocks


def web_app(blocks: gr.Blocks) -> FastAPI:
    """The page as an ASGI application.

    Not Blocks.launch: that asks itself for the page first, and gives up where a busy machine or a proxy is in the way.
    Fonts are the system's: nothing is fetched from elsewhere.
    """
    scripts, styles = (
        "\n".join((STATIC / f"{name}.{kind}").read_text("utf-8") for name in PARTS) for kind in ("js", "css")
    )
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    serve_library(app)
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=gr.themes.Default(primary_hue="violet", neutral_hue="zinc", font=FONTS, font_mono=MONO),
        css=styles,
        head=f"<script>{scripts}</script>",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
    )
