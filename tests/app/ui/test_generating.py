"""The order in which two presses of Generate reach the page."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.services.app_state import Desk
from app.services.generation_run import SIDES, TURN
from app.ui.controls import RATINGS, Outputs
from app.ui.desk_tab import DeskTab
from engine import Engine, Sampling


@pytest.fixture
def desk(store, tiny_engine: Engine) -> Desk:
    return Desk(tiny_engine, store)


def test_the_newest_run_is_shown_after_the_one_that_it_replaced(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tab = DeskTab(desk)
    mixtures = {"left": desk.engine.mixture({"plain": 1.0}), "right": desk.engine.mixture({"reference": 1.0})}
    long = Sampling(max_new_tokens=150, temperature=1.0)
    monkeypatch.setattr(tab, "start", lambda who, *_: desk.start(who, "move the faders", mixtures, long, seed=3))
    monkeypatch.setattr(tab, "seed", lambda _: 3)
    request = SimpleNamespace(session_hash="me", request=None)

    async def scene() -> list[tuple[str, Any]]:
        generate, shown = tab.generating(controls, outputs), []  # type: ignore[arg-type]

        async def press(name: str, first_shown: asyncio.Event) -> None:
            async for changes in generate("", request):  # type: ignore[arg-type]
                if outputs.run in changes:
                    shown.append((name, changes[outputs.run]))
                first_shown.set()
                if name == "first":
                    await asyncio.sleep(TURN / 4)  # the server sends slowly
            shown.append((name, "ended"))

        begun, never = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(press("first", begun))
        await begun.wait()
        await asyncio.gather(first, press("second", never))
        return shown

    with gr.Blocks():
        one, buttons = gr.HTML(), [gr.Button() for _ in range(3)]
        ratings = {choice: gr.Button() for choice in RATINGS}
        captions = {side: gr.HTML() for side in SIDES}
        outputs = Outputs(gr.Textbox(), captions, gr.HTML(), one, gr.HTML(), gr.HTML(), *buttons, ratings, {}, [])
        controls = SimpleNamespace(read=lambda _: None, seed=gr.Textbox())
    shown = asyncio.run(scene())
    assert [name for name, _ in shown] == ["first", "first", "second", "second"]
    run = desk.runs["me"]
    assert shown[2][1] == run.stage and run.done
    assert {completion.finish_reason for completion in run.completions.values()} != {"stopped"}
