"""The top of the page: its name, the menu of configurations, and lines that say what goes on. Text from outside is
escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import gradio as gr

from app.help import help_button, help_dialog

TAGLINE = "Mix language-model policies while they write, and say which mixture is better."


@dataclass(frozen=True)
class Choice:
    """A configuration in the menu. path: where its desk is, from the first one's."""

    name: str
    slug: str
    path: str


@dataclass(frozen=True)
class Menu:
    """choices: all of them; slug: whose page this is; home: the way from this page to the first one."""

    choices: Sequence[Choice]
    slug: str
    home: str = "./"


def build_header(warning: str = "", menu: Menu | None = None) -> None:
    """Notices first, so that the tabs find the title's line where it always is. app/static/configurations.js is their
    other half."""
    gr.HTML(warning_line(warning) + loading_line(menu), elem_id="notices", elem_classes=["warned"] if warning else None)
    gr.HTML(
        f"<header><h1>Mixdesk</h1>{menu_of(menu)}{help_button()}<p>{TAGLINE}</p></header>{help_dialog()}", elem_id="top"
    )


def warning_line(warning: str) -> str:
    if not warning:
        return ""
    return (
        f'<div id="warning" class="notice"><p role="note">{escape(warning)}</p>'
        '<button type="button" data-notice="warning" title="Hide it for this visit">Dismiss</button></div>'
    )


def loading_line(menu: Menu | None) -> str:
    if menu is None:
        return ""
    return (
        '<div id="loading" class="notice" hidden><p role="status" aria-live="polite"></p>'
        '<button type="button" data-notice="again" hidden>Open it again</button>'
        '<button type="button" data-notice="loading">Stay here</button></div>'
    )


def menu_of(menu: Menu | None) -> str:
    if menu is None:
        return ""
    items = "".join(
        f'<button type="button" data-configuration="{escape(choice.slug)}"'
        f"{' aria-current=page' if choice.slug == menu.slug else ''}>"
        f"<span>{escape(choice.name)}</span><small></small></button>"
        for choice in menu.choices
    )
    here = next(choice.name for choice in menu.choices if choice.slug == menu.slug)
    return (
        f'<details id="configurations" data-home="{escape(menu.home)}" data-here="{escape(menu.slug)}">'
        f'<summary title="Change the configuration">{escape(here)}</summary><div>{items}</div></details>'
    )
