"""The menu beside Balance that selects its method, and the floors of one of the methods."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.services.balance_choices import BY_POLICIES, BY_REWARDS, FLOORS
from engine import InputError

CHOICES = {
    BY_REWARDS: "Fair by the reward models",
    BY_POLICIES: "Fair by the policies’ own rewards",
    FLOORS: "Most reward above these floors",
}


@dataclass
class BalanceMenu:
    """The Balance button, its method and its floors."""

    button: gr.Button
    choice: gr.Dropdown
    floors: dict[str, gr.Textbox]  # by objective

    def inputs(self) -> set[Any]:
        """Return the components whose values Balance reads."""
        return {self.choice, *self.floors.values()}


def build_balance_menu(button: gr.Button, objectives: list[str]) -> BalanceMenu:
    """Build the menu. Without reward models, the only method is by the policies' own rewards."""
    choices = [(CHOICES[choice], choice) for choice in CHOICES if objectives or choice == BY_POLICIES]
    preferred = BY_REWARDS if objectives else BY_POLICIES
    choice = gr.Dropdown(
        choices, value=preferred, label="What Balance finds", show_label=False, container=False, filterable=False,
        elem_id="balance-choice",
    )  # fmt: skip
    with gr.Row(visible=False, elem_id="balance-floors") as row:
        floors = {
            name: gr.Textbox(
                label=f"{name} ≥ σ", placeholder="no floor", max_lines=1, min_width=80, elem_id=f"balance-floor-{i}"
            )
            for i, name in enumerate(objectives)
        }
    if floors:
        shows = f"(choice) => ({{__type__: 'update', visible: choice === '{FLOORS}'}})"
        choice.change(None, [choice], [row], js=shows)
    return BalanceMenu(button, choice, floors)


def read_floors(values: Mapping[Any, Any], boxes: Mapping[str, gr.Textbox]) -> dict[str, float]:
    """Return {objective: floor} of the boxes that are filled in.

    Raises:
        InputError: if one is not a number.
    """
    return {name: parse_floor(values[box], name) for name, box in boxes.items() if (values[box] or "").strip()}


def parse_floor(text: str, objective: str) -> float:
    """Parse a typed floor, which may have a decimal comma.

    Raises:
        InputError: if it is not a finite number.
    """
    try:
        floor = float(text.replace("−", "-").replace(",", "."))
    except ValueError:
        floor = math.nan
    if not math.isfinite(floor):
        raise InputError(f"{objective}: found '{text.strip()[:40]}'; type a number such as 0.2, or leave it empty")
    return floor
