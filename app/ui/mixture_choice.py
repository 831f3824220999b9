"""The choice of several mixtures in a form: policies, the reference, the faders, saved mixtures, typed weights."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.format import settings_in_short
from app.html import message
from app.services.app_state import Desk
from app.services.panel_choice import FADERS, POLICY, UNIFORM, chosen_mixture
from app.storage.saved_mixtures import SavedMixtures
from app.ui.mixture_controls import Changes, MixtureControls, Values
from engine import InputError, Mixture
from engine.config import REFERENCE
from engine.evaluation.comparison import MAX_MIXTURES
from engine.inference.parse_mixture import read_mixture

SAVED = "saved:"  # followed by the name


class MixtureChoice:
    """The dropdown, and the box for typed weights. `prefix` begins the elements' ids."""

    def __init__(self, desk: Desk, controls: MixtureControls, prefix: str) -> None:
        self.desk, self.controls, self.prefix = desk, controls, prefix
        self.saved = SavedMixtures(desk.store)
        self.fixed = [
            ("Reference", REFERENCE),
            ("Uniform", UNIFORM),
            ("Faders, as they stand", FADERS),
            *((name, f"{POLICY}{name}") for name in desk.policies),
        ]

    def build(self, label: str, first: int = MAX_MIXTURES) -> None:
        """Build the components within the current Blocks context, with the `first` choices but the faders chosen."""
        self.mixtures = gr.Dropdown(
            self.fixed,
            value=[value for _, value in self.fixed if value != FADERS][:first],
            multiselect=True,
            max_choices=MAX_MIXTURES,
            allow_custom_value=True,
            label=label,
            elem_id=f"{self.prefix}-mixtures",
        )
        weights = zip(self.desk.policies, ("0.6", "0.4"), strict=False)
        example = ", ".join(f"{name}={weight}" for name, weight in weights)
        with gr.Row(elem_id=f"{self.prefix}-typed-row", equal_height=True) as self.row:
            self.typed = gr.Textbox(
                label="Or type weights, rule, gain",
                max_lines=1,
                placeholder=example,
                elem_id=f"{self.prefix}-typed",
                min_width=140,
            )
            self.add = gr.Button("Add", size="sm", elem_id=f"{self.prefix}-add", min_width=56, scale=0)

    def connect(self, status: gr.HTML) -> None:
        """Register the handler of Add, which reports its errors in `status`."""
        self.status = status
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        changed = [self.typed, self.mixtures, status]
        gr.on([self.add.click, self.typed.submit], self.adding, [self.typed, self.mixtures], changed, **quiet)

    def components(self) -> set[Any]:
        """Return the components whose values `chosen` reads."""
        return {self.mixtures, *self.controls.components()}

    def listed(self) -> Changes:
        """Return an update of the choices with the mixtures that are saved now."""
        saved = [(f"Saved: {name}", f"{SAVED}{name}") for name in self.saved.names()]
        return {self.mixtures: gr.Dropdown(choices=[*self.fixed, *saved])}

    def adding(self, typed: str | None, chosen: list[str]) -> Changes:
        """Add the typed mixture to the chosen ones."""
        text = (typed or "").strip()
        try:
            if not text:
                raise InputError("Type weights first, such as those that the field shows.")
            read_mixture(self.desk.engine, text)
            if len(chosen) >= MAX_MIXTURES:
                raise InputError(f"There are {MAX_MIXTURES} mixtures already: take one out first.")
        except InputError as error:
            return {self.status: message(str(error), "bad")}
        return {self.typed: "", self.mixtures: list(dict.fromkeys([*chosen, text])), self.status: ""}

    def chosen(self, values: Values) -> dict[str, Mixture]:
        """Return {name: mixture} of the chosen mixtures, in order.

        Raises:
            InputError: if a choice is not a valid mixture, or two have the same name.
        """
        found: dict[str, Mixture] = {}
        for choice in values[self.mixtures] or []:
            name, mixture = self.named(choice, values)
            if name in found:
                raise InputError(f"Mixtures: two are called {name}; leave one out, or save it under another name.")
            found[name] = mixture
        return found

    def named(self, choice: str, values: Values) -> tuple[str, Mixture]:
        """Return (name, mixture) of a choice.

        Raises:
            InputError: if the choice is not a valid mixture.
        """
        engine = self.desk.engine
        if choice.startswith(SAVED):
            name = choice.removeprefix(SAVED)
            state = self.controls.checked(self.saved.load(name), f"“{name}”: ")
            return name, chosen_mixture(FADERS, state, engine)
        if choice not in [value for _, value in self.fixed]:
            return choice, read_mixture(engine, choice)
        mixture = chosen_mixture(choice, self.controls.state(values), engine)
        name = choice.removeprefix(POLICY)
        if choice in (FADERS, UNIFORM, REFERENCE):
            name = choice.title()
        if choice == UNIFORM and (extra := settings_in_short(mixture)):
            name += f" ({extra})"
        return name, mixture
