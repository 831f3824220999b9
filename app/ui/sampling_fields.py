"""Temperature, max tokens and seed as typed fields of a form."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.ui.mixture_controls import Values
from engine import InputError, Sampling


class SamplingFields:
    """The fields. `prefix` begins the elements' ids."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def build(self) -> None:
        """Build the components within the current Blocks context."""
        with gr.Row(elem_id=f"{self.prefix}-numbers"):
            self.temperature = self.field("0.7", "Temperature", "temperature")
            self.length = self.field("160", "Max tokens", "length")
            self.seed = self.field("1", "Seed", "seed")

    def field(self, value: str, label: str, name: str) -> gr.Textbox:
        """Build one field."""
        return gr.Textbox(value, label=label, max_lines=1, min_width=70, elem_id=f"{self.prefix}-{name}")

    def components(self) -> set[Any]:
        """Return the components whose values `read` reads."""
        return {self.temperature, self.length, self.seed}

    def read(self, values: Values) -> tuple[Sampling, int]:
        """Return the sampling settings and the seed.

        Raises:
            InputError: if a field is malformed or out of range.
        """
        sampling = Sampling(
            max_new_tokens=int(parse_count(values[self.length], "max tokens", whole=True)),
            temperature=parse_count(values[self.temperature], "temperature"),
        )
        return sampling, int(parse_count(values[self.seed], "seed", whole=True))


def parse_count(text: str | None, what: str, whole: bool = False) -> float:
    """Parse a typed number, which may have a decimal comma.

    Raises:
        InputError: if it is not a number, or not a whole one where `whole` is true.
    """
    typed = (text or "").strip().replace(",", ".")
    try:
        return int(typed) if whole else float(typed)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{what}: found '{typed[:40] or 'nothing'}'; type {kind}") from None


def parse_most(text: str | None) -> int | None:
    """Parse a typed number of prompts; None if it is empty, or "all".

    Raises:
        InputError: if it is something else.
    """
    typed = (text or "").strip().lower()
    return None if typed in ("", "all") else max(0, int(parse_count(typed, "how many", whole=True)))
