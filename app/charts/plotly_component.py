"""Plotly figures on the page, drawn in place: a value that changes moves what is there, where gr.Plot would begin anew
and flicker."""

from __future__ import annotations

import gzip
import importlib.resources
import json
from functools import lru_cache
from html import escape
from importlib.metadata import version
from typing import Any

import gradio as gr
import plotly.graph_objects as go
from fastapi import FastAPI, Request, Response

KEYS = "Left and right: efficient points by a reward; up and down: by another; Enter: its weights to the faders."


def figure(value: go.Figure | dict[str, Any] | None, elem_id: str, label: str, points: bool = False) -> gr.HTML:
    """A figure; its later values are `drawn(figure)`. It triggers `select` when a point is clicked.

    points: they can be chosen, from the keyboard too (static/js/explore.js); otherwise it is an image.
    """
    role = f'role="application" tabindex="0" aria-description="{KEYS}"' if points else 'role="img"'
    shown = f"() => mixdesk.figure({json.dumps(elem_id)}, element, props.value, () => trigger('select'))"
    return gr.HTML(
        plotted(value),
        html_template=f'<div class="figure" {role} aria-label="{escape(label)}"></div>',
        js_on_load=f"const show = {shown}; watch('value', show); show();",
        apply_default_css=False,
        elem_id=elem_id,
    )


def plotted(value: go.Figure | dict[str, Any] | None) -> str:
    """value: plotly's, or as plotly.js takes it."""
    if isinstance(value, dict):
        return json.dumps(value)
    return "" if value is None else str(value.to_json())


@lru_cache
def library() -> bytes:
    """plotly.js as plotly's package has it, packed: nothing is fetched from elsewhere."""
    source = importlib.resources.files("plotly") / "package_data" / "plotly.min.js"
    return gzip.compress(source.read_bytes(), 6)


def serve_library(app: FastAPI) -> None:
    """Serve plotly.min.js, which browsers keep until plotly's version changes."""
    tag = f'"{version("plotly")}"'

    @app.get("/plotly.min.js")
    def plotly(request: Request) -> Response:
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(library(), media_type="text/javascript", headers={**headers, "Content-Encoding": "gzip"})
