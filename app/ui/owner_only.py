"""Handlers that only the desk's owner may use."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

import gradio as gr

from app.html import message
from app.services.visitor import Visitor, visitor_of
from app.ui.mixture_controls import Changes, Values
from engine import InputError

log = logging.getLogger("mixdesk")

OWNERS_ONLY_LINE = "Only the owner of this desk can do that: open it by the owner's link."


def owner_only(handler: Callable[[Values, Visitor], Changes], status: gr.HTML) -> Callable[..., Changes]:
    """Wrap a handler so that it works for the owner only, and its errors are one line in a status line."""

    def handle(values: Values, request: gr.Request) -> Changes:
        visitor = visitor_of(request)
        if not visitor.owner:
            return {status: message(OWNERS_ONLY_LINE, "bad")}
        try:
            return handler(values, visitor)
        except InputError as error:
            return {status: message(str(error), "bad")}
        except sqlite3.Error as error:
            log.exception("the studies cannot be reached")
            return {status: message(f"The database says “{error}”. Press the button again to retry.", "bad")}

    return handle


def acted(text: str | None) -> tuple[str, str]:
    """Return the act and the id that a table's button sent (app/static/js/annotate.js): ("revoke", id)."""
    act, _, id = (text or "").partition(" ")
    return act, id
