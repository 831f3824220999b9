"""Responses as the page draws them, branches of them, and the drawer's numbers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.html import caption
from app.services.app_state import Desk
from app.services.generation_run import Run
from app.ui.token_inspector import ROWS, token_table
from engine import Engine, InputError, Mixture, Sampling

COLOURS = {"plain": "#1", "stabilized": "#2", "narrow": "#3"}
SHORT = Sampling(max_new_tokens=14, temperature=0.9)


@pytest.fixture
def desk(store, tiny_engine: Engine) -> Desk:
    return Desk(tiny_engine, store)


@pytest.fixture
def run(desk: Desk) -> Run:
    mixtures = {"left": desk.engine.mixture(), "right": desk.engine.mixture({"reference": 1.0})}
    run = desk.start("me", "move the faders", mixtures, SHORT, 3, steerable=["left"])
    finish(run)
    return run


def finish(run: Run, sides: list[str] | None = None) -> None:
    async def follow() -> None:
        async for _ in run.updates(interval=0.001, sides=sides):
            pass

    asyncio.run(follow())


def of_response(number: int, lines: list[str]) -> list[Any]:
    """What the page learns of one response of a run."""
    return [said for of, said in map(json.loads, lines) if of == number]


def test_what_is_shown_grows_and_is_plain_data(desk: Desk) -> None:
    run, seen, times = desk.start("me", "mix", {"left": desk.engine.mixture()}, SHORT, 1), [], 0

    async def follow() -> None:
        nonlocal times
        async for lines in run.stream(interval=0.001):
            seen.extend(lines)
            times += bool(lines)

    asyncio.run(follow())
    assert times > 2
    assert seen == run.lines(), "what was sent is changed, or sent again"
    made = run.completions["left"]
    side, begins, *said = of_response(0, seen)
    assert side == "left" and begins == {"kept": 0}
    assert "".join(line["rest"] if isinstance(line, dict) else line[0] for line in said) == made.text
    tokens = [line for line in said if isinstance(line, list)]
    assert len(tokens) == len(made.tokens)
    for (_, pushes), log_probs in zip(tokens, made.trace, strict=True):
        expected = [log_probs[name] - log_probs["reference"] for name in desk.policies]
        assert pushes == pytest.approx(expected, abs=0.006)


def test_only_what_follows_the_faders_is_steered(desk: Desk) -> None:
    long = Sampling(max_new_tokens=150, temperature=0.9)
    engine, then = desk.engine, desk.engine.mixture({"narrow": 1})
    run = desk.start("me", "mix", {"left": engine.mixture(), "right": engine.mixture()}, long, 1, steerable=["left"])

    async def follow() -> None:
        async for _ in run.updates(interval=0.001):
            if all(run.counts.values()):
                run.steer(then)

    asyncio.run(follow())
    left, right = run.responses["left"], run.responses["right"]
    assert list(left.completion.steered.values()) == [engine.mixture(), then]
    assert right.completion.steered == {} and right.marks == []
    ((place, kind, words),) = left.marks
    assert (place, kind) == (max(left.completion.steered), "steered")
    assert words == "Steered to narrow"
    assert "steered once, at last narrow" in caption(left.completion)


def test_a_branch_begins_with_what_was_said(desk: Desk, run: Run) -> None:
    left = run.responses["left"]
    run.chosen = left, 5
    mixture = desk.engine.mixture({"narrow": 1})
    assert desk.branch("me", "third", mixture, SHORT, 9) is run
    third = run.responses["third"]
    side, begins, *said = of_response(2, run.lines())
    assert (side, begins) == ("third", {"kept": 5})
    assert [line[0] for line in said[:5]] == left.texts[:5], "what is kept is there at once"
    finish(run, ["third"])
    made = third.completion
    assert made.tokens[:5] == left.tokens[:5] and third.tokens == made.tokens
    assert third.text == made.text
    assert [mark[:2] for mark in third.marks] == [[5, "branch"]]
    assert third.top_logprobs[:5] == left.top_logprobs[:5] and all(third.top_logprobs)
    assert "from token 6 on" in caption(made)
    assert run.done and run.rateable
    # What is looked at may be a branch as well.
    run.chosen = third, 8
    desk.branch("me", "fourth", mixture, SHORT, 9)
    finish(run, ["fourth"])
    assert run.completions["fourth"].prefix_length == 8


def test_a_branch_that_comes_while_the_text_is_streamed_is_streamed_with_it(desk: Desk) -> None:
    long, mixture = Sampling(max_new_tokens=120, temperature=0.9), desk.engine.mixture({"narrow": 1})
    run, seen = desk.start("me", "mix", {"left": mixture}, long, 1), []
    stages = [run.stage]

    async def follow() -> None:
        async for lines in run.stream(interval=0.001):
            seen.extend(lines)
            left = run.responses["left"]
            if left.count > 8 and len(run.responses) == 1:
                run.chosen = left, 5
                desk.branch("me", "third", mixture, long, 9)
                stages.append(run.stage)
                run.chosen = left, 4
                desk.branch("me", "third", mixture, SHORT, 9)  # takes the place of the one before

    asyncio.run(follow())
    assert run.done
    assert run.responses["third"].over and run.responses["third"].completion.prefix_length == 4
    text = "".join(line["rest"] if isinstance(line, dict) else line[0] for line in of_response(2, seen)[2:])
    assert text == run.texts["third"]
    assert len({*stages, run.stage}) == 3, "a page that streams no more is not told that there is more"


def test_nothing_to_go_on_from_is_told(desk: Desk, run: Run) -> None:
    for session in ("me", "stranger"):
        with pytest.raises(InputError, match="click a token"):
            desk.branch(session, "third", desk.engine.mixture(), SHORT, 1)


def test_the_drawer_has_each_policy_the_mixture_as_it_was_and_now(desk: Desk, run: Run) -> None:
    left, now = run.responses["left"], desk.engine.mixture({"narrow": 1})
    shown = token_table("Left", left, 4, now, COLOURS, desk.engine.policy_set)
    assert [column["name"] for column in shown["columns"]] == ["was", "now", "reference", *COLOURS]
    assert 6 <= len(shown["tokens"]) <= ROWS
    (drawn,) = [i for i, token in enumerate(shown["tokens"]) if token["drawn"]]
    columns = {column["name"]: column for column in shown["columns"]}
    for name in ("reference", *COLOURS):
        assert columns[name]["values"][drawn] == pytest.approx(2.718281828 ** left.completion.trace[4][name], abs=1e-4)
    for column in shown["columns"]:
        assert sum(column["values"]) + column["rest"] == pytest.approx(1)
    assert columns["now"]["values"] == pytest.approx(columns["narrow"]["values"])
    assert columns["was"]["values"] == sorted(columns["was"]["values"], reverse=True)
    # Rows stay where they are when the faders move.
    moved = token_table("Left", left, 4, desk.engine.mixture({"plain": 1}), COLOURS, desk.engine.policy_set)
    assert moved["tokens"] == shown["tokens"]


def test_what_the_drawer_cannot_know_is_said(desk: Desk, run: Run) -> None:
    left = run.responses["left"]
    for now, says in ((None, "zero"), (desk.engine.mixture({"plain": 1}, "soup"), "forward pass")):
        column = token_table("Left", left, 2, now, COLOURS, desk.engine.policy_set)["columns"][1]
        assert set(column["values"]) == {None} and column["rest"] is None
        assert says in column["hint"]
    for place in (-1, 10_000):
        with pytest.raises(InputError, match="no such token"):
            token_table("Left", left, place, Mixture({"plain": 1.0}), COLOURS, desk.engine.policy_set)
