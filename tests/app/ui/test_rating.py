"""Ratings that come late: sent again by a page that was loaded again, after the server or the network was away."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.services.app_state import Desk
from app.services.generation_run import Run
from app.ui import desk_tab
from app.ui.controls import RATINGS, Outputs
from app.ui.desk_tab import DeskTab
from app.ui.rating import RatingButtons
from engine import Engine, Sampling


@pytest.fixture
def desk(store, tiny_engine: Engine) -> Desk:
    return Desk(tiny_engine, store)


@pytest.fixture
def buttons(desk: Desk) -> RatingButtons:
    with gr.Blocks():
        one = gr.HTML()
        ratings = {choice: gr.Button() for choice in RATINGS}
        outputs = Outputs(gr.Textbox(), {}, one, one, gr.HTML(), one, *[gr.Button() for _ in range(3)], ratings, {}, [])
    return RatingButtons(desk, outputs)


def finished(desk: Desk, session: str = "before the reload") -> Run:
    mixtures = {"left": desk.engine.mixture({"plain": 1.0}), "right": desk.engine.mixture({"reference": 1.0})}
    run = desk.start(session, "move the faders", mixtures, Sampling(max_new_tokens=5), seed=3)

    async def follow() -> None:
        async for _ in run.updates():
            pass

    asyncio.run(follow())
    return run


def resent(buttons: RatingButtons, **unsaved: Any) -> str:
    return buttons.resent(json.dumps(unsaved), "anna", SimpleNamespace(request=None))[buttons.outputs.status]


def test_a_rating_that_comes_from_the_page_after_is_stored_once(desk: Desk, buttons: RatingButtons) -> None:
    run = finished(desk)
    for _ in range(2):
        assert "Saved: left is better." in resent(buttons, id="rating-1", choice="left", run=run.id)
    (pair,) = desk.store.pairs()
    assert (pair["id"], pair["choice"], pair["annotator"]) == ("rating-1", "left", "anna")


def test_the_choice_that_was_stored_is_reported(desk: Desk, buttons: RatingButtons) -> None:
    run = finished(desk)
    resent(buttons, id="rating-1", choice="tie", run=run.id)
    # The page did not hear of it, and somebody pressed another button.
    assert "Saved: tie." in resent(buttons, id="rating-1", choice="left", run=run.id)
    assert [pair["choice"] for pair in desk.store.pairs()] == ["tie"]


def test_a_rating_that_comes_after_a_restart_is_stored(desk: Desk, buttons: RatingButtons, tiny_engine: Engine) -> None:
    run = finished(desk)
    desk.keep_unrated(run)
    after = RatingButtons(Desk(tiny_engine, desk.store), buttons.outputs)
    for _ in range(2):
        assert "Saved: right is better." in resent(after, id="rating-1", choice="right", run=run.id)
    (pair,) = desk.store.pairs()
    assert pair["choice"] == "right" and pair["left"]["text"] == run.completions["left"].text
    assert pair["right"]["rewards"] == run.completions["right"].rewards
    assert "Not saved" in resent(after, id="rating-2", choice="left", run=run.id)


def test_responses_that_are_gone_are_reported(desk: Desk, buttons: RatingButtons) -> None:
    said = resent(buttons, id="rating-1", choice="both_bad", run="of another start")
    assert "Not saved: “both bad”. The server restarted" in said
    for unsaved in ({}, {"id": "1", "choice": "best", "run": "2"}):
        assert "cannot be read" in resent(buttons, **unsaved)
    assert not list(desk.store.pairs())


def test_a_closed_page_leaves_its_responses_for_a_while(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_tab, "RATEABLE_FOR", 0.05)
    tab, run, request = DeskTab(desk), finished(desk, "me"), SimpleNamespace(session_hash="me", request=None)

    async def leave(another: bool) -> tuple[Run | None, Run | None]:
        await tab.leave(request)  # type: ignore[arg-type]
        before = desk.runs.get("me")
        if another:
            desk.runs["me"] = Run("again", {})
        await asyncio.sleep(0.3)
        return before, desk.runs.get("me")

    before, after = asyncio.run(leave(another=True))
    assert before is run and after is not None and after is not run, "the page came back"
    desk.runs["me"] = run
    assert asyncio.run(leave(another=False)) == (run, None)
