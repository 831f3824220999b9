"""What an engine counts of its own work."""

from __future__ import annotations

import time

import numpy as np
import pytest

from engine import Engine, Sampling
from engine.inference.batch import Batch
from engine.inference.finish_reason import FinishReason
from engine.inference.telemetry import Histogram


def test_a_histogram_counts_as_a_comparison_does() -> None:
    bounds, rng = (0.1, 0.5, 2.0), np.random.default_rng(0)
    values = [*rng.exponential(0.5, 500).tolist(), 0.1, 0.5, 2.0]
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    assert histogram.cumulative() == [*(sum(value <= bound for value in values) for bound in bounds), len(values)]
    assert histogram.count == len(values) and histogram.sum == pytest.approx(sum(values))


def test_tokens_and_responses_are_counted_by_how_they_ended(tiny) -> None:
    with Engine.from_config(tiny.config) as engine:
        kept = engine.telemetry
        made = [engine.generate("mix", seed=seed, max_new_tokens=5 + seed) for seed in range(6)]
        assert kept.tokens == sum(len(completion.tokens) for completion in made)
        for reason in FinishReason:
            assert kept.responses[reason] == sum(completion.finish_reason == reason for completion in made)
        assert kept.step_seconds.count == sum(len(completion.tokens) for completion in made)  # one at a time
        assert kept.first_token_seconds.count == 6 and 0 < kept.first_token_seconds.sum < 60
        # Tokens that are given are not drawn.
        given = made[0].tokens[:3]
        before = kept.tokens
        more = engine.submit("mix", engine.mixture(), Sampling(max_new_tokens=2), tokens=given).completion()
        assert kept.tokens - before == len(more.tokens) - len(given) > 0
        assert kept.alive
    assert not kept.alive


def test_tokens_of_all_particles_are_counted(tiny) -> None:
    with Engine.from_config(tiny.config) as engine:
        engine.submit("mix", engine.mixture(), Sampling(max_new_tokens=4, particles=8)).completion()
        # A particle that ends early draws fewer.
        assert 8 <= engine.telemetry.tokens <= 32
        assert engine.telemetry.first_token_seconds.count == 1
        assert sum(engine.telemetry.responses.values()) == 1


def test_failures_are_counted_by_kind(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine.from_config(tiny.config) as engine:
        kept, step = engine.telemetry, Batch.step

        def failing(error: BaseException):
            def fail(self: Batch, drawn=lambda: None) -> None:
                monkeypatch.setattr(Batch, "step", step)
                raise error

            return fail

        monkeypatch.setattr(Batch, "step", failing(ValueError("broken")))
        with pytest.raises(ValueError, match="broken"):
            engine.generate("mix", max_new_tokens=3)
        assert (kept.failed_steps, kept.out_of_memory, kept.restarts) == (1, 0, 0)
        monkeypatch.setattr(Batch, "step", failing(MemoryError()))
        with pytest.raises(Exception, match="out of memory"):
            engine.generate("mix", max_new_tokens=3)
        assert (kept.failed_steps, kept.out_of_memory, kept.restarts) == (1, 1, 0)
        monkeypatch.setattr(Batch, "step", failing(SystemExit("crash")))
        with pytest.raises(RuntimeError, match="had to restart"):
            engine.generate("mix", max_new_tokens=3)
        assert kept.restarts == engine.restarts == 1
        assert kept.responses == {FinishReason.ERROR: 3}
        engine.generate("mix", max_new_tokens=3)
        assert kept.alive


def test_a_stopped_response_is_counted(tiny) -> None:
    with Engine.from_config(tiny.config) as engine:
        request = engine.submit("mix", engine.mixture(), Sampling(max_new_tokens=240))
        time.sleep(0.05)
        request.cancel()
        completion = request.completion(30)
        assert engine.telemetry.responses[completion.finish_reason] == 1
