"""The page: tabs, engine and store in one gr.Blocks."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from app.controls import Steering
from app.figures import serve_library
from app.header import Menu, build_header
from app.runs import Desk
from app.tabs import desk as desk_tab
from app.tabs import explore

STATIC = Path(__file__).parent / "static"
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace"]


def build(desk: Desk, menu: Menu | None = None) -> gr.Blocks:
    with gr.Blocks(title="Mixdesk", fill_width=True, analytics_enabled=False) as blocks:
        build_header(desk.warning, menu)
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            with gr.Tab("Desk", id="desk", elem_id="desk-tab"):
                faders, status = desk_tab.build(desk)
            with gr.Tab("Explore", id="explore", elem_id="explore-tab") as tab:
                explore.build(desk, tab, Steering(faders, status, tabs))
    return blocks


def web_app(blocks: gr.Blocks, root: str = "") -> FastAPI:
    """The page as an ASGI application. root: where a browser finds it, if that is not /.

    Not Blocks.launch: that asks itself for the page first, and gives up where a busy machine or a proxy is in the way.
    Fonts are the system's: nothing is fetched from elsewhere.
    """
    scripts, styles = (
        "\n".join((STATIC / f"{name}.{kind}").read_text(encoding="utf-8") for name in ("desk", "configurations"))
        for kind in ("js", "css")
    )
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    serve_library(app)
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=gr.themes.Default(primary_hue="violet", neutral_hue="zinc", font=FONTS, font_mono=MONO),
        root_path=root or None,
        css=styles,
        head=f"<script>{scripts}</script>",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
    )
