"""Sharing of the desk's settings: a link that opens them, and code that generates the response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from json import dumps
from typing import Any

import gradio as gr

from app.html import message
from app.schemas import conversation
from app.schemas.desk_state import DeskState, typed_stops
from app.schemas.share_link import from_link, to_link
from app.services.app_state import Desk
from app.services.code_snippets import FORMS, Recipe
from app.services.panel_choice import FADERS
from app.ui.controls import Controls, whole_number
from app.ui.mixture_controls import Changes
from app.ui.shortcuts import labelled
from engine import InputError, Sampling
from engine.inference.sampler import Sampler


@dataclass
class SharingParts:
    """The components of sharing."""

    link: gr.Button
    forms: dict[str, gr.Button]
    made: gr.Textbox  # unseen: what the server made, for the clipboard
    shown: gr.Textbox  # the same, where there is no clipboard
    arriving: gr.Textbox  # unseen: the link in the page's address
    arrived: gr.Button  # unseen: pressed when there is one, at first or later


def build_sharing() -> SharingParts:
    """Build the components within the current Blocks context."""
    with gr.Row(elem_classes="tools"):
        link = gr.Button(labelled("Copy link", "copy-link"), size="sm", elem_id="copy-link", min_width=80)
    with gr.Row(elem_classes="tools", elem_id="copy-as"):
        gr.HTML('<p class="hint">Copy as</p>')
        forms = {
            name: gr.Button(name, size="sm", elem_id=f"copy-{name.split()[0].lower()}", min_width=40) for name in FORMS
        }
    shown = gr.Textbox(
        label="Copy this text", visible=False, lines=3, max_lines=6, elem_id="copy-text", interactive=False
    )
    made = gr.Textbox(visible="hidden", label="What is copied", elem_id="copy-made")
    arriving = gr.Textbox(visible="hidden", label="Link")
    arrived = gr.Button(visible="hidden", elem_id="link-arrived")
    return SharingParts(link, forms, made, shown, arriving, arrived)


class Sharing:
    """Handlers of sharing. Links are decoded and validated on the server, like all input from a page."""

    def __init__(self, desk: Desk, controls: Controls, status: gr.HTML, parts: SharingParts) -> None:
        self.desk, self.controls, self.status, self.parts = desk, controls, status, parts

    def connect(self) -> None:
        """Register the event handlers."""
        parts, controls = self.parts, self.controls
        quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        for button, make, what in (
            (parts.link, self.link, "the link"),
            *((button, self.recipe(name), f"the mixture as {name}") for name, button in parts.forms.items()),
        ):
            copied = message(f"Copied: {what}.", "good")
            refused = message("This page may not use the clipboard: copy the text beside the faders yourself.", "bad")
            made = controls.gather(button.click).then(
                self.with_errors_shown(make), [controls.gathered], [parts.made, self.status], **quiet
            )
            made.then(
                None,
                [parts.made, self.status],
                [parts.shown, self.status],
                js=f"(text, said) => mixdesk.sharing.copy(text, said, {dumps(copied)}, {dumps(refused)})",
            )
        parts.arrived.click(
            self.open,
            [parts.arriving],
            [*controls.components(), self.status],
            js="() => [mixdesk.sharing.arriving()]",
            **quiet,
        )

    def with_errors_shown(self, make: Callable[[DeskState], str]) -> Callable[[str], Changes]:
        """Wrap a function of the state so that its text goes to the clipboard and its errors to the status line."""

        def handle(gathered: str) -> Changes:
            try:
                return {self.parts.made: make(self.controls.read(gathered))}
            except InputError as error:
                return {self.parts.made: "", self.status: message(str(error), "bad")}

        return handle

    def link(self, state: DeskState) -> str:
        """Return the fragment of the link, to append to the page's address.

        Raises:
            InputError: if a setting is invalid.
        """
        stop = state.stop if typed_stops(state.stop) else ""
        version = 3 if stop else 2 if state.turns else 1
        return f"#mix={to_link(state.model_copy(update={'v': version, 'stop': stop, 'seed': str(typed_seed(state))}))}"

    def open(self, link: str) -> Changes:
        """Return updates that set the desk as a link describes; an invalid link changes only the status line."""
        try:
            state = self.controls.checked(from_link(link), "link: ")
            if state.turns:
                self.check_turns(state)
        except InputError as error:
            return {self.status: message(str(error), "bad")}
        # With the same seed the same responses come.
        changes = self.controls.changes(state.model_copy(update={"new_seed": False}))
        return {**changes, self.status: message("The desk is as the link has it.")}

    def check_turns(self, state: DeskState) -> None:
        """Raise InputError if the conversation of a link has no room for a response."""
        try:
            self.desk.engine.check_prompt(conversation.question_turns(state.turns, state.prompt or "?"), 1)
        except InputError as error:
            raise InputError(f"link: {error}") from None

    def recipe(self, form: str) -> Callable[[DeskState], str]:
        """Return a function that writes the response as code in one of `FORMS`."""

        def make(state: DeskState) -> str:
            """Return the code for the faders' mixture, with the seed of the first panel that plays it."""
            prompt, sampling, mixture = state.question(), state.tokens_sampling(), state.mixture
            self.desk.engine.check_prompt(prompt, sampling.max_new_tokens)
            choices = list(state.panels.values())
            place = choices.index(FADERS) if FADERS in choices else 0
            recipe = Recipe(
                prompt,
                mixture.audible_weights(),
                rule=mixture.rule,
                gain=mixture.gain,
                exponent=mixture.exponent,
                sampling=sampling,
                seed=typed_seed(state) + place,
                config=self.desk.engine.config.file,
                date=self.desk.engine.policy_set.now(),
            )
            return FORMS[form](recipe)

        return make


def typed_seed(state: DeskState) -> int:
    """Return the typed seed.

    Raises:
        InputError: if it is not a valid seed.
    """
    seed = whole_number(state.seed)
    Sampler(Sampling(), seed)
    return seed
