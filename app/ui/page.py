"""The page: all tabs in one gr.Blocks."""

from __future__ import annotations

import gradio as gr

from app.services.app_state import Desk
from app.ui import annotate_tab, compare_tab, desk_tab, explore_tab, results_tab
from app.ui.endpoints import build_endpoints
from app.ui.header import Menu, build_header
from app.ui.shortcuts import labelled

UPLOAD = "24mb"  # the most that is taken in at all; app and engine say what each kind of file may have
KEPT = 600, 3600  # seconds: every so often, uploaded files older than this are deleted
WAITING = 500  # events in Gradio's queue: beyond it, the page says that the desk is busy
AT_ONCE = 500  # events that are handled at once; most wait for the engine, which has a queue of its own
SESSIONS = 500  # whose state Gradio keeps, such as uploaded prompts; the longest unused are forgotten


def build_page(desk: Desk, menu: Menu | None = None) -> gr.Blocks:
    """Build the page of a desk."""
    with gr.Blocks(title="Mixdesk", fill_width=True, analytics_enabled=False, delete_cache=KEPT) as blocks:
        build_endpoints(desk)
        build_header(desk.warning, menu, desk.engine.notes, desk.hosted, desk.sign_in)
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            with gr.Tab(labelled("Desk", "desk-tab"), id="desk", elem_id="desk-tab") as first:
                steering = desk_tab.build_desk_tab(desk, first, tabs)
            with gr.Tab(labelled("Explore", "explore-tab"), id="explore", elem_id="explore-tab") as second:
                explore_tab.build_explore_tab(desk, second, steering)
            with gr.Tab(labelled("Compare", "compare-tab"), id="compare", elem_id="compare-tab") as third:
                compare_tab.build_compare_tab(desk, third, steering)
            with gr.Tab(labelled("Annotate", "annotate-tab"), id="annotate", elem_id="annotate-tab") as annotating:
                annotate_tab.build_annotate_tab(desk, annotating, steering, menu.home if menu else "./")
            with gr.Tab(labelled("Results", "results-tab"), id="results-tab", elem_id="results-tab") as fourth:
                results_tab.build_results_tab(desk, fourth, steering)
    # At every event, also a fader's, Gradio's page copies all that any event's progress might be shown on. Here what is
    # under way says so itself.
    for event in blocks.fns.values():
        event.show_progress_on = []
    # Gradio looks a thousand times a second whether an event has come, and a hundred times whether one has progressed.
    # Each look takes Python from the engine.
    blocks._queue.sleep_when_free, blocks._queue.progress_update_sleep_when_free = 0.01, 0.1
    blocks._queue.max_thread_count = AT_ONCE
    blocks._queue.max_size, blocks.state_session_capacity = WAITING, SESSIONS
    blocks._queue.pending_messages_per_session.max_size = SESSIONS
    return blocks
