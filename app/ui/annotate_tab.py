"""The Annotate tab: studies, in which people say which of two responses is better. For the desk's owner only."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.charts import study_view
from app.html import message
from app.schemas.study import StudySettings, StudyState
from app.services.app_state import Desk
from app.services.studies import Generation
from app.services.study_form import form_of, read_study_form
from app.services.visitor import Visitor, visitor_of
from app.storage.studies import StudyEntry
from app.ui.controls import Steering
from app.ui.mixture_choice import MixtureChoice
from app.ui.mixture_controls import Changes, Values
from app.ui.owner_only import owner_only
from app.ui.prompt_upload import PromptUpload
from app.ui.sampling_fields import SamplingFields, parse_most
from app.ui.shortcuts import labelled
from app.ui.study_fields import StudyFields
from app.ui.study_people_part import StudyPeoplePart
from app.ui.study_reader import StudyReader

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
FIRST = "24"  # prompts, by default
COMPARISON = "comparison:"  # followed by its number: a choice of the prompts
TICK = 2.0  # seconds
VISITORS = "<p>Studies are made here by the desk's owner. If you were invited to one, open the link that you were sent.</p>"
ABOUT = """<p>A study shows people two responses at a time and asks which is better; they do not see which mixture wrote
them. The responses are generated first. You read them, open the study and invite people.</p>"""


class AnnotateTab:
    """The tab's components and their event handlers. `home` is the relative address of the site from this page."""

    def __init__(self, desk: Desk, steering: Steering, home: str = "./") -> None:
        self.desk, self.studies, self.home = desk, desk.studies, home
        self.given = PromptUpload(desk.engine, "study", self.finished_comparisons)
        self.choice = MixtureChoice(desk, steering.mixture, "study")
        self.sampling = SamplingFields("study")
        self.fields = StudyFields(list(desk.colours))

    # ------------------------------------------------------------------------------------------------------ the page

    def build(self, tab: gr.Tab) -> None:
        """Build the tab's components and register their handlers."""
        self.visitors = gr.HTML(VISITORS, visible=False, elem_id="annotate-visitors", elem_classes="teach")
        with gr.Row(visible=False, elem_id="annotate", equal_height=False) as self.content:
            with gr.Column(visible=False, elem_id="annotate-list", min_width=220) as self.side:
                gr.HTML("<h2>Studies</h2>")
                self.new = gr.Button("New study", size="sm", elem_id="study-new")
                self.listing = gr.Radio([], label="Studies", show_label=False, elem_id="study-list")
            with gr.Column(elem_id="annotate-main", min_width=280):
                self.status = gr.HTML(
                    "",
                    html_template='<p role="status" aria-live="polite">${value}</p>',
                    js_on_load="mixdesk.choices.begin(element, 'annotate-tab', 'study-mixtures');",
                    elem_id="annotate-status",
                )
                with gr.Column(visible=False, elem_id="study-form") as self.form:
                    self.build_form()
                with gr.Column(visible=False, elem_id="study-page") as self.page:
                    self.build_page()
        self.editing: gr.State = gr.State(None)  # the draft that the form changes, or None
        self.seen: gr.State = gr.State({})
        self.timer = gr.Timer(TICK, active=False)
        self.connect(tab)

    def build_form(self) -> None:
        """Build the form of a study."""
        self.heading = gr.HTML("<h2>New study</h2>")
        self.about = gr.HTML(ABOUT, elem_classes="hint")
        self.name = gr.Textbox(label="Name", max_lines=1, elem_id="study-name", placeholder="shown to annotators too")
        with gr.Row(elem_id="study-columns", equal_height=False):
            with gr.Column(min_width=260) as self.made:
                self.given.build()
                with gr.Column(elem_classes="study-generated") as self.generated:
                    self.most = gr.Textbox(
                        FIRST, label="How many (empty for all)", max_lines=1, elem_id="study-prompt-count",
                        placeholder="all",
                    )  # fmt: skip
                    self.choice.build("Mixtures")
                    with gr.Accordion("Sampling", open=False, elem_id="study-sampling"):
                        self.sampling.build()
            with gr.Column(min_width=260):
                self.fields.build_questions()
                self.fields.build_guidelines()
        self.fields.build_more()
        with gr.Row(elem_id="study-go"):
            self.create = gr.Button(
                labelled("Create and generate", "study-create"), variant="primary", elem_id="study-create"
            )
            self.cancel = gr.Button("Cancel", elem_id="study-cancel", min_width=90, scale=0)

    def build_page(self) -> None:
        """Build the page of the chosen study."""

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
        self.people = StudyPeoplePart(self.desk, self.listing, self.home)
        self.reader = StudyReader(self.desk, self.listing)
        self.people.build()
        self.reader.build()

    def connect(self, tab: gr.Tab) -> None:
        """Register the event handlers."""
        quick = {**QUIET, "queue": False}
        confirming = [self.confirm, self.question, self.unwanted, self.sure_close, self.sure_delete]
        view = [
            self.visitors, self.content, self.side, self.listing, self.form, self.page, self.title, self.open,
            self.pause, self.stop, self.resume, self.edit, self.duplicate, self.close, self.delete, *confirming,
            self.progress, *self.people.outputs(), *self.reader.outputs(), self.seen, self.timer, self.status,
        ]  # fmt: skip
        filled = [
            self.heading, self.about, self.made, self.name, self.create, self.cancel, self.editing,
            *self.fields.components(), self.fields.previewed, self.fields.counted,
        ]  # fmt: skip
        chosen = {self.listing}

        def on(event: Any, handler: Any, inputs: Any, outputs: list[Any], **how: Any) -> None:
            event(owner_only(handler, self.status), inputs, outputs, **{**quick, **how})

        tab.select(self.arriving, chosen, [*view, self.choice.mixtures, self.given.prompts], **quick)
        on(self.timer.tick, self.tick, {self.listing, self.seen}, view)
        on(self.listing.input, lambda values, _: self.shown(values[self.listing]), chosen, view)
        on(self.new.click, lambda *_: self.blank(), None or set(), [*view, *filled])
        on(self.edit.click, self.editing_draft, chosen, [*view, *filled])
        on(self.cancel.click, lambda values, _: self.shown(values[self.listing]), chosen, view)
        form = {
            self.editing, self.name, self.given.prompts, self.given.file, self.most, *self.choice.components(),
            *self.sampling.components(), *self.fields.components(), self.listing,
        }  # fmt: skip
        on(self.create.click, self.creating, form, [*view, self.editing], queue=True, concurrency_limit=None)
        on(self.open.click, self.opening, chosen, view)
        on(self.pause.click, self.pausing, chosen, view)
        on(self.stop.click, self.stopping, chosen, view)
        on(self.resume.click, self.resuming, chosen, view)
        on(self.duplicate.click, self.duplicating, chosen, view)
        on(self.close.click, lambda values, _: self.ask_to_close(values[self.listing]), chosen, confirming)
        on(self.delete.click, lambda values, _: self.ask_to_delete(values[self.listing]), chosen, confirming)
        on(self.sure_close.click, self.closing, chosen, view)
        on(self.sure_delete.click, self.deleting, {self.listing, self.unwanted}, view)
        self.keep.click(lambda: gr.Row(visible=False), None, [self.confirm], **quick)
        self.given.prompts.change(
            None,
            [self.given.prompts],
            [self.generated],
            js=f"(chosen) => mixdesk.annotate.hidden((chosen ?? '').startsWith({COMPARISON!r}))",
        )
        self.given.connect(self.status)
        self.choice.connect(self.status)
        self.fields.connect(self.status)
        self.people.connect(self.status)
        self.reader.connect(self.status)

    # -------------------------------------------------------------------------------------------------- the form

    def finished_comparisons(self) -> list[tuple[str, str]]:
        """Return the finished comparisons as choices of the prompts."""
        return [
            (f"Comparison {entry.id}: {entry.source}, {len(entry.mixtures)} mixtures", f"{COMPARISON}{entry.id}")
            for entry in self.desk.comparisons.tables.listing()
            if entry.finished
        ]

    def blank(self) -> Changes:
        """Return updates that show an empty form."""
        return {
            **self.formed("New study", "Create and generate"),
            self.name: "",
            self.made: gr.Column(visible=True),
            self.about: gr.HTML(visible=True),
            self.cancel: gr.Button(visible=bool(self.studies.tables.listing())),
            self.editing: None,
        }

    def formed(self, heading: str, button: str) -> Changes:
        """Return updates that show the form instead of a study."""
        return {
            self.heading: f"<h2>{heading}</h2>",
            self.create: labelled(button, "study-create"),
            self.form: gr.Column(visible=True),
            self.page: gr.Column(visible=False),
            self.timer: gr.Timer(active=False),
            self.status: "",
        }

    def editing_draft(self, values: Values, _: Visitor) -> Changes:
        """Show the settings of a draft in the form."""
        study = values[self.listing]
        settings = self.studies.tables.settings(study)
        return {
            **self.formed("Change the draft", "Save"),
            **self.fields.changes(form_of(settings)),
            self.name: settings.name,
            self.made: gr.Column(visible=False),
            self.about: gr.HTML(visible=False),
            self.cancel: gr.Button(visible=True),
            self.editing: study,
        }

    def creating(self, values: Values, visitor: Visitor) -> Changes:
        """Make the study that the form describes, or change the draft."""
        if (draft := values[self.editing]) is not None:
            settings = self.settings(values, self.studies.tables.settings(draft).seed)
            self.studies.change(draft, settings)
            return {**self.shown(draft), self.editing: None, self.status: message("Saved.", "good")}
        source = values[self.given.prompts] or ""
        if source.startswith(COMPARISON):
            comparison = int(source.removeprefix(COMPARISON))
            seed = self.desk.comparisons.tables.plan(comparison).seed
            study = self.studies.create_from(self.settings(values, seed), comparison)
            return self.shown(study)
        sampling, seed = self.sampling.read(values)
        settings = self.settings(values, seed)
        prompts, mixtures = self.given.chosen(values), self.choice.chosen(values)
        most = parse_most(values[self.most])
        return self.shown(
            self.studies.create(self.desk.engine, settings, prompts, mixtures, sampling, most, visitor)
        )

    def settings(self, values: Values, seed: int) -> StudySettings:
        """Return the settings in the form."""
        return read_study_form(self.fields.form(values, values[self.name] or "", seed))

    # ------------------------------------------------------------------------------------------------ its states

    def opening(self, values: Values, _: Visitor) -> Changes:
        """Open the chosen study."""
        study = values[self.listing]
        pairs = self.studies.open(study)
        said = "Open again." if pairs is None else f"Open: {len(pairs.items)} pairs. Invite people, or send them its address."
        return {**self.shown(study), self.status: message(said, "good")}

    def pausing(self, values: Values, _: Visitor) -> Changes:
        """Pause the chosen study."""
        self.studies.pause(values[self.listing])
        said = message("Paused: nobody gets another pair until it is opened again.", "good")
        return {**self.shown(values[self.listing]), self.status: said}

    def stopping(self, values: Values, visitor: Visitor) -> Changes:
        """Stop the generation of the chosen study."""
        self.studies.stop(values[self.listing], visitor)
        return {self.status: message("Stopping; what is finished is kept.")}

    def resuming(self, values: Values, visitor: Visitor) -> Changes:
        """Resume the generation of the chosen study."""
        self.studies.resume(self.desk.engine, values[self.listing], visitor)
        return self.shown(values[self.listing])

    def duplicating(self, values: Values, _: Visitor) -> Changes:
        """Make a draft with the same settings and responses, and show it."""
        study = self.studies.duplicate(values[self.listing])
        return {**self.shown(study), self.status: message("A draft with the same settings and responses.", "good")}

    def ask_to_close(self, study: str) -> Changes:
        """Ask for confirmation before a study is closed."""
        entry = self.studies.tables.entry(study)
        rest = f"{entry.wanted - entry.answered:,} of its {entry.wanted:,} ratings are missing. "
        said = f"Close “{entry.name}” for good? {rest if entry.answered < entry.wanted else ''}It cannot be opened again."
        return self.asked(said, self.sure_close)

    def ask_to_delete(self, study: str) -> Changes:
        """Ask for confirmation before a study is deleted: its ratings are exported first."""
        entry = self.studies.tables.entry(study)
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
        return {**self.shown(values[self.listing]), self.status: message("Closed.", "good")}

    def deleting(self, values: Values, _: Visitor) -> Changes:
        """Delete the chosen study and show the newest."""
        self.studies.delete(values[self.listing], bool(values[self.unwanted]))
        return {**self.shown(None), self.status: message("Deleted.", "good")}

    # --------------------------------------------------------------------------------------------- what is shown

    def arriving(self, values: Values, request: gr.Request) -> Changes:
        """Show the tab to the owner, and one sentence to others."""
        visitor = visitor_of(request)
        if not visitor.owner:
            return {self.visitors: gr.HTML(visible=True), self.content: gr.Row(visible=False)}
        shown = owner_only(lambda values, _: self.shown(values[self.listing]), self.status)(values, request)
        return {
            self.content: gr.Row(visible=True),
            **self.choice.listed(),
            self.given.prompts: gr.Dropdown(choices=self.given.choices()),
            **shown,
        }

    def shown(self, study: str | None) -> Changes:
        """Return updates of the list and of this study, or of the newest if it does not exist."""
        entries = self.studies.tables.listing()
        if not entries:
            return {
                self.side: gr.Column(visible=False),
                self.listing: gr.Radio([], value=None),
                self.form: gr.Column(visible=True),
                self.cancel: gr.Button(visible=False),
                self.page: gr.Column(visible=False),
                self.timer: gr.Timer(active=False),
                self.status: "",
            }
        entry = next((one for one in entries if one.id == study), entries[0])
        choices = self.labels(entries)
        generation = self.studies.generation(entry.id)
        settings = self.studies.tables.settings(entry.id)
        return {
            self.side: gr.Column(visible=True),
            self.listing: gr.Radio(choices, value=entry.id),
            self.form: gr.Column(visible=False),
            self.page: gr.Column(visible=True),
            self.title: study_view.study_heading(entry, settings, self.home),
            **self.buttons(entry, generation),
            self.confirm: gr.Row(visible=False),
            self.progress: self.how_far(entry, generation),
            **self.people.shown(entry.id),
            **self.reader.shown(entry.id),
            self.seen: self.state_of(entry, generation),
            self.timer: gr.Timer(active=self.moves(entry, generation)),
            self.status: "",
        }

    def labels(self, entries: list[StudyEntry]) -> list[tuple[str, str]]:
        """Return the list's choices."""
        drafts = {entry.id for entry in entries if entry.state is StudyState.DRAFT}
        return [
            (study_view.study_label(entry, self.studies.generation(entry.id) if entry.id in drafts else None), entry.id)
            for entry in entries
        ]

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

    @staticmethod
    def moves(entry: StudyEntry, generation: Generation | None) -> bool:
        """Return whether a study changes without its owner."""
        return entry.state is StudyState.OPEN or (generation is not None and generation.job is not None)

    @staticmethod
    def state_of(entry: StudyEntry, generation: Generation | None) -> dict[str, Any]:
        """Return what decides which buttons a study has."""
        running = generation is not None and generation.job is not None
        return {"study": entry.id, "state": entry.state.value, "running": running}

    def tick(self, values: Values, _: Visitor) -> Changes:
        """Return updates of the progress; of everything if the study's state has changed."""
        study = values[self.listing]
        entries = self.studies.tables.listing()
        entry = next((one for one in entries if one.id == study), None)
        if entry is None:
            return self.shown(None)
        generation = self.studies.generation(entry.id)
        if values[self.seen] != self.state_of(entry, generation):
            return self.shown(study)
        changes = {self.progress: self.how_far(entry, generation)}
        return changes if entry.state is StudyState.DRAFT else {**changes, **self.people.counted(study)}


def build_annotate_tab(desk: Desk, tab: gr.Tab, steering: Steering, home: str = "./") -> None:
    """Build the Annotate tab."""
    AnnotateTab(desk, steering, home).build(tab)
