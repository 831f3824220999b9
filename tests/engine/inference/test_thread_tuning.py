"""How many threads a step gets, against machines whose steps take what is written here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from engine.inference import thread_tuning
from engine.inference.thread_tuning import PERIOD, TRIALS, Threads, search


def settled(limit: int, seconds: Callable[[int], float], steps: int = 2000) -> list[int]:
    """What the last steps of so many used."""
    plan = search(limit)
    used = [next(plan)]
    for _ in range(steps):
        used.append(plan.send(seconds(used[-1])))
    return used[-PERIOD:]


@pytest.mark.parametrize(
    ("limit", "seconds", "best"),
    [
        (2, lambda count: {1: 0.010, 2: 0.015}[count], 1),  # they wait for each other longer than they compute
        (2, lambda count: {1: 0.041, 2: 0.037}[count], 1),  # a tenth is not worth a core
        (2, lambda count: {1: 0.100, 2: 0.055}[count], 2),
        (16, lambda count: 1 / count, 16),
        (16, lambda count: 1 / min(count, 4), 4),
        (16, lambda count: 1.0, 1),
        (6, lambda count: 1 / count, 6),
        (1, lambda count: 1.0, 1),
    ],
)
def test_as_many_as_pay(limit: int, seconds: Callable[[int], float], best: int) -> None:
    used = settled(limit, seconds)
    assert max(set(used), key=used.count) == best
    assert set(used) <= {max(1, best // 2), best, min(limit, 2 * best)}


def test_a_machine_that_changes_is_followed() -> None:
    plan, faster = search(4), 4
    count = next(plan)
    for at in range(4 * PERIOD):
        faster = 4 if at < 2 * PERIOD else 1
        count = plan.send(0.01 if count == faster else 0.02)
    assert count == 1


def test_a_large_model_is_not_left_to_one_thread() -> None:
    plan = search(16)
    used = [next(plan)]
    for _ in range(500):
        used.append(plan.send(1 / used[-1]))
    assert min(used) == 8


def test_rows_of_another_number_have_a_search_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(thread_tuning, "most_threads", lambda: 2)
    monkeypatch.setattr(thread_tuning.time, "perf_counter", lambda: clock[0])
    before, own = torch.get_num_threads(), Threads()
    try:
        for rows, factor in ((3, {1: 1.0, 2: 2.0}), (80, {1: 2.0, 2: 1.0})):
            for _ in range(4 * TRIALS + 1):
                with own.for_rows(rows) as count:
                    assert torch.get_num_threads() == count
                    clock[0] += factor[count]
                assert torch.get_num_threads() == 2
        with own.for_rows(2) as few, own.for_rows(100) as many:
            assert (few, many) == (1, 2)
    finally:
        torch.set_num_threads(before)


def test_a_step_that_fails_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(thread_tuning, "most_threads", lambda: before)
    own = Threads()
    with pytest.raises(RuntimeError), own.for_rows(4):
        raise RuntimeError
    assert torch.get_num_threads() == before
    with own.for_rows(4) as count:
        assert count == before
