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
from app.ui.prompt_upload import FIRST_PROMPTS, PromptUpload
from app.ui.sampling_fields import SamplingFields, parse_most
from app.ui.shortcuts import labelled
from app.ui.study_fields import BLANK, StudyFields
from app.ui.study_page import StudyPage
from app.ui.votes_upload import VotesUpload

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
FIRST_MIXTURES = 3  # by default: with more of them, the pairs are many
COMPARISON = "comparison:"  # followed by its number: a choice of the prompts
TICK = 2.0  # seconds
VISITORS = (
    "<p>Studies are made here by the desk's owner. If you were invited to one, open the link that you were sent.</p>"
)
ABOUT = """<p>A study shows people two responses at a time and asks which is better; they do not see which mixture wrote
them. The responses are generated first. You read them, open the study and invite people.</p>"""


class AnnotateTab:
    """The tab's components and their event handlers. `home` is the relative address of the site from this page."""

    def __init__(self, desk: Desk, steering: Steering, home: str = "./") -> None:
        self.desk, self.studies, self.home = desk, desk.studies, home
        self.given = PromptUpload(desk.engine, "study", self.finished_comparisons)
        self.choice = MixtureChoice(desk, steering.mixture, "study")
        self.sampling = SamplingFields("study")
        self.fields = StudyFields(list(desk.colours), desk.sign_in)
        self.votes = VotesUpload(desk, self.shown)

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
                    self.study = StudyPage(self.desk, self.listing, self.home, self.shown)
                    self.study.build()
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
                        str(FIRST_PROMPTS), label="How many (empty for all)", max_lines=1, elem_id="study-prompt-count",
                        placeholder="all",
                    )  # fmt: skip
                    self.choice.build("Mixtures", FIRST_MIXTURES)
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
        self.votes.build()

    def connect(self, tab: gr.Tab) -> None:
        """Register the event handlers."""
        quick = {**QUIET, "queue": False}
        view = [
            self.visitors, self.content, self.side, self.listing, self.form, self.page, *self.study.outputs(),
            self.seen, self.timer, self.status,
        ]  # fmt: skip
        filled = [
            self.heading, self.about, self.made, self.name, self.create, self.cancel, self.editing, self.votes.part,
            *self.fields.components(), self.fields.previewed, self.fields.counted,
        ]  # fmt: skip
        chosen: set[Any] = {self.listing}
        place = self.study.reader.place
        form: set[Any] = {
            self.editing, self.name, self.given.prompts, self.given.file, self.most, *self.choice.components(),
            *self.sampling.components(), *self.fields.components(),
        }  # fmt: skip

        def on(event: Any, handler: Any, inputs: set[Any], outputs: list[Any], **how: Any) -> None:
            event(owner_only(handler, self.status), inputs, outputs, **{**quick, **how})

        tab.select(
            self.arriving,
            {self.listing, place},
            [*view, self.choice.mixtures, self.given.prompts, self.cancel],
            **quick,
        )
        on(self.timer.tick, self.tick, {self.listing, self.seen, place}, view)
        on(self.listing.input, self.choosing, chosen, view)
        on(self.cancel.click, self.cancelling, {*chosen, self.editing}, [*view, *filled])
        on(self.new.click, self.blank, {self.editing}, [*view, *filled])
        on(self.study.edit.click, self.editing_draft, chosen, [*view, *filled])
        on(self.create.click, self.creating, form, [*view, *filled], queue=True, concurrency_limit=None)
        self.given.prompts.change(
            None,
            [self.given.prompts],
            [self.generated],
            js=f"(chosen) => mixdesk.annotate.hidden((chosen ?? '').startsWith({COMPARISON!r}))",
        )
        for part in (self.given, self.choice, self.fields):
            part.connect(self.status)
        self.study.connect(self.status, view)
        self.votes.connect(self.status, view)

    # -------------------------------------------------------------------------------------------------- the form

    def finished_comparisons(self) -> list[tuple[str, str]]:
        """Return the finished comparisons as choices of the prompts."""
        return [
            (f"Comparison {entry.id}: {entry.source}, {len(entry.mixtures)} mixtures", f"{COMPARISON}{entry.id}")
            for entry in self.desk.comparisons.tables.listing()
            if entry.finished
        ]

    def blank(self, values: Values, _: Visitor) -> Changes:
        """Return updates that show the form of a new study, with what was typed before unless that is a draft's."""
        return {
            **(self.fields.changes(BLANK) if values[self.editing] is not None else {}),
            **self.formed("New study", "Create and generate"),
            self.name: "",
            self.made: gr.Column(visible=True),
            self.votes.part: gr.Accordion(visible=True),
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
            self.votes.part: gr.Accordion(visible=False),
            self.about: gr.HTML(visible=False),
            self.cancel: gr.Button(visible=True),
            self.editing: study,
        }

    def creating(self, values: Values, visitor: Visitor) -> Changes:
        """Make the study that the form describes, or change the draft."""
        if (draft := values[self.editing]) is not None:
            settings = self.settings(values, self.studies.tables.settings(draft).seed)
            self.studies.change(draft, settings)
            return {**self.blank(values, visitor), **self.shown(draft), self.status: message("Saved.", "good")}
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
        return self.shown(self.studies.create(self.desk.engine, settings, prompts, mixtures, sampling, most, visitor))

    def settings(self, values: Values, seed: int) -> StudySettings:
        """Return the settings in the form."""
        return read_study_form(self.fields.form(values, values[self.name] or "", seed))

    # --------------------------------------------------------------------------------------------- what is shown

    def arriving(self, values: Values, request: gr.Request) -> Changes:
        """Show the tab to the owner, and one sentence to others."""
        visitor = visitor_of(request)
        if not visitor.owner:
            return {self.visitors: gr.HTML(visible=True), self.content: gr.Row(visible=False)}
        place = int(values[self.study.reader.place])
        shown = owner_only(lambda values, _: self.shown(values[self.listing], place), self.status)(values, request)
        return {
            self.content: gr.Row(visible=True),
            **self.choice.listed(),
            self.cancel: gr.Button(visible=bool(self.studies.tables.listing())),
            self.given.prompts: gr.Dropdown(choices=self.given.choices()),
            **shown,
        }

    def shown(self, study: str | None, place: int = 0) -> Changes:
        """Return updates of the list and of this study, or of the newest if it does not exist.

        Args:
            study: The study's id.
            place: The prompt whose responses are shown.
        """
        entries = self.studies.tables.listing()
        if not entries:
            return {
                self.side: gr.Column(visible=False),
                self.listing: gr.Radio([], value=None),
                self.form: gr.Column(visible=True),
                self.page: gr.Column(visible=False),
                self.timer: gr.Timer(active=False),
                self.status: "",
            }
        entry = next((one for one in entries if one.id == study), entries[0])
        choices = self.labels(entries)
        generation = self.studies.generation(entry.id)
        return {
            self.side: gr.Column(visible=True),
            self.listing: gr.Radio(choices, value=entry.id),
            self.form: gr.Column(visible=False),
            self.page: gr.Column(visible=True),
            **self.study.changes(entry, generation, place),
            self.seen: self.state_of(entry, generation),
            self.timer: gr.Timer(active=self.moves(entry, generation)),
            self.status: "",
        }

    def choosing(self, values: Values, _: Visitor) -> Changes:
        """Show the chosen study."""
        return self.shown(values[self.listing])

    def cancelling(self, values: Values, visitor: Visitor) -> Changes:
        """Show the chosen study instead of the form, which is of a new study again."""
        left = self.blank(values, visitor) if values[self.editing] is not None else {}
        return {**left, **self.shown(values[self.listing])}

    def labels(self, entries: list[StudyEntry]) -> list[tuple[str, str]]:
        """Return the list's choices."""
        drafts = {entry.id for entry in entries if entry.state is StudyState.DRAFT}
        return [
            (study_view.study_label(entry, self.studies.generation(entry.id) if entry.id in drafts else None), entry.id)
            for entry in entries
        ]

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
        study, place = values[self.listing], int(values[self.study.reader.place])
        entries = self.studies.tables.listing()
        entry = next((one for one in entries if one.id == study), None)
        if entry is None:
            return self.shown(None)
        generation = self.studies.generation(entry.id)
        if values[self.seen] != self.state_of(entry, generation):
            return self.shown(study, place)
        changes = {
            self.study.progress: self.study.how_far(entry, generation),
            self.listing: gr.Radio(self.labels(entries), value=study),
        }
        if entry.state is StudyState.DRAFT:
            return {**changes, **self.study.reader.read(study, place)}
        return {**changes, **self.study.people.counted(study)}


def build_annotate_tab(desk: Desk, tab: gr.Tab, steering: Steering, home: str = "./") -> None:
    """Build the Annotate tab."""
    AnnotateTab(desk, steering, home).build(tab)
