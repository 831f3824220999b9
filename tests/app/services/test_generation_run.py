from __future__ import annotations

import asyncio

import pytest

from app.services.app_state import Desk
from app.services.generation_run import Run
from engine import Engine, InputError, Sampling

LONG = Sampling(max_new_tokens=150, temperature=1.0)


@pytest.fixture
def desk(store, tiny_engine: Engine) -> Desk:
    return Desk(tiny_engine, store)


def start(desk: Desk, session: str = "me", sampling: Sampling = LONG) -> Run:
    mixtures = {"left": desk.engine.mixture({"plain": 1.0}), "right": desk.engine.mixture({"reference": 1.0})}
    return desk.start(session, "move the faders", mixtures, sampling, seed=3)


async def follow(run: Run, seen: list[dict[str, str]], stop_after: int | None = None) -> None:
    async for _ in run.updates(interval=0.001):
        seen.append(dict(run.texts))
        if stop_after is not None and len(seen) >= stop_after:
            break


def test_both_sides_grow_at_once_to_what_the_engine_made(desk):
    run, seen = start(desk, sampling=Sampling(max_new_tokens=60, temperature=0.0)), []
    asyncio.run(follow(run, seen))
    assert run.done and run.rateable
    for side in ("left", "right"):
        assert run.texts[side] == run.completions[side].text
        assert len({len(texts[side]) for texts in seen}) > 2
    both = [texts for texts in seen if all(texts.values())]
    assert len(both) > 1, "one side waited for the other"


def test_the_last_update_has_the_whole_texts(desk):
    """Also when the responses end between two updates."""
    for length in (1, 2, 9):
        run, seen = start(desk, sampling=Sampling(max_new_tokens=length, temperature=0.0)), []

        async def follow_slowly(run: Run = run, seen: list[dict[str, str]] = seen) -> None:
            async for _ in run.updates(interval=0.3):
                seen.append(dict(run.texts))

        asyncio.run(follow_slowly())
        assert seen[-1] == {side: completion.text for side, completion in run.completions.items()}


def test_stopping_keeps_what_there_is_and_it_can_be_rated(desk):
    async def scene() -> Run:
        run = start(desk)
        async for _ in run.updates():
            if all(run.counts.values()):  # the other side may be a step behind; an empty response cannot be rated
                desk.stop("me")
        return run

    run = asyncio.run(scene())
    assert run.rateable
    assert {c.finish_reason for c in run.completions.values()} <= {"stopped", "end"}
    assert all(len(c.tokens) < 150 for c in run.completions.values())
    assert desk.rate("me", "rating-1", "tie", "anna")
    (pair,) = desk.store.pairs()
    assert pair["left"]["text"] == run.texts["left"]
    assert pair["left"]["model"] == "tiny"


def test_who_leaves_stops_the_responses(desk):
    async def scene() -> Run:
        run = start(desk)
        async for _ in run.updates(interval=0.001):
            if all(run.counts.values()):
                desk.forget("me")
        return run

    run = asyncio.run(scene())
    assert {c.finish_reason for c in run.completions.values()} <= {"stopped", "end"}
    assert any(len(c.tokens) < 150 for c in run.completions.values())
    assert not desk.runs


def test_another_run_takes_the_place_of_the_one_before(desk):
    first, second = start(desk), start(desk)
    assert first.replaced and not second.replaced
    assert desk.runs["me"] is second
    asyncio.run(follow(first, []))
    assert first.completions["left"].finish_reason in ("stopped", "end")
    second.cancel()


def test_a_pair_is_rated_once(desk):
    asyncio.run(follow(start(desk, sampling=Sampling(max_new_tokens=5)), []))
    assert desk.rate("me", "rating-1", "left", "anna")
    assert not desk.rate("me", "rating-2", "right", "anna")
    assert [pair["choice"] for pair in desk.store.pairs()] == ["left"]


def test_nothing_to_rate_is_said(desk):
    with pytest.raises(InputError, match="nothing to rate"):
        desk.rate("stranger", "rating-1", "left", "anna")
    run = start(desk)
    with pytest.raises(InputError, match="both responses"):
        desk.rate("me", "rating-1", "left", "anna")
    run.cancel()
    assert not list(desk.store.pairs())


def test_sessions_do_not_meet(desk):
    short = Sampling(max_new_tokens=4)
    runs = [start(desk, session, short) for session in ("a", "b")]

    async def both() -> None:
        await asyncio.gather(*(follow(run, []) for run in runs))

    asyncio.run(both())
    assert desk.rate("a", "rating-a", "left", "anna")
    assert desk.rate("b", "rating-b", "right", "ben")
    assert desk.runs["a"].choice == "left" and desk.runs["b"].choice == "right"


def test_an_engine_that_fails_is_told(desk, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(desk.engine.reward_set, "score", fail)
    run = start(desk, sampling=Sampling(max_new_tokens=3))
    asyncio.run(follow(run, []))
    assert any("out of memory" in str(response.error) for response in run.responses.values())
    assert not run.rateable
