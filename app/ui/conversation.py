"""Multi-turn conversations: the transcript above the prompt, Reply on a panel, Back, and New conversation.

static/js/turns.js draws the transcript.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.format import in_short
from app.schemas import conversation
from app.services.app_state import Desk
from app.services.visitor import session
from app.ui.controls import Controls, Outputs
from app.ui.mixture_controls import Changes, Values
from app.ui.shortcuts import labelled
from engine import InputError
from engine.messages import last_of

TRANSCRIPT = (
    '<details open><summary>Conversation<span id="turn-count"></span></summary>'
    '<div id="transcript" role="region" tabindex="0" aria-label="What was said so far"></div></details>'
)


@dataclass
class ConversationParts:
    """The conversation's components."""

    turns: gr.Textbox  # unseen: what was said before the prompt, as JSON
    back: gr.Button
    fresh: gr.Button


def build_conversation() -> ConversationParts:
    """Build the transcript and its buttons, which are visible from the second turn on."""
    turns = gr.Textbox("[]", visible="hidden", label="Conversation", elem_id="turns")
    with gr.Column(elem_id="conversation"):
        gr.HTML(TRANSCRIPT)
        with gr.Row(elem_id="conversation-tools"):
            back = gr.Button(labelled("Back", "back"), size="sm", elem_id="back", min_width=90, scale=0)
            fresh = gr.Button(
                labelled("New conversation", "new-conversation"),
                size="sm",
                elem_id="new-conversation",
                min_width=90,
                scale=0,
            )
    turns.change(None, [turns], js="(turns) => mixdesk.turns.show(turns)")
    return ConversationParts(turns, back, fresh)


class Conversation:
    """Handlers of the conversation. `cleared` returns updates that empty the outputs."""

    def __init__(
        self,
        desk: Desk,
        controls: Controls,
        outputs: Outputs,
        parts: ConversationParts,
        cleared: Callable[[], Changes],
    ) -> None:
        self.desk, self.controls, self.outputs, self.parts, self.cleared = desk, controls, outputs, parts, cleared

    def connect(self) -> None:
        """Register the event handlers."""
        controls, outputs, parts = self.controls, self.outputs, self.parts
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        read: set[Any] = {controls.prompt, parts.turns}
        written: list[Any] = [controls.prompt, parts.turns]
        write = {"fn": None, "js": "() => mixdesk.turns.write()"}
        for side, button in outputs.replies.items():
            button.click(self.reply(side), read, [*written, outputs.status], **quiet).then(**write)
        parts.back.click(self.back, read, [*written, *outputs.all()], **quiet).then(**write)
        parts.fresh.click(self.fresh, None, [*written, *outputs.all()], **quiet).then(**write)

    def reply(self, side: str) -> Callable[..., Changes]:
        """Return the handler of a panel's Reply button."""

        def reply(values: Values, request: gr.Request) -> Changes:
            """Continue the conversation from this panel's response, which replaces another choice at the same turn."""
            controls, outputs = self.controls, self.outputs
            run = self.desk.runs.get(session(request))
            made = run.completions.get(side) if run else None
            if run is None or made is None or not made.text.strip():
                return outputs.say(f"There is no {side} response to reply to: press Generate first.", "bad")
            try:
                before = conversation.parse(values[self.parts.turns])
            except InputError:
                before = []
            turns = conversation.replied(before, run.prompt, made.text, f"{side.title()} · {in_short(made.mixture)}")
            # What is not the message that was answered is a draft of the next.
            draft = values[controls.prompt] or ""
            return {
                self.parts.turns: conversation.dump(turns),
                controls.prompt: "" if draft == last_of(run.prompt) else draft,
                **outputs.say(f"The conversation continues from the {side} response: write the next message."),
            }

        return reply

    def back(self, values: Values, request: gr.Request) -> Changes:
        """Remove the last turn and restore its message to the prompt.

        The turn's responses stay if they are still the session's newest run.
        """
        try:
            turns = conversation.parse(values[self.parts.turns])
        except InputError as error:
            return self.outputs.say(str(error), "bad")
        if not turns:
            return self.outputs.say("There is no turn to go back to.", "bad")
        kept, prompt = turns[:-2], turns[-2].content
        run = self.desk.runs.get(session(request))
        answered = run is not None and run.prompt == conversation.question_turns(kept, prompt)
        return {
            **({} if answered else self.leave(request)),
            self.parts.turns: conversation.dump(kept),
            self.controls.prompt: prompt,
            **self.outputs.say("One turn back: change its message, or choose another response."),
        }

    def fresh(self, request: gr.Request) -> Changes:
        """Start a new conversation."""
        return {
            **self.leave(request),
            self.parts.turns: "[]",
            self.controls.prompt: "",
            **self.outputs.say("A new conversation: write its first message."),
        }

    def leave(self, request: gr.Request) -> Changes:
        """Stop and forget the session's run, and return updates that empty the outputs."""
        self.desk.forget(session(request))
        return self.cleared()
