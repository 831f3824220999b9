"""The desk after a reload of its page: the settings that static/js/restore.js has kept, and the responses as text."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from app.html import message
from app.schemas import conversation
from app.schemas.desk_state import read_state
from app.ui.controls import Controls, Outputs
from app.ui.mixture_controls import Changes
from engine import InputError

BACK = "The server is back. Press Generate to try again."
RELOADED = "The desk is as it was before the reload."


class Restore:
    """Components and handlers that report the desk's settings to the page's scripts and set them again."""

    def __init__(self, controls: Controls, outputs: Outputs) -> None:
        self.controls, self.outputs = controls, outputs

    def connect(self) -> None:
        """Build the hidden components and register the event handlers."""
        controls, outputs = self.controls, self.outputs
        blocks = gr.context.Context.root_block
        assert blocks is not None
        fields = json.dumps([field(path, component) for path, component in controls.by_path().items()])
        blocks.load(None, controls.components(), js=f"(...values) => mixdesk.restore.begin({fields}, values)")
        for i, (path, component) in enumerate(controls.by_path().items()):
            if path[0] != "mixture":  # of which the mixer's events tell
                component.change(None, [component], js=f"(value) => mixdesk.restore.note({i}, value)")
        kept = gr.Textbox(visible="hidden", label="Settings from before the reload")
        why = gr.Textbox(visible="hidden", label="Reason of the reload")
        press = gr.Button(visible="hidden", elem_id="restore")
        restored = press.click(
            self.restore,
            [kept, why],
            [*controls.components(), outputs.status],
            js="() => mixdesk.restore.kept()",
            show_progress="hidden",
            queue=False,
            api_visibility="private",
        )
        sides = json.dumps(list(outputs.captions))
        restored.then(
            None,
            None,
            list(outputs.captions.values()),
            js=f"() => {{ mixdesk.filled(); return mixdesk.restore.responses({sides}); }}",
        )

    def restore(self, kept: str, why: str) -> Changes:
        """Return updates that set the desk as it was.

        Args:
            kept: The settings as JSON of a `DeskState`.
            why: "back" if the server was away, else "".
        """
        controls = self.controls
        try:
            state = read_state(kept)
        except InputError:
            return {self.outputs.status: message("The settings from before the reload cannot be read.", "bad")}
        try:
            changes = controls.changes(controls.checked(state, "before the reload: "))
        except InputError as error:
            # Another configuration: the text is still of use.
            text = {controls.prompt: state.prompt, controls.turns: conversation.dump(state.turns)}
            return {**text, self.outputs.status: message(str(error), "bad")}
        return {**changes, self.outputs.status: message(BACK if why == "back" else RELOADED)}


def field(path: tuple[str, ...], component: Any) -> dict[str, Any]:
    """Return what static/js/restore.js knows of a setting: its path, its visible element, and its labelled choices."""
    hidden = component.visible == "hidden"
    choices = [list(choice) for choice in component.choices] if isinstance(component, gr.Dropdown) else []
    return {"path": list(path), "id": "" if hidden else component.elem_id or "", "choices": choices}
