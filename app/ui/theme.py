"""Gradio's theme with readable colours: where its own contrast is below 4.5:1, the next darker ones."""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils import colors

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    """Return the theme. It uses system fonts, so that the page loads nothing from other hosts."""
    return gr.themes.Default(primary_hue="violet", neutral_hue="zinc", font=FONTS, font_mono=MONO).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_cancel_background_fill=colors.red.c600,
        button_cancel_background_fill_hover=colors.red.c700,
        body_text_color_subdued="*neutral_500",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
