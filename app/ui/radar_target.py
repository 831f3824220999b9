"""Targets on the radar: a reward is dragged outward, and the faders move to the weights that come nearest.

static/js/target.js implements the dragging; this module finds the weights and describes them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Annotated, Any

import gradio as gr
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.charts import radar as radar_chart
from app.format import signed
from app.html import message
from app.schemas.desk_state import MixtureState
from app.services.app_state import Desk
from app.services.bank_service import Aimed, faders_of
from app.ui.controls import Controls
from app.ui.mixture_controls import MixtureControls
from engine import InputError

log = logging.getLogger("mixdesk")

NEAR = 0.05  # standard deviations that are as good as none
Value = Annotated[float, Field(allow_inf_nan=False)]


class TargetQuestion(BaseModel):
    """A target from the page.

    Attributes:
        mixture: The mixture before the drag.
        goal: {objective: target in standard deviations}.
        quick: Whether the drag is still in progress.
    """

    model_config = ConfigDict(frozen=True)

    mixture: MixtureState
    goal: Annotated[dict[str, Annotated[Value, Field(ge=-100, le=100)]], Field(min_length=1)]
    quick: bool


def build_target(desk: Desk, controls: Controls, status: gr.HTML) -> None:
    """Build the handles, which the browser lays over the radar, and connect them to the faders."""

    async def aim(asked: dict[str, Any]) -> dict[str, Any]:
        return await asyncio.to_thread(answer_target, desk, controls.mixture, asked)

    objectives = desk.expected.objectives
    axes = [
        {"name": name, "colour": desk.colours[name], "angle": angle}
        for name, angle in zip(objectives, radar_chart.angles_of(objectives), strict=True)
    ]
    handles = gr.HTML(
        None,
        html_template="<i></i>",
        js_on_load=f"mixdesk.target.begin({json.dumps(axes)}, {radar_chart.REACH}, server, trigger);",
        server_functions=[aim],
        elem_id="target-handles",
    )
    mixture = controls.mixture
    faders, names = list(mixture.faders.values()), json.dumps(list(mixture.faders))
    handles.select(
        None, [*faders, mixture.channels], faders, js=f"(...values) => mixdesk.target.placed({names}, values)"
    )


def answer_target(desk: Desk, mixture: MixtureControls, given: dict[str, Any]) -> dict[str, Any]:
    """Find the weights for a target from the page.

    Returns:
        {faders: {policy: position} of the faders that move, or None after an error; said: the status line}.
    """
    try:
        asked = TargetQuestion.model_validate(given)
        before = mixture.checked(asked.mixture)
        aimed = desk.expected.aim(before.weights(), asked.goal, before.fixed(), before.gain, asked.quick)
    except InputError as error:
        return {"faders": None, "said": message(str(error), "bad")}
    except (ValidationError, ValueError):
        return {"faders": None, "said": message("The target cannot be read: reload the page.", "bad")}
    except Exception:
        log.exception("a target was not solved")
        return {"faders": None, "said": message("The target failed; the engine's log says why.", "bad")}
    positions = faders_of({name: aimed.weights[name] for name in aimed.free})
    said = message(target_sentence(aimed), "info" if aimed.reliable else "bad")
    return {"faders": positions, "said": said}


def target_sentence(aimed: Aimed) -> str:
    """Return a sentence that compares the expected gains with the target and gives their errors."""

    def missed(name: str) -> bool:
        return abs(aimed.gained[name] - aimed.asked[name]) > max(NEAR, 2 * aimed.errors[name])

    parts = [
        f"{name} {signed(aimed.gained[name])} ± {aimed.errors[name]:.2f} of {signed(asked)}σ asked"
        for name, asked in aimed.asked.items()
    ]
    others = [
        f"{name} {signed(gained)}"
        for name, gained in aimed.gained.items()
        if name not in aimed.asked and abs(gained) > NEAR
    ]
    begins = "Beyond reach; nearest to your target:" if any(map(missed, aimed.asked)) else "Target reached:"
    said = f"{begins} {', '.join(parts)}" + (f"; with it {', '.join(others)}" if others else "") + "."
    if aimed.reliable:
        return f"{said} {aimed.ess_fraction:.0%} of the bank counts."
    return f"{said} But a guess, only {aimed.ess_fraction:.0%} of the bank counts: sample more in Explore."
