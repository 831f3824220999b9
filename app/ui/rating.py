"""The rating buttons, and ratings that the page sends again because the server was away."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any

import gradio as gr
from pydantic import BaseModel, ValidationError

from app.services.app_state import Desk
from app.services.visitor import is_session_of, session, visitor_of
from app.ui.controls import RATINGS, Outputs
from app.ui.mixture_controls import Changes
from engine import InputError

log = logging.getLogger("mixdesk")


class UnsavedRating(BaseModel):
    """A rating that static/js/rating.js keeps until it is stored.

    Attributes:
        id: The rating's id.
        choice: One of `RATINGS`.
        run: Id of the run whose responses were rated.
    """

    id: str
    choice: str
    run: str


class RatingButtons:
    """Handlers of the rating buttons."""

    def __init__(self, desk: Desk, outputs: Outputs) -> None:
        self.desk, self.outputs = desk, outputs

    def connect(self, annotator: gr.BrowserState) -> None:
        """Register the event handlers; `annotator` holds the browser's random id."""
        outputs = self.outputs
        quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        changed = [outputs.status, *outputs.ratings.values()]
        rating_id = gr.Textbox(visible="hidden", elem_id="rating-id", label="Rating id")
        for choice, button in outputs.ratings.items():
            button.click(
                self.rating(choice),
                [rating_id, annotator],
                changed,
                js="(_, annotator) => [mixdesk.rating.ratingId(), annotator]",
                **quiet,
            ).success(None, js="() => mixdesk.rating.answered()")
        unsaved = gr.Textbox(visible="hidden", label="Unsaved rating")
        again = gr.Button(visible="hidden", elem_id="rate-again")
        again.click(
            self.resent,
            [unsaved, annotator],
            changed,
            js="(_, annotator) => [mixdesk.rating.unsaved(), annotator]",
            **quiet,
        ).success(None, js="() => mixdesk.rating.answered()")

    def rating(self, choice: str) -> Callable[..., Changes]:
        """Return the handler of a rating button."""

        def rate(rating_id: str, annotator: str, request: gr.Request) -> Changes:
            return self.stored(session(request), rating_id, choice, annotator, visitor_of(request).address)

        return rate

    def stored(self, who: str, rating_id: str, choice: str, annotator: str, address: str) -> Changes:
        """Store a rating of a session's newest run, and return updates that say so."""
        outputs = self.outputs
        new, refusal = self.attempt(lambda: self.desk.rate(who, rating_id, choice, annotator, address))
        if refusal:
            return refusal
        closed = {button: gr.Button(interactive=False) for button in outputs.ratings.values()}
        if not new:
            return {**closed, **outputs.say("This pair was saved before; generate again to rate another.")}
        return {**closed, **outputs.say(f"Saved: {RATINGS[choice].lower()}.", "good")}

    def attempt(self, store: Callable[[], bool]) -> tuple[bool, Changes]:
        """Return what a function returns that stores a rating, and updates that say why it could not."""
        try:
            return store(), {}
        except InputError as error:
            return False, self.outputs.say(str(error), "bad")
        except sqlite3.Error as error:
            log.exception("a rating could not be stored")
            said = f"Not saved: the database says “{error}”. Press the button again to retry."
            return False, self.outputs.say(said, "bad")

    def resent(self, unsaved: str, annotator: str, request: gr.Request) -> Changes:
        """Store a rating that the page sends again, if the server still has its responses."""
        try:
            rating = UnsavedRating.model_validate_json(unsaved)
            label = RATINGS[rating.choice].lower()
        except (ValidationError, KeyError):
            return self.outputs.say("The unsaved rating cannot be read: generate again to rate.", "bad")
        if known := self.known(rating.id):  # the answer did not reach the page
            return self.outputs.say(f"Saved: {RATINGS[known].lower()}.", "good")
        # A page that was loaded again has another session.
        visitor, runs = visitor_of(request), list(self.desk.runs.items())
        own = (who for who, run in runs if run.id == rating.run and is_session_of(visitor, who))
        if (who := next(own, None)) is not None:
            return self.stored(who, rating.id, rating.choice, annotator, visitor.address)
        found, refusal = self.attempt(
            lambda: self.desk.rate_kept(
                *(rating.run, visitor.browser, rating.id, rating.choice, annotator, visitor.address)
            )
        )
        if refusal:
            return refusal
        if found:
            return self.outputs.say(f"Saved: {label}.", "good")
        return self.outputs.say(
            f"Not saved: “{label}”. The server restarted and lost the responses; generate again to rate.", "bad"
        )

    def known(self, rating_id: str) -> str | None:
        """Return the choice of a stored rating; None if there is no rating with this id."""
        try:
            return self.desk.store.pair(rating_id)["choice"]
        except InputError:
            return None
