"""The Ratings tab: preferences by the ratings in this desk's store, and the weights derived from them."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from typing import Any

import gradio as gr

from app.charts import standings_table
from app.html import message
from app.services import standings
from app.services.app_state import Desk
from app.services.standings import Standing
from app.ui.controls import Steering
from app.ui.mixture_controls import Changes
from app.ui.shortcuts import labelled

log = logging.getLogger("mixdesk")


class RatingsTab:
    """The tab's components and their event handlers."""

    def __init__(self, desk: Desk, steering: Steering) -> None:
        self.desk, self.steering = desk, steering
        self.policies = desk.policies

    def build(self, tab: gr.Tab) -> None:
        """Build the tab's components and register their handlers."""
        with gr.Column(elem_id="from-ratings"):
            with gr.Row(elem_id="ratings-head"):
                about = gr.HTML(
                    "", html_template='<p role="status" aria-live="polite">${value}</p>', elem_id="standing"
                )
                refresh = gr.Button(labelled("Refresh", "refresh"), elem_id="refresh", min_width=100, scale=0)
            empty = gr.HTML("", elem_id="no-ratings", visible=False)
            found = gr.HTML(
                "",
                js_on_load="element.addEventListener('click', (event) => mixdesk.ratings.click(event, trigger));",
                elem_id="lottery",
                visible=False,
            )
        self.about, self.empty, self.found = about, empty, found
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on([tab.select, refresh.click], self.show, None, [about, empty, found], queue=False, **quiet)
        mixture = self.steering.mixture
        components, paths = mixture.components(), json.dumps(list(mixture.by_path()))
        found.select(
            None,
            components,
            [*components, self.steering.status],
            js=f"(...values) => mixdesk.ratings.sent({paths}, values)",
        )

    async def show(self) -> Changes:
        """Return updates that show the current standings."""
        try:
            found = await asyncio.to_thread(
                standings.standings_of, self.desk.store, self.desk.engine.config.name, self.policies
            )
        except sqlite3.Error as error:
            log.exception("the ratings could not be read")
            return {self.about: message(f"The ratings cannot be read: the database says “{error}”.", "bad")}
        if found.solution is None:
            return self.nothing(found)
        shown = standings_table.means(found, self.policies) + standings_table.standings_table(
            found, self.policies, self.desk.accents
        )
        return {
            self.about: standings_table.standings_caption(found),
            self.empty: gr.HTML(visible=False),
            self.found: gr.HTML(shown, visible=True),
        }

    def nothing(self, found: Standing) -> Changes:
        """Return updates that show the empty state."""
        return {
            self.about: "",
            self.empty: gr.HTML(standings.empty(found), visible=True),
            self.found: gr.HTML("", visible=False),
        }


def build_ratings_tab(desk: Desk, tab: gr.Tab, steering: Steering) -> None:
    """Build the Ratings tab."""
    RatingsTab(desk, steering).build(tab)
