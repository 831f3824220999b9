"""The responses of a study, prompt by prompt, and its training and gold pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from app.charts import study_view
from app.charts.comparison import looks
from app.html import message
from app.schemas.study import ItemKind, StudyState
from app.services.app_state import Desk
from app.services.visitor import Visitor
from app.ui.mixture_controls import Changes, Values
from app.ui.owner_only import acted, owner_only
from engine import InputError

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
EXPECTED = [
    ("The first is better", "first"),
    ("The second is better", "second"),
    ("Tie", "tie"),
    ("Both bad", "both_bad"),
]
KINDS = [("Gold", ItemKind.GOLD.value), ("Training", ItemKind.TRAINING.value)]


class StudyReader:
    """The components and their handlers. `study` holds the id of the study that is shown."""

    def __init__(self, desk: Desk, study: gr.Radio, count: Callable[[str], Changes]) -> None:
        """Initialise; `count` returns updates of what depends on the training and gold pairs of a study."""
        self.desk, self.studies, self.study, self.count = desk, desk.studies, study, count

    def build(self) -> None:
        """Build the components within the current Blocks context."""
        with gr.Accordion("Responses", open=True, elem_id="study-responses") as self.part:
            with gr.Row(elem_id="study-steps"):
                self.back = gr.Button("← Previous", size="sm", elem_id="study-previous", min_width=100, scale=0)
                self.next = gr.Button("Next →", size="sm", elem_id="study-next", min_width=100, scale=0)
            self.text = gr.HTML("", elem_id="study-reader")
            with gr.Row(visible=False, elem_id="study-use", elem_classes="study-row") as self.use:
                self.kind = gr.Dropdown(KINDS, value="gold", label="Use as", filterable=False, elem_id="study-use-as")
                self.first = gr.Dropdown([], label="First", filterable=False, elem_id="study-use-first")
                self.second = gr.Dropdown([], label="Second", filterable=False, elem_id="study-use-second")
                self.expected = gr.Dropdown(
                    EXPECTED, value="first", label="Expected", filterable=False, elem_id="study-use-expected"
                )
                self.feedback = gr.Textbox(label="Feedback, in training", max_lines=2, elem_id="study-use-feedback")
                self.add = gr.Button("Use this pair", size="sm", elem_id="study-use-add", min_width=110, scale=0)
            self.examples = gr.HTML(
                "",
                js_on_load="element.addEventListener('click', (event) => mixdesk.annotate.act(event, trigger));",
                elem_id="study-examples",
            )
        self.place: gr.State = gr.State(0)

    def outputs(self) -> list[Any]:
        """Return the components that `shown` and `read` update."""
        pair = [self.use, self.first, self.second]
        return [self.part, self.back, self.next, self.text, *pair, self.examples, self.place]

    def connect(self, status: gr.HTML, counted: list[Any]) -> None:
        """Register the handlers, which report in `status`. counted: what `count` updates."""
        self.status = status
        # Here, and not in what is shown and hidden: Gradio would show it with the rest.
        self.acted = gr.Textbox(visible="hidden", label="Removed pair")
        changed = [*self.outputs(), *counted, status]
        for button, step in ((self.back, -1), (self.next, 1)):
            button.click(owner_only(self.stepping(step), status), {self.study, self.place}, changed, **QUIET)
        inputs: set[Any] = {
            self.study, self.place, self.kind, self.first, self.second, self.expected, self.feedback
        }  # fmt: skip
        self.add.click(owner_only(self.using, status), inputs, [*changed, self.feedback], **QUIET)
        # The script hands on what was pressed; the inputs come in the order in which they were built.
        self.examples.select(
            owner_only(self.removing, status),
            {self.study, self.acted},
            changed,
            js="(study, _) => [study, mixdesk.annotate.acted()]",
            **QUIET,
        )

    def stepping(self, step: int) -> Any:
        """Return the handler of Previous, or of Next."""
        return lambda values, _: self.read(values[self.study], int(values[self.place]) + step)

    def using(self, values: Values, _: Visitor) -> Changes:
        """Use the pair for training or as gold."""
        kind, study, place = ItemKind(values[self.kind]), values[self.study], int(values[self.place])
        if values[self.first] is None or values[self.second] is None:
            raise InputError("Choose the first and the second response of the pair.")
        pair = int(values[self.first]), int(values[self.second])
        self.studies.add_example(study, kind, place, pair, [values[self.expected]], values[self.feedback] or "")
        said = message(f"The pair is one of the {kind.value} pairs now.", "good")
        return {self.examples: self.listed(study), self.feedback: "", **self.count(study), self.status: said}

    def removing(self, values: Values, _: Visitor) -> Changes:
        """Remove a training or gold pair."""
        act, number = acted(values[self.acted])
        if act not in (ItemKind.TRAINING.value, ItemKind.GOLD.value) or not number.isdecimal():
            return {}
        study = values[self.study]
        self.studies.remove_example(study, ItemKind(act), int(number))
        return {self.examples: self.listed(study), **self.count(study), self.status: message("Removed.", "good")}

    def listed(self, study: str) -> str:
        """Return the training and gold pairs as HTML."""
        entry, settings = self.studies.tables.entry(study), self.studies.tables.settings(study)
        examples = {ItemKind.TRAINING: settings.training, ItemKind.GOLD: settings.gold}
        return study_view.examples_list(examples, entry.state is StudyState.DRAFT)

    def shown(self, study: str, place: int = 0) -> Changes:
        """Return updates that show a study, with the responses to the prompt at this place."""
        entry = self.studies.tables.entry(study)
        choices = [(name, system) for system, name in enumerate(entry.systems)]
        draft = entry.state is StudyState.DRAFT
        return {
            **self.read(study, place),
            self.part: gr.Accordion(visible=entry.comparison_id is not None, open=draft),
            self.use: gr.Row(visible=draft and entry.comparison_id is not None),
            self.first: gr.Dropdown(choices=choices, value=0),
            self.second: gr.Dropdown(choices=choices, value=1),
            self.examples: self.listed(study),
        }

    def read(self, study: str, place: int) -> Changes:
        """Return updates that show the responses to one prompt, or to the nearest that there is."""
        comparison = self.studies.tables.entry(study).comparison_id
        if comparison is None:
            return {self.text: "", self.place: 0}
        tables = self.desk.comparisons.tables
        plan = tables.plan(comparison)
        place = max(0, min(place, len(plan.prompts) - 1))
        row = {response.mixture: response for response in tables.responses(comparison, place)}
        return {
            self.text: study_view.reader_value(place, plan.prompts, row, looks(plan.mixtures, self.desk.accents)),
            self.place: place,
            self.back: gr.Button(interactive=place > 0),
            self.next: gr.Button(interactive=place < len(plan.prompts) - 1),
        }
