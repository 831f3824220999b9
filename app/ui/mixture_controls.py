"""The components that define the faders' mixture, and their state by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from pydantic import ValidationError

from app.schemas.desk_state import UNREADABLE, MixtureState
from app.schemas.solo_mute_lock import Channels
from engine import RULES, InputError

Changes = dict[Any, Any]
Values = dict[Any, Any]
Path = tuple[str, ...]  # of a value in the state: ("mixture", "faders", "helpful")


@dataclass
class MixtureControls:
    """The faders, Lock, Solo and Mute, the rule, the gain and the exponent."""

    faders: dict[str, gr.Slider]
    channels: gr.Textbox  # Lock, Solo and Mute as JSON; unseen
    rule: gr.Dropdown
    gain: gr.Slider
    exponent: gr.Slider

    def by_path(self) -> dict[Path, Any]:
        """Return {path in a `MixtureState`: component}."""
        return {
            **{("faders", name): fader for name, fader in self.faders.items()},
            ("channels",): self.channels,
            ("rule",): self.rule,
            ("gain",): self.gain,
            ("exponent",): self.exponent,
        }

    def components(self) -> list[Any]:
        """Return the components in the order of `by_path`."""
        return list(self.by_path().values())

    def state(self, values: Values) -> MixtureState:
        """Return the state of components with these values.

        Raises:
            InputError: if a value is malformed or out of range.
        """
        try:
            state = MixtureState(
                faders={name: float(values[fader]) for name, fader in self.faders.items()},
                channels=Channels.parse(values[self.channels]),
                rule=values[self.rule],
                gain=float(values[self.gain]),
                exponent=float(values[self.exponent]),
            )
        except (TypeError, ValidationError):
            raise InputError(UNREADABLE) from None
        return self.checked(state)

    def checked(self, state: MixtureState, of: str = "") -> MixtureState:
        """Return a state with all of this desk's policies, and no others; a policy that it lacks is at zero.

        Args:
            state: A state.
            of: What it is of, which begins the message: "link: ".

        Raises:
            InputError: if it does not fit this desk.
        """
        policies = list(self.faders)
        if strange := [name for name in state.faders if name not in self.faders]:
            raise InputError(f"{of}it needs the policy “{strange[0][:40]}”; this desk has {', '.join(policies)}.")
        if state.rule not in RULES:
            raise InputError(f"{of}there is no rule “{state.rule[:40]}”; this desk has {', '.join(RULES)}.")
        check_range(self.gain, state.gain, f"{of}gain")
        check_range(self.exponent, state.exponent, f"{of}exponent")
        faders = {name: state.faders.get(name, 0.0) for name in policies}
        return state.model_copy(update={"faders": faders, "channels": state.channels.of(policies)})

    def changes(self, state: MixtureState) -> Changes:
        """Return updates that set the components to a checked state."""
        return {
            **{fader: state.faders[name] for name, fader in self.faders.items()},
            self.channels: state.channels.model_dump_json(),
            self.rule: state.rule,
            self.gain: state.gain,
            self.exponent: state.exponent,
        }


def check_range(slider: gr.Slider, value: float, name: str) -> None:
    """Raise InputError if a slider cannot show a value; `name` begins the message."""
    if not slider.minimum <= value <= slider.maximum:
        raise InputError(f"{name} is {value:g}; this desk takes {slider.minimum:g} to {slider.maximum:g}.")
