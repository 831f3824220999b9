"""The web application of one desk: its page and its routes."""

from __future__ import annotations

import gradio as gr
from fastapi import FastAPI

from app.charts.plotly_component import serve_library
from app.server.desk_routes import DeskRoutes
from app.server.scripts import serve_scripts, style_sheets
from app.server.steer import serve_steering
from app.server.stream import serve_text
from app.services.app_state import Desk
from app.storage.export_comparison import serve_exports
from app.ui.page import UPLOAD
from app.ui.theme import theme


def endpoints_of(blocks: gr.Blocks) -> frozenset[str]:
    """Return the names of the page's endpoints for programs; its other handlers are its own."""
    return frozenset(str(fn.api_name) for fn in blocks.fns.values() if fn.fn and fn.api_visibility == "public")


def web_app(blocks: gr.Blocks, desk: Desk, root: str = "") -> FastAPI:
    """Return the page as an ASGI application; `root` is its public path if that is not /.

    Blocks.launch is not used: it requests the page from itself first, and gives up if a busy machine or a proxy
    interferes.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(DeskRoutes, desk=desk, handlers=blocks.fns, endpoints=endpoints_of(blocks))
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
        footer_links=["api"],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
    )
