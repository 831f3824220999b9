"""What the page sends becomes the desk's state, or is refused in one line."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from app.schemas.desk_state import DeskState
from app.services.panel_choice import EXACT, FADERS, POLICY, UNIFORM, chosen_mixture
from app.ui.controls import Controls, build_more
from app.ui.mixture_controls import MixtureControls
from engine import Engine, InputError

NAMES = ["plain", "stabilized", "narrow"]  # the tiny policies


@pytest.fixture(scope="module")
def controls() -> Controls:
    with gr.Blocks():
        more = build_more(64)
        mixture = MixtureControls(
            {name: gr.Slider(0, 1) for name in NAMES}, gr.Textbox(), more.rule, more.gain, more.exponent
        )
        choices = {side: gr.Dropdown([FADERS, UNIFORM], value=FADERS) for side in ("left", "right", "third")}
        return Controls(
            *(gr.Textbox(), mixture, choices, gr.Textbox(), gr.Textbox()),
            sampling=more.sampling, stop=more.stop, seed=more.seed, new_seed=more.new_seed, gathered=gr.Textbox(),
        )  # fmt: skip


def state(**changes: Any) -> DeskState:
    mixture = {"faders": {"plain": 0.5}, "rule": "geometric", "gain": 1.0, "exponent": 1.0}
    sampling = {"temperature": 0.7, "min_p": 0.1, "max_new_tokens": 8}
    usual = {"prompt": "a", "mixture": mixture, "panels": {"left": FADERS}, "sampling": sampling, "seed": "1"}
    return DeskState.model_validate({**usual, **changes})


def test_what_the_page_sends_has_all_policies_and_known_panels(controls: Controls) -> None:
    read = controls.read(state(panels={"left": FADERS, "fifth": FADERS}).model_dump_json())
    assert read.mixture.faders == {"plain": 0.5, "stabilized": 0.0, "narrow": 0.0}
    assert read.panels == {"left": FADERS}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"panels": {}}, "reload the page"),
        ({"panels": {"fifth": FADERS}}, "reload the page"),
        ({"sampling": {"temperature": 0.7}}, "reload the page"),
        ({"sampling": {"temperature": 9, "min_p": 0.1, "max_new_tokens": 8}}, "Temperature .* is 9"),
        ({"sampling": {"temperature": 0.7, "min_p": 0.1, "max_new_tokens": 1e6}}, "Max new tokens is 1e"),
        ({"panels": {"left": "policy:strange"}}, "no mixture “policy:strange” for its left panel"),
    ],
)
def test_what_no_page_sends_is_refused(controls: Controls, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        controls.read(state(**changes).model_dump_json())


def test_a_choice_is_one_mixture_on_the_desk_and_in_compare(tiny_engine: Engine) -> None:
    mixture = state().mixture.model_copy(update={"rule": "power", "gain": 2.0, "exponent": 0.5})
    alone = chosen_mixture(f"{POLICY}narrow", mixture, tiny_engine)
    assert (alone.weights["narrow"], alone.gain) == (1, 1)
    for choice, weights in ((FADERS, {"plain": 1.0}), (UNIFORM, None)):
        assert chosen_mixture(choice, mixture, tiny_engine) == tiny_engine.mixture(weights, "power", 2.0, 0.5)
    assert chosen_mixture(EXACT, mixture, tiny_engine).rule == "geometric"
    with pytest.raises(InputError, match="no mixture “strange”"):
        chosen_mixture("strange", mixture, tiny_engine)
