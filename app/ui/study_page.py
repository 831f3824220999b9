"""The page of a study: its states, how far it is, its people, its responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from app.charts import study_view
from app.html import message
from app.schemas.study import StudyState
from app.services.app_state import Desk
from app.services.studies import Generation
from app.services.visitor import Visitor
from app.storage.studies import StudyEntry
from app.ui.mixture_controls import Changes, Values
from app.ui.owner_only import owner_only
from app.ui.shortcuts import labelled
from app.ui.study_people_part import StudyPeoplePart
from app.ui.study_reader import StudyReader

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


class StudyPage:
    """The components and their handlers."""

    def __init__(self, desk: Desk, listing: gr.Radio, home: str, show: Callable[[str | None], Changes]) -> None:
        """Initialise.

        Args:
            desk: The desk.
            listing: Holds the id of the study that is shown.
            home: Relative address of the site from this page.
            show: Returns updates of the list and of a study, or of the newest.
        """
        self.desk, self.studies, self.listing, self.home, self.show = desk, desk.studies, listing, home, show
        self.people, self.reader = StudyPeoplePart(desk, listing, home), StudyReader(desk, listing, self.counted)

    def build(self) -> None:
        """Build the components within the current Blocks context."""

        def button(text: str, name: str, **look: Any) -> gr.Button:
            return gr.Button(text, size="sm", elem_id=f"study-{name}", min_width=80, scale=0, **look)

        with gr.Row(elem_id="study-head"):
            self.title = gr.HTML("", elem_id="study-title")
            self.open = button("Open", "open", variant="primary")
            self.pause = button("Pause", "pause")
            self.stop = button(labelled("Stop", "study-stop"), "stop")
            self.resume = button(labelled("Resume", "study-resume"), "resume")
            self.edit = button("Edit", "edit")
            self.duplicate = button("Duplicate", "duplicate")
            self.close = button("Close…", "close")
            self.delete = button("Delete…", "delete")
        with gr.Row(visible=False, elem_id="study-confirm") as self.confirm:
            self.question = gr.HTML("", elem_id="study-question")
            self.unwanted = gr.Checkbox(
                False, label="They are exported, or not needed", visible=False, elem_id="study-unwanted"
            )
            self.sure_close = button("Close it", "sure-close", variant="stop")
            self.sure_delete = button("Delete it", "sure-delete", variant="stop")
            self.keep = button("Keep it", "keep")
        self.progress = gr.HTML("", elem_id="study-progress")
        self.reader.build()
        self.people.build()

    def outputs(self) -> list[Any]:
        """Return the components that `changes` updates."""
        return [
            self.title, self.open, self.pause, self.stop, self.resume, self.edit, self.duplicate, self.close,
            self.delete, *self.confirming(), self.progress, *self.people.outputs(), *self.reader.outputs(),
        ]  # fmt: skip

    def confirming(self) -> list[Any]:
        """Return the components of a question that is to be confirmed."""
        return [self.confirm, self.question, self.unwanted, self.sure_close, self.sure_delete]

    def connect(self, status: gr.HTML, view: list[Any]) -> None:
        """Register the handlers, which report in `status`. view: what `show` updates."""
        self.status = status
        chosen: set[Any] = {self.listing}
        for button, handler in (
            (self.open, self.opening),
            (self.pause, self.pausing),
            (self.stop, self.stopping),
            (self.resume, self.resuming),
            (self.duplicate, self.duplicating),
            (self.sure_close, self.closing),
            (self.sure_delete, self.deleting),
        ):
            button.click(owner_only(handler, status), {self.listing, self.unwanted}, view, **QUIET)
        for button, ask in ((self.close, self.ask_to_close), (self.delete, self.ask_to_delete)):
            button.click(owner_only(ask, status), chosen, [*self.confirming(), status], **QUIET)
        self.keep.click(lambda: gr.Row(visible=False), None, [self.confirm], **QUIET)
        self.people.connect(status)
        self.reader.connect(status, [self.progress])

    # ------------------------------------------------------------------------------------------------ its states

    def opening(self, values: Values, _: Visitor) -> Changes:
        """Open the chosen study."""
        study = values[self.listing]
        pairs = self.studies.open(study)
        said = "Open again." if pairs is None else f"Open, with {len(pairs.items)} pairs. Now invite people."
        return {**self.show(study), self.status: message(said, "good")}

    def pausing(self, values: Values, _: Visitor) -> Changes:
        """Pause the chosen study."""
        self.studies.pause(values[self.listing])
        said = message("Paused: nobody gets another pair until it is opened again.", "good")
        return {**self.show(values[self.listing]), self.status: said}

    def stopping(self, values: Values, visitor: Visitor) -> Changes:
        """Stop the generation of the chosen study."""
        self.studies.stop(values[self.listing], visitor)
        return {self.status: message("Stopping; what is finished is kept.")}

    def resuming(self, values: Values, visitor: Visitor) -> Changes:
        """Resume the generation of the chosen study."""
        self.studies.resume(self.desk.engine, values[self.listing], visitor)
        return self.show(values[self.listing])

    def duplicating(self, values: Values, _: Visitor) -> Changes:
        """Make a draft with the same settings and responses, and show it."""
        study = self.studies.duplicate(values[self.listing])
        return {**self.show(study), self.status: message("A draft with the same settings and responses.", "good")}

    def ask_to_close(self, values: Values, _: Visitor) -> Changes:
        """Ask for confirmation before a study is closed."""
        entry = self.studies.tables.entry(values[self.listing])
        rest = f"{entry.wanted - entry.answered:,} of its {entry.wanted:,} ratings are missing. "
        said = (
            f"Close “{entry.name}” for good? {rest if entry.answered < entry.wanted else ''}It cannot be opened again."
        )
        return self.asked(said, self.sure_close)

    def ask_to_delete(self, values: Values, _: Visitor) -> Changes:
        """Ask for confirmation before a study is deleted: its ratings are exported first."""
        entry = self.studies.tables.entry(values[self.listing])
        if not entry.answered:
            return self.asked(f"Delete “{entry.name}”? That cannot be undone.", self.sure_delete)
        said = f"Delete “{entry.name}” with its {study_view.counted(entry.answered, 'rating')}? Export them first."
        return self.asked(said, self.sure_delete) | {self.unwanted: gr.Checkbox(False, visible=True)}

    def asked(self, question: str, button: gr.Button) -> Changes:
        """Return updates that show a question with its confirming button."""
        return {
            self.confirm: gr.Row(visible=True),
            self.question: message(question),
            self.unwanted: gr.Checkbox(False, visible=False),
            **{yes: gr.Button(visible=yes is button) for yes in (self.sure_close, self.sure_delete)},
        }

    def closing(self, values: Values, _: Visitor) -> Changes:
        """Close the chosen study."""
        self.studies.close(values[self.listing])
        return {**self.show(values[self.listing]), self.status: message("Closed.", "good")}

    def deleting(self, values: Values, _: Visitor) -> Changes:
        """Delete the chosen study and show the newest."""
        self.studies.delete(values[self.listing], bool(values[self.unwanted]))
        return {**self.show(None), self.status: message("Deleted.", "good")}

    # --------------------------------------------------------------------------------------------- what is shown

    def counted(self, study: str) -> Changes:
        """Return an update of the line with the number of pairs."""
        return {self.progress: self.how_far(self.studies.tables.entry(study), self.studies.generation(study))}

    def changes(self, entry: StudyEntry, generation: Generation | None, place: int = 0) -> Changes:
        """Return updates that show a study, with the responses to the prompt at this place."""
        settings = self.studies.tables.settings(entry.id)
        return {
            self.title: study_view.study_heading(entry, settings, self.home),
            **self.buttons(entry, generation),
            self.confirm: gr.Row(visible=False),
            self.progress: self.how_far(entry, generation),
            **self.people.shown(entry.id),
            **self.reader.shown(entry.id, place),
        }

    def buttons(self, entry: StudyEntry, generation: Generation | None) -> Changes:
        """Return updates of the buttons: those that can do something with a study in its state."""
        draft, opened = entry.state is StudyState.DRAFT, entry.state is StudyState.OPEN
        running = generation is not None and generation.job is not None
        missing = draft and generation is not None and not generation.finished
        visible = {
            self.open: (draft and not missing) or entry.state is StudyState.PAUSED,
            self.pause: opened,
            self.stop: running,
            self.resume: missing and not running,
            self.edit: draft,
            self.duplicate: entry.comparison_id is not None,
            self.close: opened or entry.state is StudyState.PAUSED,
            self.delete: not running,
        }
        return {button: gr.Button(visible=seen) for button, seen in visible.items()}

    def how_far(self, entry: StudyEntry, generation: Generation | None) -> str:
        """Return the progress of a study as HTML: of its responses, then of its ratings."""
        if entry.state is not StudyState.DRAFT:
            return study_view.answers_progress(entry)
        if generation is not None and not generation.finished:
            return study_view.generation_progress(generation)
        return study_view.pairs_line(self.studies.pairs(entry.id), self.studies.tables.settings(entry.id))
