"""Saved mixtures: Save, Load and Delete beside the faders."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.html import message
from app.services.app_state import Desk
from app.services.visitor import Visitor, visitor_of
from app.storage.owners import Owners
from app.storage.saved_mixtures import SavedMixtures, TakenError, clean
from app.ui.controls import Controls
from app.ui.mixture_controls import Changes, Values
from app.ui.shortcuts import labelled
from engine import InputError

log = logging.getLogger("mixdesk")

MAX_SAVED = 500  # mixtures


@dataclass
class KeepingParts:
    """The components. One box holds the name, of a mixture to load or of one to save."""

    name: gr.Dropdown
    load: gr.Button
    save: gr.Button
    delete: gr.Button
    asking: gr.Row
    question: gr.HTML
    replace: gr.Button
    remove: gr.Button
    cancel: gr.Button


def build_keeping() -> KeepingParts:
    """Build the components within the current Blocks context."""
    name = gr.Dropdown([], value=None, label="Mixture: choose or name one", allow_custom_value=True, elem_id="saved")
    with gr.Row(elem_classes="tools"):
        load = gr.Button(labelled("Load", "load"), size="sm", elem_id="load", min_width=50)
        save = gr.Button(labelled("Save", "save"), size="sm", elem_id="save", min_width=50)
        delete = gr.Button("Delete", size="sm", elem_id="delete", min_width=50)
    with gr.Row(visible=False, elem_id="asking", elem_classes="tools") as asking:
        question = gr.HTML("", elem_id="question", html_template='<p role="alert">${value}</p>')
        replace = gr.Button("Replace", size="sm", variant="stop", elem_id="replace", min_width=60)
        remove = gr.Button("Delete it", size="sm", variant="stop", elem_id="remove", min_width=60)
        cancel = gr.Button("Cancel", size="sm", elem_id="cancel", min_width=60)
    return KeepingParts(name, load, save, delete, asking, question, replace, remove, cancel)


class Keeping:
    """Handlers of saved mixtures.

    All users of the desk share one list. A mixture is replaced or deleted by the browser that saved it, or the owner.
    """

    def __init__(self, desk: Desk, controls: Controls, status: gr.HTML, parts: KeepingParts) -> None:
        self.controls, self.status, self.parts = controls, status, parts
        self.saved = SavedMixtures(desk.store)
        self.owners = Owners(desk.store, "mixture")

    def connect(self) -> None:
        """Register the event handlers."""
        parts, mixing = self.parts, self.controls.mixture.components()
        asking = [parts.asking, parts.question, parts.replace, parts.remove]
        quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        blocks = gr.context.Context.root_block
        assert blocks is not None
        for event in (blocks.load, parts.name.focus):
            event(self.list, None, [parts.name], **quiet)
        for button, handler, outputs in (
            (parts.load, self.load, mixing),
            (parts.save, self.save(replace=False), []),
            (parts.replace, self.save(replace=True), []),
            (parts.delete, self.ask_to_delete, []),
            (parts.remove, self.delete, []),
        ):
            changed = [*outputs, parts.name, *asking, self.status]
            button.click(self.with_errors_shown(handler), {parts.name, *mixing}, changed, **quiet)
        parts.cancel.click(lambda: self.asked(), None, asking, **quiet)
        parts.name.change(lambda: self.asked(), None, asking, **quiet)

    def list(self) -> Any:
        """Return an update of the box with the current names."""
        return gr.Dropdown(choices=self.saved.names())

    def with_errors_shown(self, handler: Callable[[Values, Visitor], Changes]) -> Callable[..., Changes]:
        """Wrap a handler so that its errors appear in the status line."""

        def handle(values: Values, request: gr.Request) -> Changes:
            try:
                return handler(values, visitor_of(request))
            except InputError as error:
                return {**self.asked(), self.status: message(str(error), "bad")}
            except sqlite3.Error as error:
                log.exception("the saved mixtures cannot be reached")
                return {self.status: message(f"The database says “{error}”. Press the button again to retry.", "bad")}

        return handle

    def asked(self, question: str = "", button: gr.Button | None = None) -> Changes:
        """Return updates that show a question with its confirming button, or hide it if `button` is None."""
        parts = self.parts
        return {
            parts.asking: gr.Row(visible=button is not None),
            parts.question: message(question),
            **{yes: gr.Button(visible=yes is button) for yes in (parts.replace, parts.remove)},
        }

    def check_owner(self, name: str, visitor: Visitor) -> None:
        """Raise InputError if the visitor may not replace or delete a mixture."""
        if not visitor.owner and not self.owners.made(name, visitor.browser):
            raise InputError(
                f"“{name}” was saved in another browser: only there, or by the desk's owner, is it replaced or deleted."
            )

    def save(self, replace: bool) -> Callable[[Values, Visitor], Changes]:
        """Return the handler of Save, or of Replace."""

        def save(values: Values, visitor: Visitor) -> Changes:
            name, known = clean(values[self.parts.name]), self.saved.names()
            if name in known and replace:
                self.check_owner(name, visitor)
            elif name not in known and len(known) >= MAX_SAVED:
                raise InputError(f"There are {len(known)} saved mixtures, and no room for more: delete one first.")
            try:
                self.saved.save(name, self.controls.mixture.state(values), replace)
            except TakenError as taken:
                self.check_owner(name, visitor)
                return self.asked(f"{taken} Replace it?", self.parts.replace)
            if name not in known:
                self.owners.record(name, visitor.browser)
            how = "Saved over the old one" if replace else "Saved"
            chosen = gr.Dropdown(choices=self.saved.names(), value=name)
            return {**self.asked(), self.parts.name: chosen, self.status: message(f"{how}: “{name}”.", "good")}

        return save

    def load(self, values: Values, _: Visitor) -> Changes:
        """Set the controls to the chosen mixture."""
        name = values[self.parts.name]
        mixture = self.controls.mixture
        changes = mixture.changes(mixture.checked(self.saved.load(name), f"“{name}”: "))
        return {**self.asked(), **changes, self.status: message(f"The faders are at “{name}”.")}

    def ask_to_delete(self, values: Values, visitor: Visitor) -> Changes:
        """Ask for confirmation before the chosen mixture is deleted."""
        name = clean(values[self.parts.name])
        self.saved.load(name)
        self.check_owner(name, visitor)
        return self.asked(f"Delete “{name}” for all users?", self.parts.remove)

    def delete(self, values: Values, visitor: Visitor) -> Changes:
        """Delete the chosen mixture."""
        name = values[self.parts.name]
        self.check_owner(name, visitor)
        self.saved.delete(name)
        self.owners.forget(name)
        rest = gr.Dropdown(choices=self.saved.names(), value=None)
        return {**self.asked(), self.parts.name: rest, self.status: message(f"Deleted: “{name}”.")}
