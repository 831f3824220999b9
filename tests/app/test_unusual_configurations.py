"""Configurations without rewards, with one, with one policy, and with eight: the page is built, and all of it works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest
from starlette.testclient import TestClient

from app.server.desk_app import web_app
from app.services import bank_service
from app.services.app_state import Desk
from app.services.visitor import ANYBODY
from app.storage.database import Store
from app.ui.balance import Balance
from app.ui.compare_tab import CompareTab
from app.ui.desk_tab import DeskTab, build_desk_tab
from app.ui.explore_tab import ExploreTab
from app.ui.page import build_page
from app.ui.results_tab import ResultsTab
from engine import Engine, InputError, Sampling
from engine.config import REFERENCE
from engine.prompts import PromptSet

PROMPTS = ["mix", "move the faders"]
SAMPLING = Sampling(max_new_tokens=6, temperature=1.0)
LONG = [f"policy-{i}-{'long' * 21}" for i in range(8)]
ADAPTERS = ["plain", "stabilized", "narrow"]


def brevity(objective: str) -> dict[str, str]:
    return {"objective": objective, "kind": "function", "function": "engine.rewards:brevity"}


SHAPES: dict[str, dict[str, Any]] = {
    "no rewards": {"rewards": []},
    "one reward": {"rewards": [{"objective": "plain", "kind": "implicit"}]},
    "two rewards of no policy": {"rewards": [brevity("a"), brevity("b")]},
    "one policy": {
        "policies": [{"name": "plain", "objective": "plain", "adapter": "plain"}],
        "rewards": [brevity("short"), {"objective": "plain", "kind": "implicit"}],
    },
    "one policy and no rewards": {
        "policies": [{"name": "plain", "objective": "plain", "adapter": "plain"}],
        "rewards": [],
    },
    "eight policies with long names": {
        "name": "n" * 100,
        "policies": [
            {"name": name, "objective": f"<{name}>", "adapter": ADAPTERS[i % 3]} for i, name in enumerate(LONG)
        ],
        "rewards": [{"objective": f"<{name}>", "kind": "implicit"} for name in LONG],
    },
}


@pytest.fixture(scope="module", params=SHAPES)
def desk(request: pytest.FixtureRequest, tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("shape")
    (tiny.folder / "two-prompts.txt").write_text("\n".join(PROMPTS))
    file = tiny.write("shape.yaml", **{"prompts": "two-prompts.txt", **SHAPES[request.param]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(bank_service, "SAMPLING", SAMPLING)
        desk = Desk(Engine.from_config(file), Store(folder / "mixdesk.db"))
        yield desk
        desk.close()
        desk.store.close()


def test_the_page_is_built_and_follows_the_faders(desk: Desk) -> None:
    client = TestClient(web_app(build_page(desk), desk))
    assert client.get("/").status_code == 200
    mixture = {"faders": dict.fromkeys(desk.policies, 1.0), "channels": {}, "rule": "geometric", "gain": 1.0}
    asked = {"run": "", "turn": 1, "mixture": {**mixture, "exponent": 1.0}}
    answer = client.post("/steer", json=asked)
    assert answer.status_code == 200
    assert "No expected rewards" in answer.json()["expected"]["line"]


def test_responses_are_written_shown_and_rated(desk: Desk) -> None:
    mixtures = {"left": desk.engine.mixture(), "right": desk.engine.mixture({REFERENCE: 1.0})}
    run = desk.start("me", "move the faders", mixtures, Sampling(max_new_tokens=6, temperature=1.0), 1, ["left"])
    for response in run.responses.values():
        response.request.completion(timeout=60)
    deadline = time.monotonic() + 30
    while not (run.done and run.rateable) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert {side: set(made.rewards) for side, made in run.completions.items()} == {
        side: set(desk.engine.reward_set.objectives) for side in ("left", "right")
    }
    assert DeskTab(desk).radar(run)["layout"]
    assert desk.rate("me", "some-rating", "left", "anna")


def tabs_of(desk: Desk) -> tuple[CompareTab, ExploreTab, ResultsTab]:
    with gr.Blocks(), gr.Tabs() as tabs, gr.Tab() as tab:
        steering = build_desk_tab(desk, tab, tabs)
        every = CompareTab(desk, steering), ExploreTab(desk, steering), ResultsTab(desk, steering)
        for one in every:
            one.build(tab)
    return every


def test_mixtures_are_compared(desk: Desk) -> None:
    compare, _, results = tabs_of(desk)
    mixtures = {"Uniform": desk.engine.mixture(), "Reference": desk.engine.mixture({REFERENCE: 1.0})}
    number = desk.comparisons.start(desk.engine, PromptSet("two", PROMPTS, [1, 2]), mixtures, SAMPLING, 1)
    job = desk.comparisons.jobs.get(number)
    if job and job.thread:
        job.thread.join(120)
    shown = asyncio.run(compare.refresh(number))
    assert "error" not in shown[compare.progress] and not desk.comparisons.failures
    assert [row["prompt"] for row in shown[compare.table]["rows"]] == PROMPTS
    opened = compare.reading(number, 0)
    assert opened and all(response["text"] is not None for response in opened["responses"])
    assert results.opened({**dict.fromkeys(results.inputs), results.seen: {}}, ANYBODY)


def test_a_bank_is_sampled_balanced_and_drawn(desk: Desk) -> None:
    _, explore, _ = tabs_of(desk)
    shown = asyncio.run(explore.show())
    if not desk.expected.objectives:
        assert "has no reward models" in shown[explore.about]
        with pytest.raises(InputError, match="has no reward models"):
            asyncio.run(sampled(desk))
        return
    asyncio.run(sampled(desk))
    shown = asyncio.run(explore.show())
    assert explore.weights in shown or "always the same" in shown[explore.about]
    for method in ("mpo", "maxmin"):
        found = Balance.find(bare_balance(desk), method, {}, {}, 1.0)
        assert sum(found.solution.weights.values()) == pytest.approx(1)
    faders = dict.fromkeys(desk.policies, 1.0)
    assert desk.expected.read(faders, "geometric", 1.0).text.startswith("Expected")


async def sampled(desk: Desk) -> None:
    async for _ in desk.expected.sample("me"):
        pass


def bare_balance(desk: Desk) -> Any:
    """Balance without its components, for `find` alone."""
    balance = Balance.__new__(Balance)
    balance.desk = desk
    return balance
