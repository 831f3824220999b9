"""What groups of clients get of the batch."""

from __future__ import annotations

import time

import pytest

from engine import Engine, Request, Sampling
from engine.inference import scheduler as scheduling
from engine.inference.batch import Batch
from engine.inference.scheduler import SHARE

ROWS = 12


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "SHARED_FROM", 1)


def test_a_group_leaves_room_for_another(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address with many sessions does not fill the batch; requests without a group may."""
    scheduler, step = tiny_engine._scheduler, Batch.step
    seen: list[list[Request]] = []  # what runs, at each step

    def slowly(batch: Batch, drawn: object) -> None:
        seen.append(list(scheduler.running))
        time.sleep(0.01)
        step(batch, drawn)  # type: ignore[arg-type]

    monkeypatch.setattr(scheduler.batch, "max_rows", ROWS)
    monkeypatch.setattr(Batch, "step", slowly)
    mixture, long = tiny_engine.mixture({"reference": 1.0}), Sampling(max_new_tokens=30, temperature=1.0)

    def ask(client: object, count: int) -> list[Request]:
        return [
            tiny_engine.submit("mix", mixture, long, i, trace=False, rewards=False, client=client) for i in range(count)
        ]

    flood = [one for session in range(20) for one in ask(("flood", session), 1)]
    while len(seen) < 3:
        time.sleep(0.01)
    before = len(seen)
    (other,) = ask(("honest", 1), 1)
    free = ask(None, 9)
    for request in [*flood, other, *free]:
        assert request.completion(60).tokens
    share = round(SHARE * ROWS)
    assert max(sum(one in flood for one in running) for running in seen) == share
    first = next(place for place, running in enumerate(seen) if other in running)
    assert first <= before + 2, "it did not have to wait for the end of a response"
    assert max(len(running) for running in seen) == ROWS, "requests without a group take the rest"


def test_a_request_that_needs_more_than_the_share_is_served(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_engine._scheduler.batch, "max_rows", 4)
    mixture = tiny_engine.mixture({"plain": 0.5})
    few = Sampling(max_new_tokens=3)
    requests = [
        tiny_engine.submit("mix", mixture, sampling, 1, trace=False, rewards=False, client=("a", 1))
        for sampling in (few, Sampling(max_new_tokens=3, particles=3), few)
    ]
    assert all(request.completion(60).tokens for request in requests)
