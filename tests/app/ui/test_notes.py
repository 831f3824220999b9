"""What was found at load is on the page, as text, and takes no room where there is nothing to say."""

from __future__ import annotations

import gradio as gr

from app.ui.header import build_header, notes_of


def test_notes_are_text() -> None:
    assert notes_of([]) == ""
    one = notes_of(["policy '<b>x</b>' says what the reference says"])
    assert "<b>" not in one and "&lt;b&gt;x&lt;/b&gt;" in one
    assert ">1 note</summary>" in one
    assert ">2 notes</summary>" in notes_of(["a", "b"])


def test_the_header_has_them() -> None:
    with gr.Blocks() as blocks:
        build_header(notes=["the first", "the second"])
    page = "".join(block.value for block in blocks.blocks.values() if isinstance(block, gr.HTML))
    assert page.count("<li>") == 2
