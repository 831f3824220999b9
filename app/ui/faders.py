"""Buttons around the faders: Lock, Solo and Mute of each, Undo and Redo. static/js/mixer.js implements them."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from app.ui.mixture_controls import MixtureControls
from app.ui.shortcuts import labelled

# mark: what its button shows
MARKS = {"solo": "S", "mute": "M", "lock": ""}


def build_marks(index: int) -> dict[str, gr.Button]:
    """Build a fader's toggles; the page sets their accessible names and pressed states."""
    return {
        mark: gr.Button(
            text, size="sm", elem_id=f"{mark}-{index}", elem_classes=["mark", f"mark-{mark}"], min_width=28, scale=0
        )
        for mark, text in MARKS.items()
    }


def build_channels(faders: list[Any], marks: list[dict[str, gr.Button]]) -> gr.Textbox:
    """Build the hidden text with Lock, Solo and Mute as JSON, and connect the toggles to it."""
    channels = gr.Textbox("{}", visible="hidden", elem_id="channels", label="Lock, Solo and Mute")
    for i, toggles in enumerate(marks):
        for mark, button in toggles.items():
            # To unlock moves faders, so that no weight changes by it.
            button.click(
                None,
                [*faders, channels],
                [*faders, channels],
                js=f"(...now) => mixdesk.mixer.toggle({mark!r}, {i}, now)",
            )
    return channels


def build_history() -> tuple[gr.Button, gr.Button]:
    """Build the Undo and Redo buttons."""
    with gr.Row(elem_id="history"):
        undo = gr.Button(labelled("Undo", "undo"), size="sm", elem_id="undo", min_width=90)
        redo = gr.Button(labelled("Redo", "redo"), size="sm", elem_id="redo", min_width=90)
    return undo, redo


def connect_history(mixture: MixtureControls, undo: gr.Button, redo: gr.Button) -> None:
    """Track one undo step per gesture over the components of the mixture."""
    blocks = gr.context.Context.root_block
    assert blocks is not None
    components, paths = mixture.components(), json.dumps(list(mixture.by_path()))
    blocks.load(None, components, js=f"(...values) => mixdesk.mixer.begin({paths}, values)")
    # Each with what it has itself: Gradio's page copies the whole state of every component that an event reads.
    for path, component in mixture.by_path().items():
        component.change(None, [component], js=f"(value) => mixdesk.mixer.moved({json.dumps(path)}, value)")
    undo.click(None, components, components, js="(...values) => mixdesk.mixer.step(-1, values)")
    redo.click(None, components, components, js="(...values) => mixdesk.mixer.step(1, values)")
