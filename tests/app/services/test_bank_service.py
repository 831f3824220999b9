"""The bank behind the desk: read, sampled for those who wait, and what it says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.services import bank_service
from app.services.bank_service import Expected, faders_of, in_words
from engine import Engine, InputError, Sampling
from engine.bank import collection, estimate
from tests.conftest import Tiny

PROMPTS = ["mix", "move the faders", "the quick brown fox"]


@pytest.fixture
def engine(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bank_service, "SAMPLING", Sampling(max_new_tokens=6, temperature=1.0))
    prompts = tiny.folder / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    with Engine.from_config(tiny.write("with-prompts.yaml", prompts="prompts.txt")) as engine:
        yield engine


async def sample(expected: Expected, session: str = "me") -> list[tuple[int, int]]:
    return [progress async for progress in expected.sample(session)]


def even(expected: Expected) -> dict[str, float]:
    return dict.fromkeys(expected.engine.policy_set.names, 0.5)


def test_a_bank_is_sampled_then_found_again_and_more_is_added(engine: Engine) -> None:
    first = Expected(engine)
    first.load()
    assert first.bank is None
    assert "press Balance" in first.read(even(first), "geometric", 1.0).text
    asyncio.run(sample(first))
    assert first.bank is not None and first.bank.rewards.shape[:2] == (3, 15), "12, rounded up to whole rounds of 5"

    again = Expected(engine)
    again.load()
    assert again.bank is not None and np.array_equal(again.bank.rewards, first.bank.rewards)
    asyncio.run(sample(again))
    assert again.bank.rewards.shape[1] > 15


def test_all_who_ask_wait_for_one_bank(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, collect = [], collection.collect
    monkeypatch.setattr(collection, "collect", lambda *a, **k: (calls.append(1), collect(*a, **k))[1])
    expected = Expected(engine)

    async def both() -> None:
        await asyncio.gather(sample(expected, "a"), sample(expected, "b"))

    asyncio.run(both())
    assert len(calls) == 1
    assert expected.bank is not None


def test_it_stops_when_nobody_waits_and_keeps_what_there_is(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, finish = Expected(engine), collection.finish
    finishing, go_on = threading.Event(), threading.Event()

    def slow(*arguments):
        finishing.set()
        go_on.wait(20)
        return finish(*arguments)

    monkeypatch.setattr(collection, "finish", slow)

    async def scene() -> None:
        async for _ in expected.sample("me"):
            if finishing.is_set():
                expected.leave("me")

    with pytest.raises(InputError, match=r"Stopped: .* are kept"):
        asyncio.run(scene())
    go_on.set()
    job = expected._job
    assert job is not None and job.over.wait(20)
    assert expected.bank is None and isinstance(job.error, InputError)
    assert len(expected.file.read()) >= 1
    # Asked again it goes on.
    progress = asyncio.run(sample(expected))
    assert expected.bank is not None and progress


def test_the_reading_is_the_banks(engine: Engine) -> None:
    expected = Expected(engine)
    asyncio.run(sample(expected))
    there = expected.bank
    assert there is not None
    reading = expected.read({"plain": 0.9, "stabilized": 0.0, "narrow": 0.3}, "geometric", 1.5)
    direct = there.estimate(1.5 * np.array([0.75, 0.0, 0.25]))
    assert list(reading.raw.values()) == pytest.approx(direct.rewards.tolist())
    assert reading.standard == pytest.approx(engine.reward_set.standard(dict(reading.raw)))
    assert f"{float(direct.ess_fraction):.0%}" in reading.text
    assert reading.reliable == bool(direct.reliable)


def test_what_does_not_count_is_said(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Expected(engine)
    asyncio.run(sample(expected))
    assert expected.read(even(expected), "geometric", 1.0).text.startswith("Expected: over 3 prompts")
    monkeypatch.setattr(estimate, "LOW_ESS_FRACTION", 1.1)
    guess = expected.read(even(expected), "geometric", 1.0)
    assert not guess.reliable and guess.standard
    assert "a guess" in guess.text and "sample more" in guess.text and "gain" not in guess.text
    assert "lower the gain" in expected.read(even(expected), "geometric", 2.0).text


@pytest.mark.parametrize(
    ("faders", "rule", "said"),
    [(0.5, "soup", "soup rule"), (0.5, "power", "power rule"), (0.0, "geometric", "all faders are at zero")],
)
def test_where_there_is_nothing_to_show_the_reason_is_given(
    engine: Engine, faders: float, rule: str, said: str
) -> None:
    expected = Expected(engine)
    asyncio.run(sample(expected))
    reading = expected.read(dict.fromkeys(engine.policy_set.names, faders), rule, 1.0)
    assert said in reading.text and not reading.standard


def test_without_prompts_or_rewards_there_is_no_bank(tiny_engine: Engine, tiny: Tiny) -> None:
    expected = Expected(tiny_engine)
    expected.load()
    assert "names no prompts" in expected.read(even(expected), "geometric", 1.0).text
    with pytest.raises(InputError, match="names no prompts"):
        asyncio.run(sample(expected))
    with Engine.from_config(tiny.write("without-rewards.yaml", rewards=[])) as engine:
        assert "no reward models" in Expected(engine).read({}, "geometric", 1.0).text


def test_solvers_on_the_bank(engine: Engine) -> None:
    expected = Expected(engine)
    with pytest.raises(InputError, match="no bank yet"):
        expected.balanced()
    asyncio.run(sample(expected))
    solution = expected.balanced()
    assert expected.balanced() is solution, "computed once a bank"
    paths = expected.paths()
    assert set(paths) == {"mpo", "bsmd"}
    found = (np.array(list(solution.rewards.values())) - expected.centre) / expected.scale
    assert paths["mpo"][-1] == pytest.approx(found)
    lowest = min(expected.front().rewards[:, 0])
    weights = expected.reaching({"plain": float(lowest)}).weights
    assert sum(weights.values()) == pytest.approx(1)
    with pytest.raises(InputError, match="no weights keep to"):
        expected.reaching({"plain": 1e6})
    fixed = {"stabilized": 0.0, "narrow": 0.3}
    with pytest.raises(InputError, match="release a Lock"):
        expected.balanced(fixed)
    for found in (expected.balanced({"narrow": 0.3}), expected.reaching({"plain": float(lowest)}, {"narrow": 0.3})):
        assert found.weights["narrow"] == 0.3
        assert sum(found.weights.values()) == pytest.approx(1)
    assert expected.balanced() is solution
    with pytest.raises(InputError, match="at least one"):
        expected.reaching({})


def test_weights_as_faders_and_in_words() -> None:
    weights = {"a": 0.3, "b": 0.6, "c": 0.1}
    assert faders_of(weights) == {"a": 0.5, "b": 1.0, "c": 0.17}
    assert in_words(weights) == "b 60%, a 30%, c 10%"
