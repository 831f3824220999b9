"""The page: tabs, engine and store in one gr.Blocks."""

from __future__ import annotations

import gradio as gr
from fastapi import FastAPI

from app.export_comparison import serve_exports
from app.figures import serve_library
from app.header import Menu, build_header
from app.runs import Desk
from app.scripts import serve_scripts, style_sheets
from app.shortcuts import labelled
from app.steer import serve_steering
from app.tabs import compare, explore, ratings
from app.tabs import desk as desk_tab
from app.text import serve_text
from app.theme import theme

UPLOAD = "24mb"  # the most that is taken in at all; app and engine say what each kind of file may have


def build(desk: Desk, menu: Menu | None = None) -> gr.Blocks:
    with gr.Blocks(title="Mixdesk", fill_width=True, analytics_enabled=False) as blocks:
        build_header(desk.warning, menu, desk.engine.notes)
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            with gr.Tab(labelled("Desk", "desk-tab"), id="desk", elem_id="desk-tab") as first:
                steering = desk_tab.build(desk, first, tabs)
            with gr.Tab(labelled("Explore", "explore-tab"), id="explore", elem_id="explore-tab") as second:
                explore.build(desk, second, steering)
            with gr.Tab(labelled("Compare", "compare-tab"), id="compare", elem_id="compare-tab") as third:
                compare.build(desk, third, steering)
            with gr.Tab(labelled("Ratings", "ratings-tab"), id="ratings-tab", elem_id="ratings-tab") as fourth:
                ratings.build(desk, fourth, steering)
    # At every event, also a fader's, Gradio's page copies all that any event's progress might be shown on. Here what is
    # under way says so itself.
    for event in blocks.fns.values():
        event.show_progress_on = []
    # Gradio looks a thousand times a second whether an event has come, and a hundred times whether one has progressed.
    # Each look takes Python from the engine.
    blocks._queue.sleep_when_free, blocks._queue.progress_update_sleep_when_free = 0.01, 0.1
    return blocks


def web_app(blocks: gr.Blocks, desk: Desk, root: str = "") -> FastAPI:
    """The page as an ASGI application. root: where a browser finds it, if that is not /.

    Not Blocks.launch: that asks itself for the page first, and gives up where a busy machine or a proxy is in the way.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    serve_library(app)
    serve_scripts(app)
    serve_exports(app, desk.comparisons.tables)
    serve_text(app, desk)
    serve_steering(app, desk)
    # Gradio asks whether a path that a browser names is one of an uploaded file only once it is launched, which what is
    # mounted never is: without this any file of the machine could be named, copied and fetched.
    blocks.has_launched = True
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=theme(),
        root_path=root or None,
        css=style_sheets(),
        max_file_size=UPLOAD,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
    )
