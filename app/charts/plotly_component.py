"""Plotly figures that are updated in place, where gr.Plot would redraw them from scratch and flicker."""

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
    """Return a component that shows a figure; update it with values from `plotted`.

    It triggers `select` when a point is clicked.

    Args:
        value: The initial figure: plotly's, a dict as plotly.js takes it, or None.
        elem_id: The component's element id.
        label: Accessible name.
        points: Whether points can be selected, by mouse and keyboard (static/js/explore.js). Otherwise the figure
            has the role of an image.
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
    """Return a figure (plotly's, or a dict as plotly.js takes it) as JSON; "" for None."""
    if isinstance(value, dict):
        return json.dumps(value)
    return "" if value is None else str(value.to_json())


@lru_cache
def library() -> bytes:
    """Return plotly.js from plotly's package, gzipped; the page loads nothing from other hosts."""
    source = importlib.resources.files("plotly") / "package_data" / "plotly.min.js"
    return gzip.compress(source.read_bytes(), 6)


def serve_library(app: FastAPI) -> None:
    """Add the route that serves plotly.js, with plotly's version as its ETag."""
    tag = f'"{version("plotly")}"'

    @app.get("/plotly.min.js")
    def plotly(request: Request) -> Response:
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(library(), media_type="text/javascript", headers={**headers, "Content-Encoding": "gzip"})
