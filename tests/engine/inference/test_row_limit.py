"""The batch shrinks when memory runs out, and grows again while it does not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from engine import Engine, Sampling
from engine.inference import row_limit
from engine.inference.model_runner import ModelRunner
from engine.inference.row_limit import MOST_PATIENCE, PATIENCE, RowLimit
from tests.conftest import Tiny


def test_it_grows_by_a_quarter_and_never_above_the_first_limit() -> None:
    rows, limit = RowLimit(), 320
    limit = rows.shrink(limit, 32)
    seen = [limit]
    for _ in range(PATIENCE * 20):
        limit = rows.succeed(limit, 4)
        if limit != seen[-1]:
            seen.append(limit)
    assert seen == [16, 20, 25, 31, 38, 47, 58, 72, 90, 112, 140, 175, 218, 272, 320]
    assert rows.first is None and rows.succeed(320, 320) == 320


def test_nothing_changes_while_memory_has_never_run_out() -> None:
    rows = RowLimit()
    assert {rows.succeed(8, 8) for _ in range(10 * PATIENCE)} == {8}


def test_the_limit_is_at_least_a_row_and_always_below_what_failed() -> None:
    rows, limit = RowLimit(), 320
    for expected in (160, 80, 40, 20, 10, 5, 2, 1, 1):
        limit = rows.shrink(limit, limit)
        assert limit == expected
    assert RowLimit().shrink(4, 12) == 2, "a request that was steered may have more rows than the limit"


def failures(memory: Callable[[int], int], steps: int) -> list[int]:
    """The steps at which memory ran out, under a load that always fills the batch."""
    rows, limit, failed = RowLimit(), 320, []
    for step in range(steps):
        if limit > memory(step):
            failed.append(step)
            limit = rows.shrink(limit, limit)
        else:
            limit = rows.succeed(limit, limit)
        assert 1 <= limit <= 320
    return failed


def test_a_memory_that_stays_small_is_tried_ever_more_rarely() -> None:
    failed = failures(lambda step: 18, 100_000)
    assert failed[:5] == [0, 1, 2, 3, 4]
    assert 3 <= len(failed) - 5 <= 10
    gaps = [later - earlier for earlier, later in pairwise(failed[5:])]
    assert gaps == sorted(gaps) and gaps[-1] > 8 * gaps[0]


def test_a_memory_that_comes_back_is_used_again() -> None:
    rows, limit = RowLimit(), 320
    limits = []
    for step in range(40_000):
        small = step < 5000
        limit = rows.shrink(limit, limit) if small and limit > 18 else rows.succeed(limit, limit)
        limits.append(limit)
    assert limits[4999] <= 22 and limits[-1] == 320
    assert rows.patience == PATIENCE, "as many rows as failed have succeeded"


def test_the_patience_has_an_end() -> None:
    rows = RowLimit()
    for _ in range(40):
        limit = rows.shrink(8, 8)
        for _ in range(rows.patience):
            limit = rows.succeed(limit, 1)
    assert rows.patience == MOST_PATIENCE


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_engine_recovers_once_there_is_memory_again(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """All responses are what they would have been, before and after."""
    monkeypatch.setattr(row_limit, "PATIENCE", 2)
    memory = [8]  # rows
    real = ModelRunner.step

    def limited(self: ModelRunner) -> None:
        if len(self.rows) > memory[0]:
            raise error
        real(self)

    with Engine.from_config(tiny.config) as engine:
        sampling = Sampling(max_new_tokens=12, temperature=0.8)
        first = engine.max_rows
        alone = [engine.generate("mix", max_new_tokens=12, temperature=0.8, seed=i).tokens for i in range(8)]

        def together() -> None:
            asked = threading.Event()
            engine._scheduler.post(lambda: asked.wait(60) and None)
            requests = [engine.submit("mix", engine.mixture(), sampling, i) for i in range(8)]
            asked.set()
            assert [request.completion(timeout=120).tokens for request in requests] == alone

        monkeypatch.setattr(ModelRunner, "step", limited)
        together()
        assert engine.max_rows < first
        memory[0] = 1000
        for _ in range(20):
            together()
        assert engine.max_rows == first
        assert engine.restarts == 0
