"""The Compare tab: several mixtures on a set of prompts, with win rates, means, and all responses."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import datetime
from typing import Any

import gradio as gr

from app.charts import comparison as comparison_chart
from app.charts.plotly_component import figure, plotted
from app.html import message
from app.services.app_state import Desk
from app.services.visitor import visitor_of
from app.storage.comparisons import Entry
from app.ui.controls import Steering
from app.ui.mixture_choice import MixtureChoice
from app.ui.mixture_controls import Changes, Values
from app.ui.prompt_upload import FIRST_PROMPTS, PromptUpload
from app.ui.sampling_fields import SamplingFields, parse_most
from app.ui.shortcuts import labelled
from engine import InputError
from engine.evaluation.comparison import MAX_MIXTURES, summarise

log = logging.getLogger("mixdesk")

EMPTY = f"""<h2>Which mixture is better, and how sure is that?</h2>
<p>One pair of responses says little. A comparison lets up to {MAX_MIXTURES} mixtures answer the same prompts, scores
every response with every reward model, and says how often each mixture <b>wins against the first</b>, with 95%
intervals. Then sort and search the prompts, and open any of them to read its responses side by side.</p>
<p>Choose prompts and mixtures, then press <b>Compare</b>. It continues when you close the page, and finished responses
are kept when the app stops.</p>"""
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class CompareTab:
    """The tab's components and their event handlers."""

    def __init__(self, desk: Desk, steering: Steering) -> None:
        self.desk, self.comparisons = desk, desk.comparisons
        self.given = PromptUpload(desk.engine, "compare")
        self.choice = MixtureChoice(desk, steering.mixture, "compare")
        self.sampling = SamplingFields("compare")

    # ------------------------------------------------------------------------------------------------------ the page

    def build(self, tab: gr.Tab) -> None:
        """Build the tab's components and register their handlers."""
        with gr.Row(elem_id="compare", equal_height=False):
            with gr.Column(elem_id="compare-form", min_width=240):
                self.build_form()
            with gr.Column(elem_id="compare-result", min_width=280):
                self.empty = gr.HTML(EMPTY, elem_id="compare-empty", elem_classes="teach")
                with gr.Column(visible=False, elem_id="compare-content") as self.content:
                    self.build_result()
        self.seen: gr.State = gr.State({})  # what of which comparison the page shows, and since when
        self.timer = gr.Timer(1.0, active=False)
        self.connect(tab)

    def build_form(self) -> None:
        """Build the form of a new comparison and the list of comparisons."""
        gr.HTML("<h2>New comparison</h2>")
        self.given.build()
        self.most = gr.Textbox(
            str(FIRST_PROMPTS), label="How many (empty for all)", max_lines=1, elem_id="compare-most", placeholder="all"
        )
        self.choice.build("Mixtures (the first is to win against)")
        self.sampling.build()
        self.start = gr.Button(labelled("Compare", "compare-start"), variant="primary", elem_id="compare-start")
        self.status = gr.HTML(
            "",
            html_template='<p role="status" aria-live="polite">${value}</p>',
            js_on_load="mixdesk.choices.begin(element, 'compare-tab', 'compare-mixtures');",
            elem_id="compare-status",
        )
        self.listing = gr.Radio([], label="Comparisons", visible=False, elem_id="compare-list")

    def build_result(self) -> None:
        """Build the chosen comparison's head, summary, table and dialog."""
        with gr.Row(elem_id="compare-head"):
            self.title = gr.HTML("", elem_id="compare-title")
            self.stop = gr.Button(
                labelled("Stop", "compare-stop"), size="sm", elem_id="compare-stop", min_width=90, scale=0
            )
            self.resume = gr.Button(
                labelled("Resume", "compare-resume"), size="sm", elem_id="compare-resume", min_width=90, scale=0
            )
            self.delete = gr.Button("Delete…", size="sm", elem_id="compare-delete", min_width=90, scale=0)
        with gr.Row(visible=False, elem_id="compare-confirm") as self.confirm:
            self.question = gr.HTML("", elem_id="compare-question")
            self.sure = gr.Button("Delete it", size="sm", variant="stop", elem_id="compare-sure", min_width=90, scale=0)
            self.spare = gr.Button("Keep it", size="sm", elem_id="compare-keep", min_width=90, scale=0)
        self.progress = gr.HTML("", elem_id="compare-progress")
        with gr.Row(elem_id="compare-summary", equal_height=False):
            self.wins = gr.HTML("", elem_id="compare-wins")
            self.radar = figure(None, "compare-radar", "Mean rewards of the mixtures")
        self.table = gr.HTML(
            None,
            html_template='<div class="compare-table"></div>',
            js_on_load="const show = () => mixdesk.compare.table(element, props.value, () => trigger('select'));"
            "watch('value', show); show();",
            elem_id="compare-table",
        )
        self.prompt = gr.HTML(
            None,
            html_template='<dialog class="compare-dialog" aria-label="One prompt"></dialog>',
            js_on_load="const show = () => mixdesk.compare.prompt(element, props.value);watch('value', show); show();",
            elem_id="compare-dialog",
        )

    def connect(self, tab: gr.Tab) -> None:
        """Register the event handlers."""
        view = [
            self.listing, self.empty, self.content, self.title, self.stop, self.resume, self.delete, self.confirm,
            self.progress, self.wins, self.radar, self.table, self.seen, self.timer, self.status,
        ]  # fmt: skip
        tab.select(self.refresh, [self.listing], view, queue=False, **QUIET)
        tab.select(self.choice.listed, None, [self.choice.mixtures], queue=False, **QUIET)
        self.listing.input(self.open, [self.listing], view, queue=False, **QUIET)
        self.timer.tick(self.tick, [self.listing, self.seen], view, queue=False, **QUIET)
        asked = {
            self.given.prompts, self.given.file, self.most, *self.choice.components(), *self.sampling.components()
        }  # fmt: skip
        self.start.click(self.starting, asked, view, concurrency_limit=None, **QUIET)
        self.stop.click(self.stopping, [self.listing], [self.status], queue=False, **QUIET)
        self.resume.click(self.resuming, [self.listing], view, concurrency_limit=None, **QUIET)
        self.delete.click(self.asking, [self.listing], [self.confirm, self.question], queue=False, **QUIET)
        self.spare.click(lambda: gr.Row(visible=False), None, [self.confirm], queue=False, **QUIET)
        self.sure.click(self.deleting, [self.listing], view, queue=False, **QUIET)
        self.given.connect(self.status)
        self.choice.connect(self.status)
        place = gr.Number(-1, visible="hidden", label="Prompt")
        self.table.select(
            self.reading,
            [self.listing, place],
            [self.prompt],
            js="(comparison, _) => [comparison, mixdesk.compare.place]",
            queue=False,
            **QUIET,
        )

    # ------------------------------------------------------------------------------------------- what is asked for

    async def starting(self, values: Values, request: gr.Request) -> Changes:
        """Start a comparison with the form's settings and show it."""
        try:
            prompts, mixtures = self.given.chosen(values), self.choice.chosen(values)
            sampling, seed = self.sampling.read(values)
            most = parse_most(values[self.most])
            # Reading a thousand prompts takes a while, and the events of all sessions go through this loop.
            asked = prompts, mixtures, sampling, seed, most, visitor_of(request)
            made = await asyncio.to_thread(self.comparisons.start, self.desk.engine, *asked)
        except InputError as error:
            return {self.status: message(str(error), "bad")}
        return {**await self.refresh(made), self.status: ""}

    async def resuming(self, comparison: int | None, request: gr.Request) -> Changes:
        """Resume the chosen comparison."""
        try:
            if comparison is not None:
                who = visitor_of(request)
                await asyncio.to_thread(self.comparisons.resume, self.desk.engine, comparison, who)
        except InputError as error:
            return {self.status: message(str(error), "bad")}
        return {**await self.refresh(comparison), self.status: ""}

    def stopping(self, comparison: int | None, request: gr.Request) -> Changes:
        """Stop the chosen comparison."""
        try:
            self.comparisons.stop(comparison or 0, visitor_of(request))
        except InputError as error:
            return {self.status: message(str(error), "bad")}
        return {self.status: message("Stopping; what is finished is kept.")}

    def asking(self, comparison: int | None) -> Changes:
        """Ask for confirmation before deletion."""
        entry = next((one for one in self.comparisons.tables.listing() if one.id == comparison), None)
        if entry is None:
            return {}
        responses = entry.answered * len(entry.mixtures)
        said = f"Delete this comparison with its {responses} responses? That cannot be undone."
        return {self.confirm: gr.Row(visible=True), self.question: message(said)}

    async def deleting(self, comparison: int | None, request: gr.Request) -> Changes:
        """Delete the chosen comparison and show the newest."""
        try:
            if comparison is not None:
                await asyncio.to_thread(self.comparisons.delete, comparison, visitor_of(request))
        except InputError as error:
            return {self.status: message(str(error), "bad"), self.confirm: gr.Row(visible=False)}
        return {**await self.refresh(None), self.status: message("Deleted.", "good")}

    # ----------------------------------------------------------------------------------------------- what is shown

    async def refresh(self, comparison: int | None) -> Changes:
        """Return updates of the list and of this comparison, or of the newest if it does not exist."""
        entries = await asyncio.to_thread(self.comparisons.tables.listing)
        if not entries:
            return {
                self.listing: gr.Radio([], value=None, visible=False),
                self.empty: gr.HTML(visible=True),
                self.content: gr.Column(visible=False),
                self.timer: gr.Timer(active=False),
                self.seen: {},
            }
        chosen = comparison if comparison in {entry.id for entry in entries} else entries[0].id
        choices = [(self.entry_label(entry), entry.id) for entry in entries]
        return {
            self.listing: gr.Radio(choices, value=chosen, visible=True),
            self.empty: gr.HTML(visible=False),
            self.content: gr.Column(visible=True),
            **await self.open(chosen),
        }

    async def open(self, comparison: int | None) -> Changes:
        """Return updates that show a comparison, or an error message."""
        try:
            return await asyncio.to_thread(self.whole, comparison or 0)
        except InputError as error:
            return {self.status: message(str(error), "bad"), self.timer: gr.Timer(active=False)}

    async def tick(self, comparison: int | None, seen: dict[str, Any]) -> Changes:
        """Return updates each second: progress while the job runs, at times all results, and the list at the end."""
        job = self.comparisons.jobs.get(comparison or 0)
        if job is None:
            return await self.refresh(comparison)
        # The more there is to send, the more rarely.
        wait = 2 + seen.get("size", 0) / 500
        if job.done != seen.get("done") and time.monotonic() - seen.get("at", 0) > wait:
            return await self.open(comparison)
        return {self.progress: comparison_chart.progress_of(job)}

    def whole(self, comparison: int) -> Changes:
        """Return updates with all results of a comparison.

        Raises:
            InputError: if it has been deleted.
        """
        job = self.comparisons.jobs.get(comparison)  # before its answers: what comes meanwhile is news for a tick
        done = job.done if job else None
        answers = self.comparisons.tables.answers(comparison)
        plan = answers.plan
        objectives = {name: self.desk.colours.get(name, "#71717a") for name in plan.scale}
        styles = comparison_chart.looks(plan.mixtures, self.desk.accents)
        summary = summarise(comparison_chart.standard_rewards(answers), plan.seed)
        answered = len(answers.answered)
        return {
            self.title: comparison_chart.heading(comparison, plan),
            self.stop: gr.Button(visible=job is not None),
            self.resume: gr.Button(visible=job is None and (answered < len(plan.prompts) or bool(answers.missing))),
            self.delete: gr.Button(visible=job is None),
            self.confirm: gr.Row(visible=False),
            self.progress: comparison_chart.progress_of(job)
            if job
            else comparison_chart.interrupted(
                answered, plan, self.comparisons.failures.get(comparison), answers.missing
            ),
            self.wins: comparison_chart.win_table(summary, styles, objectives),
            self.radar: plotted(comparison_chart.comparison_radar(summary, styles, objectives)),
            self.table: comparison_chart.table_value(comparison, answers, styles, objectives),
            self.seen: {"done": done, "at": time.monotonic(), "size": len(plan.prompts) * len(plan.mixtures)},
            self.timer: gr.Timer(active=job is not None),
        }

    def reading(self, comparison: int | None, place: float) -> dict[str, Any] | None:
        """Return one prompt with its responses for the dialog, or None if it does not exist."""
        tables = self.comparisons.tables
        try:
            plan = tables.plan(comparison or 0)
        except InputError:
            return None
        place = int(place)
        if not 0 <= place < len(plan.prompts):
            return None
        objectives = {name: self.desk.colours.get(name, "#71717a") for name in plan.scale}
        rows = tables.completions(comparison or 0, place)
        # A value that is the same again would not open a dialog that was closed.
        opened = {"opened": time.monotonic()}
        return opened | comparison_chart.prompt_value(
            plan, place, rows, comparison_chart.looks(plan.mixtures, self.desk.accents), objectives
        )

    def entry_label(self, entry: Entry) -> str:
        """Return a comparison's label in the list."""
        when = datetime.fromisoformat(entry.created_at).strftime("%d %b %H:%M")
        state = "under way" if entry.id in self.comparisons.jobs else f"{entry.answered} of {entry.prompts} prompts"
        if entry.finished:
            state = f"{entry.prompts} prompts" + (f", {entry.missing} rewards missing" if entry.missing else "")
        return f"{entry.id} · {entry.source} · {len(entry.mixtures)} mixtures, {state} · {when}"


def build_compare_tab(desk: Desk, tab: gr.Tab, steering: Steering) -> None:
    """Build the Compare tab."""
    CompareTab(desk, steering).build(tab)
