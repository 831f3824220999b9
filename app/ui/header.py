"""The top of the page: title, menu of configurations, and notices. External text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import gradio as gr

from app.services.offer import Offer
from app.ui.help import help_button, help_dialog

TAGLINE = "Mix policies while they write."
LOCAL = "Everybody here owns this desk."


@dataclass(frozen=True)
class Choice:
    """A configuration in the menu. `path` is its desk's address relative to the first one's."""

    name: str
    slug: str
    path: str


@dataclass(frozen=True)
class Menu:
    """The menu of configurations.

    Attributes:
        choices: All configurations; empty if there is no menu.
        slug: The configuration of this page.
        home: Relative address of the first page from this one.
        offers: Downloads to offer.
    """

    choices: Sequence[Choice]
    slug: str
    home: str = "./"
    offers: Sequence[Offer] = ()


def build_header(
    warning: str = "",
    menu: Menu | None = None,
    notes: Sequence[str] = (),
    hosted: bool = True,
    sign_in: bool = False,
) -> None:
    """Build the notices and the title line; app/static/js/configurations.js operates them.

    The notices come first, so that the tabs find the title line in its usual place.
    """
    notices = warning_line(warning) + offer_lines(menu) + loading_line(menu)
    gr.HTML(notices, elem_id="notices", elem_classes=["warned"] if warning else None)
    # A narrow page cuts it off; its title is whole.
    about = f"<p><span>{TAGLINE}</span></p>"
    if not hosted:
        about = f'<p title="{LOCAL}"><span>{TAGLINE}</span> {LOCAL}</p>'
    account = account_place(menu) if hosted and sign_in else ""
    title = f"<h1>Mixdesk</h1>{menu_of(menu)}{notes_of(notes)}{help_button()}{account}{about}"
    gr.HTML(f"<header>{title}</header>{help_dialog()}", elem_id="top")


def warning_line(warning: str) -> str:
    """Return the owner's warning as a notice, or ""."""
    if not warning:
        return ""
    return (
        f'<div id="warning" class="notice"><p role="note">{escape(warning)}</p>'
        '<button type="button" data-notice="warning" title="Hide it for this visit">Dismiss</button></div>'
    )


def notes_of(notes: Sequence[str]) -> str:
    """Return the notes from loading the policies behind a button that shows their number, or ""."""
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    words = "1 note" if len(notes) == 1 else f"{len(notes)} notes"
    summary = f'<summary title="What was found when the policies were loaded">{words}</summary>'
    return f'<details id="notes">{summary}<ul>{items}</ul></details>'


def account_place(menu: Menu | None) -> str:
    """Return the place where app/static/js/account.js says who is signed in, or lets a visitor sign in."""
    return f'<span id="account" data-home="{escape(menu.home if menu else "./")}"></span>'


def offer_lines(menu: Menu | None) -> str:
    """Return one notice per offer, hidden until app/static/js/fetching.js knows the download's state."""
    if menu is None:
        return ""
    return "".join(
        f'<div class="notice offer" hidden data-offer="{escape(offer.slug)}" data-home="{escape(menu.home)}" '
        f'data-title="{escape(offer.title)}" data-opens="{str(offer.opens).lower()}">'
        f'<p><span class="about">{escape(offer.about)}</span> <span role="status" class="words"></span> '
        f'<span class="how-far"></span></p><progress hidden aria-label="Fetched of {escape(offer.title)}"></progress>'
        f'<button type="button" data-fetch="get" title="{escape(offer.size)}, {escape(offer.licence)}, kept in this '
        f"machine's cache\">Get {escape(offer.title)}, {escape(offer.size)}</button>"
        '<button type="button" data-fetch="open" hidden>Open them</button>'
        '<button type="button" data-fetch="cancel" hidden>Cancel</button>'
        '<button type="button" data-fetch="hide" title="Hide it for this visit">Not now</button></div>'
        for offer in menu.offers
    )


def loading_line(menu: Menu | None) -> str:
    """Return the hidden notice for a configuration that is being loaded, or "" without a menu."""
    if menu is None or not menu.choices:
        return ""
    return (
        '<div id="loading" class="notice" hidden><p role="status" aria-live="polite"></p>'
        '<button type="button" data-notice="again" hidden>Open it again</button>'
        '<button type="button" data-notice="loading">Stay here</button></div>'
    )


def menu_of(menu: Menu | None) -> str:
    """Return the menu of configurations, or "" if there is none."""
    if menu is None or not menu.choices:
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
