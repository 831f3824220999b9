"""The desk after a reload of its page."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.services.generation_run import SIDES
from app.services.panel_choice import FADERS
from app.ui.controls import Controls, build_faders, build_more
from app.ui.mixture_controls import MixtureControls
from app.ui.restore import Restore, field
from engine.config import REFERENCE, PolicySettings

NAMES = ["plain", "narrow"]


@pytest.fixture(scope="module")
def restore() -> Restore:
    policies = [PolicySettings(name=name, objective=name, adapter=name) for name in NAMES]
    with gr.Blocks():
        faders, channels, _ = build_faders(policies, ["#000000"] * 2, NAMES)
        more = build_more(100)
        choices = [("Faders", FADERS), ("Reference", REFERENCE)]
        controls = Controls(
            gr.Textbox(elem_id="prompt"),
            MixtureControls(faders, channels, more.rule, more.gain, more.exponent),
            {side: gr.Dropdown(choices, value=FADERS, elem_id=f"mixture-{side}") for side in SIDES[:3]},
            gr.Textbox("left,right", visible="hidden"),
            gr.Textbox("[]", visible="hidden"),
            sampling=more.sampling, stop=more.stop, seed=more.seed, new_seed=more.new_seed, gathered=gr.Textbox(),
        )  # fmt: skip
        outputs: Any = SimpleNamespace(status=gr.HTML())
    return Restore(controls, outputs)


def kept(**changes: Any) -> str:
    mixture = {"faders": {"plain": 0.25, "narrow": 1}, "channels": {}, "rule": "geometric", "gain": 1, "exponent": 1}
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    panels = {"left": FADERS, "right": REFERENCE, "third": FADERS}
    sampling = {"temperature": 0.3, "min_p": 0, "max_new_tokens": 20}
    state = {"prompt": "typed", "turns": turns, "mixture": mixture, "panels": panels, "sampling": sampling}
    return json.dumps({**state, "seed": "not yet a number", "new_seed": True, **changes})


def test_what_was_typed_chosen_and_moved_is_there_again(restore: Restore) -> None:
    changes, controls = restore.restore(kept(), ""), restore.controls
    assert changes[controls.prompt] == "typed"
    assert [changes[fader] for fader in controls.mixture.faders.values()] == [0.25, 1]
    assert changes[controls.mixtures["right"]] == REFERENCE
    assert changes[controls.panels] == "left,right,third"
    assert len(json.loads(changes[controls.turns])) == 2
    assert (changes[controls.seed], changes[controls.new_seed]) == ("not yet a number", True)
    assert "before the reload" in changes[restore.outputs.status]
    assert "The server is back." in restore.restore(kept(), "back")[restore.outputs.status]


def test_the_text_is_kept_where_the_rest_does_not_fit(restore: Restore) -> None:
    controls = restore.controls
    changes = restore.restore(kept(panels={"left": "policy:gone", "right": REFERENCE}), "")
    assert changes[controls.prompt] == "typed" and controls.new_seed not in changes
    assert len(json.loads(changes[controls.turns])) == 2
    assert "before the reload: this desk has no mixture “policy:gone”" in changes[restore.outputs.status]
    assert "cannot be read" in restore.restore("{", "")[restore.outputs.status]


def test_the_scripts_know_what_can_be_seen(restore: Restore) -> None:
    controls = restore.controls
    assert field(("panels", "left"), controls.mixtures["left"]) == {
        "path": ["panels", "left"],
        "id": "mixture-left",
        "choices": [["Faders", FADERS], ["Reference", REFERENCE]],
    }
    assert field(("turns",), controls.turns)["id"] == ""
    for path, component in controls.by_path().items():
        assert field(path, component)["id"] or component.visible == "hidden", path
