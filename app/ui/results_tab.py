"""The Results tab: who wins by people's votes, how sure that is, and how far the votes can be trusted."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from app.charts.influences import agreeing_table, controls_table
from app.charts.leaderboard import leaderboard_html
from app.charts.people_table import alpha_table, people_table
from app.charts.results_summary import (
    NO_IMPLIED,
    NO_REWARDS,
    empty_html,
    lottery_missing,
    matrix_hint,
    matrix_value,
    summary_html,
)
from app.charts.standings_table import means, standings_caption, standings_table
from app.html import message
from app.services.app_state import Desk
from app.services.implied_rewards import ImpliedRewards
from app.services.results import Results, Wanted, compute_results, vote_responses
from app.services.visitor import Visitor, visitor_of
from app.services.vote_pairs import pairs_value
from app.services.vote_sources import DESK, DESK_NAME, VoteFilter, VoteSource, read_day, read_source
from app.storage.vote_tables import VoteTables
from app.ui.controls import Steering
from app.ui.mixture_controls import Changes, Values
from app.ui.shortcuts import labelled
from engine import InputError

log = logging.getLogger("mixdesk")

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
EVERYBODY, EVERYBODY_NAME = "", "Everybody"
VIEWS = [
    ("Ranking", "ranking"),
    ("Wins", "wins"),
    ("People", "people"),
    ("Influences", "influences"),
    ("Lottery", "lottery"),
]
OWNERS = "The results of studies are for the owner of this desk; its own ratings are there for everybody."


class ResultsTab:
    """The tab's components and their event handlers."""

    def __init__(self, desk: Desk, steering: Steering) -> None:
        self.desk, self.steering = desk, steering
        self.policies = desk.policies
        self.tables = VoteTables(desk.store)
        self.implied = ImpliedRewards(desk.engine, self.tables)

    # ------------------------------------------------------------------------------------------------------ the page

    def build(self, tab: gr.Tab) -> None:
        """Build the tab's components and register their handlers."""
        with gr.Column(elem_id="results"):
            self.build_filters()
            self.about = gr.HTML(
                "", html_template='<div role="status" aria-live="polite">${value}</div>', elem_id="results-about"
            )
            self.empty = gr.HTML("", elem_id="no-results", elem_classes="teach", visible=False)
            with gr.Column(elem_id="results-content", visible=False) as self.content:
                self.view = gr.Radio(VIEWS, value="ranking", show_label=False, container=False, elem_id="results-view")
                self.build_views()
        self.connect(tab)

    def build_filters(self) -> None:
        """Build the choice of the study and of the votes that count."""
        with gr.Row(elem_id="results-head"):
            self.study = gr.Dropdown(
                [(DESK_NAME, DESK)], value=DESK, label="Study", elem_id="results-study", min_width=180
            )
            self.question = gr.Dropdown([], label="Question", elem_id="results-question", min_width=180)
            self.refresh = gr.Button(labelled("Refresh", "refresh"), elem_id="refresh", min_width=100, scale=0)
        with gr.Accordion("Filters", open=False, elem_id="results-filters"), gr.Row():
            self.person = gr.Dropdown([], label="Only this person", elem_id="results-person", min_width=160)
            self.since = gr.Textbox(
                label="From", placeholder="2026-01-31", max_lines=1, elem_id="results-since", min_width=110
            )
            self.until = gr.Textbox(
                label="To", placeholder="2026-12-31", max_lines=1, elem_id="results-until", min_width=110
            )
            self.excluded = gr.Dropdown(
                [], label="Leave out", multiselect=True, elem_id="results-excluded", min_width=200
            )
            self.gold = gr.Checkbox(label="Leave out who failed gold", elem_id="results-gold", min_width=200)

    def build_views(self) -> None:
        """Build what is shown of the votes."""
        with gr.Column(elem_id="results-ranking", elem_classes="view"):
            with gr.Row(elem_id="results-options"):
                self.weighted = gr.Checkbox(
                    label="Weight annotators by reliability", elem_id="results-weighted", container=False, min_width=240
                )
                self.controlled = gr.Checkbox(
                    label="Hold length and style equal", elem_id="results-controlled", container=False, min_width=220
                )
            self.leaders = gr.HTML(
                "",
                js_on_load="element.addEventListener('click', (event) => mixdesk.results.click(event, trigger));",
                elem_id="leaderboard",
            )
        with gr.Column(elem_id="results-wins", elem_classes="view"):
            self.matrix = gr.HTML(
                None,
                html_template='<div class="win-matrix"></div>',
                js_on_load="const show = () => mixdesk.results.matrix(element, props.value, () => trigger('select'));"
                "watch('value', show); show();",
                elem_id="win-matrix",
            )
            self.matrix_hint = gr.HTML("", elem_id="matrix-hint")
        with gr.Column(elem_id="results-people", elem_classes="view"):
            self.people = gr.HTML("", elem_id="annotators")
        with gr.Column(elem_id="results-influences", elem_classes="view"):
            self.influences = gr.HTML("", elem_id="influences")
            self.implied_table = gr.HTML("", elem_id="implied")
            self.imply = gr.Button("Compute implied rewards", size="sm", elem_id="imply", min_width=200, scale=0)
        with gr.Column(elem_id="results-lottery", elem_classes="view"):
            self.standing = gr.HTML("", elem_id="standing")
            self.lottery = gr.HTML(
                "",
                js_on_load="element.addEventListener('click', (event) => mixdesk.results.click(event, trigger));",
                elem_id="lottery",
            )
        self.pairs = gr.HTML(
            None,
            html_template='<dialog class="compare-dialog pairs-dialog" aria-label="Pairs of two systems"></dialog>',
            js_on_load="const show = () => mixdesk.results.pairs(element, props.value);watch('value', show); show();",
            elem_id="pairs-dialog",
        )

    def connect(self, tab: gr.Tab) -> None:
        """Register the event handlers."""
        self.seen: gr.State = gr.State({})  # what the page shows: the study, and all that was asked for
        filters = [self.study, self.question, self.person, self.since, self.until, self.excluded, self.gold]
        self.inputs = [*filters, self.weighted, self.controlled, self.seen]
        asked: set[Any] = set(self.inputs)
        shown = [
            *filters, self.seen, self.about, self.empty, self.content, self.leaders, self.controlled, self.matrix,
            self.matrix_hint, self.people, self.influences, self.imply, self.implied_table, self.standing, self.lottery,
        ]  # fmt: skip
        gr.on([tab.select, self.refresh.click, self.study.input], self.opening, asked, shown, queue=False, **QUIET)
        narrowed = [
            self.question.input, self.person.input, self.since.submit, self.since.blur, self.until.submit,
            self.until.blur, self.excluded.input, self.gold.input, self.weighted.input, self.controlled.input,
        ]  # fmt: skip
        gr.on(narrowed, self.narrowing, asked, shown, queue=False, **QUIET)
        self.view.input(None, [self.view], None, js="(view) => mixdesk.results.view(view)")
        self.imply.click(self.implying, asked, shown, concurrency_limit=1, **QUIET)
        cell = gr.Textbox("", visible="hidden", label="Cell")
        self.matrix.select(
            self.reading,
            [self.seen, cell],
            [self.pairs, self.about],
            js="(seen, _) => [seen, mixdesk.results.cell]",
            queue=False,
            **QUIET,
        )
        mixture = self.steering.mixture
        components, paths = mixture.components(), json.dumps(list(mixture.by_path()))
        for table in (self.lottery, self.leaders):
            table.select(
                None,
                components,
                [*components, self.steering.status],
                js=f"(...values) => mixdesk.results.sent({paths}, values)",
            )

    # ------------------------------------------------------------------------------------------- what is asked for

    async def opening(self, values: Values, request: gr.Request) -> Changes:
        """Show the chosen study, at first the newest, with the list of studies as it is now."""
        return await self.answered(self.opened, values, visitor_of(request))

    async def narrowing(self, values: Values, request: gr.Request) -> Changes:
        """Show the votes that count now."""
        return await self.answered(self.narrowed, values, visitor_of(request))

    async def implying(self, values: Values, request: gr.Request) -> Changes:
        """Compute the implied rewards of the shown responses, and show how often they agree with people."""
        return await self.answered(self.implied_now, values, visitor_of(request))

    async def answered(self, handler: Callable[..., Changes], *arguments: Any) -> Changes:
        """Run a handler on a thread, and say what is wrong if it fails."""
        try:
            return await asyncio.to_thread(handler, *arguments)
        except InputError as error:
            return {self.about: message(str(error), "bad")}
        except sqlite3.Error as error:
            log.exception("the votes could not be read")
            return {self.about: message(f"The votes cannot be read: the database says “{error}”.", "bad")}

    def opened(self, values: Values, visitor: Visitor) -> Changes:
        """Return updates that show the chosen study, its choices and its results.

        Raises:
            InputError: if it is not there, or not for this visitor.
        """
        heads = self.tables.heads() if may_see_studies(visitor) else []
        choices = [(f"{head.name} ({head.state})", head.id) for head in heads] + [(DESK_NAME, DESK)]
        seen = values[self.seen]
        # Before anything was shown, the newest study that has begun.
        study = values[self.study] if seen else next((head.id for head in heads if head.state != "draft"), DESK)
        if study not in [one for _, one in choices]:
            study = DESK
        listing: Changes = {self.study: gr.Dropdown(choices, value=study)}
        if seen.get("study") == study:
            return listing | self.shown(self.wanted(values, study), visitor)
        blank = {
            self.question: "",
            self.person: EVERYBODY,
            self.since: "",
            self.until: "",
            self.excluded: [],
            self.gold: False,
        }
        return listing | blank | self.shown(self.wanted({**values, **blank}, study), visitor)

    def narrowed(self, values: Values, visitor: Visitor) -> Changes:
        """Return updates that show the votes that count now, none if these are shown.

        Raises:
            InputError: if a day is not one, or the study is not there or not for this visitor.
        """
        wanted = self.wanted(values, values[self.study])
        return {} if wanted.as_dict() == values[self.seen] else self.shown(wanted, visitor)

    def implied_now(self, values: Values, visitor: Visitor) -> Changes:
        """Compute implied rewards within the budget, and return updates with them.

        Raises:
            InputError: if the visitor is not the owner, or they are being computed already.
        """
        if not visitor.owner:
            raise InputError(
                "implied rewards: they take the engine for a while; only the owner of this desk computes them"
            )
        wanted = Wanted.from_dict(values[self.seen])
        source = self.source(wanted, visitor)
        self.implied.compute(vote_responses(wanted.chosen.apply(source)))
        return self.shown(wanted, visitor)

    def reading(self, seen: dict[str, Any], cell: str, request: gr.Request) -> Changes:
        """Open the pairs of two systems."""
        visitor = visitor_of(request)
        try:
            first, second = (int(place) for place in cell.split(","))
            wanted = Wanted.from_dict(seen)
            if not visitor.owner:
                raise InputError("pairs: what others were answered here is for the owner of this desk")
            source = self.source(wanted, visitor)
            if not (0 <= first < len(source.systems) and 0 <= second < len(source.systems)):
                raise InputError("pairs: there are no such systems; press Refresh")
            value = pairs_value(self.tables, source, wanted.chosen, first, second)
        except (InputError, ValueError) as error:
            return {self.about: message(str(error), "bad")}
        # A value that is the same again would not open a dialog that was closed.
        return {self.pairs: {**value, "opened": time.monotonic()}}

    def wanted(self, values: Values, study: str) -> Wanted:
        """Return what the filters ask for.

        Raises:
            InputError: if a day is not one.
        """
        chosen = VoteFilter(
            person=values[self.person] or EVERYBODY,
            since=read_day(values[self.since], "From"),
            until=read_day(values[self.until], "To"),
            excluded=frozenset(values[self.excluded] or []),
            passed_gold=bool(values[self.gold]),
        )
        question = values[self.question] or ""
        return Wanted(study, question, chosen, bool(values[self.weighted]), bool(values[self.controlled]))

    def source(self, wanted: Wanted, visitor: Visitor) -> VoteSource:
        """Return the study that is asked for.

        Raises:
            InputError: if it is not there, or not for this visitor.
        """
        if wanted.study != DESK and not may_see_studies(visitor):
            raise InputError(OWNERS)
        model = self.desk.engine.config.name
        return read_source(self.tables, wanted.study, wanted.question, model, self.policies)

    # ----------------------------------------------------------------------------------------------- what is shown

    def shown(self, wanted: Wanted, visitor: Visitor) -> Changes:
        """Return updates that show results, or the empty state."""
        source = self.source(wanted, visitor)
        own = visitor.owner
        people = [(EVERYBODY_NAME, EVERYBODY), *((name, id) for id, name in source.people.items())] if own else []
        changes: Changes = {
            self.seen: replace(wanted, question=source.question).as_dict(),
            self.question: gr.Dropdown([(text, key) for key, text in source.questions.items()], value=source.question),
            self.person: gr.Dropdown(people, value=wanted.chosen.person if own else None, visible=own),
            self.excluded: gr.Dropdown(people[1:], value=sorted(wanted.chosen.excluded) or None, visible=own),
            self.gold: gr.Checkbox(value=wanted.chosen.passed_gold, visible=bool(source.gold)),
        }
        results = compute_results(self.tables, source, wanted, self.policies, self.implied.by_policy())
        if not results.groups:
            return changes | {
                self.about: "",
                self.empty: gr.HTML(empty_html(source, results), visible=True),
                self.content: gr.Column(visible=False),
            }
        return changes | {
            self.about: summary_html(results),
            self.empty: gr.HTML(visible=False),
            self.content: gr.Column(visible=True),
            self.leaders: leaderboard_html(results.groups, results.unvoted, self.policies, self.desk.accents),
            self.controlled: gr.Checkbox(value=wanted.controlled, visible=bool(results.controls)),
            self.matrix: matrix_value(results, own),
            self.matrix_hint: matrix_hint(own),
            self.people: alpha_table(results.agreements)
            + (people_table(results.people, source.gold_share) if own else ""),
            self.influences: controls_table(results.controls)
            + agreeing_table("Reward models", results.rewards, self.desk.colours, NO_REWARDS),
            **self.implied_shown(results, own),
            **self.lottery_shown(results),
        }

    def implied_shown(self, results: Results, own: bool) -> Changes:
        """Return updates of the implied rewards and their button."""
        missing = self.implied.missing(results.responses)
        table = agreeing_table("Implied rewards", results.implied, self.desk.accents, NO_IMPLIED)
        label = f"Compute implied rewards ({len(missing)} responses)"
        return {self.imply: gr.Button(label, visible=own and bool(missing)), self.implied_table: table}

    def lottery_shown(self, results: Results) -> Changes:
        """Return updates of the lottery."""
        found = results.standing
        if found is None or found.solution is None:
            return {self.standing: lottery_missing(results), self.lottery: ""}
        table = standings_table(found, self.policies, self.desk.accents)
        return {self.standing: standings_caption(found), self.lottery: means(found, self.policies) + table}


def may_see_studies(visitor: Visitor) -> bool:
    """Return whether a visitor sees the results of studies, not only those of the desk's own ratings."""
    return visitor.owner


def build_results_tab(desk: Desk, tab: gr.Tab, steering: Steering) -> None:
    """Build the Results tab."""
    ResultsTab(desk, steering).build(tab)
