"""Many at once, failures among them, too little memory: nothing is lost, nobody pays for another's mistake."""

from __future__ import annotations

import gc
import resource
import threading
import time
from typing import Any

import pytest
import torch

from engine import Engine, InputError, Sampling
from engine.inference.batch import Batch
from engine.inference.model_runner import ModelRunner
from tests.conftest import Tiny

PROMPTS = ["mix", "move the faders", "the quick brown fox jumps over the lazy dog"]
WEIGHTS = [{"plain": 1.0}, {"narrow": 0.5, "stabilized": 0.5}, {"reference": 1.0, "plain": 1.0}]


def resident() -> float:
    """Megabytes that this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def settings(i: int) -> dict:
    return {
        "weights": WEIGHTS[i % 3],
        "max_new_tokens": 2 + i % 7,
        "temperature": (0.0, 0.8)[i % 2],
        "seed": i % 5,
        "rule": ("geometric", "power", "soup")[i % 4 % 3],
    }


def test_three_thousand_requests_from_32_threads(tiny_engine: Engine) -> None:
    """None lost, none mixed up, some of them cancelled or steered; no growth in memory after the first 2,000
    (oneDNN compiles a product when it first meets its number of rows, and keeps it)."""
    kinds = 420  # all combinations of the settings above
    expected = {i: tiny_engine.generate(PROMPTS[i % 3], **settings(i)).tokens for i in range(kinds)}
    found: dict[int, list[int]] = {}
    numbers, lock, wrong = iter(range(3000)), threading.Lock(), []
    sizes: dict[int, float] = {}

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            if number in (2000, 2999):
                gc.collect()
                sizes[number] = resident()
            try:
                if number % 50 == 49:
                    stream = tiny_engine.stream(PROMPTS[0], max_new_tokens=100, temperature=0.0)
                    next(stream)
                    stream.steer(weights={"narrow": 1})
                    stream.cancel()
                    assert stream.completion(timeout=60).finish_reason in ("stopped", "end")
                found[number] = tiny_engine.generate(PROMPTS[number % 3], **settings(number)).tokens
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=400)
    assert wrong == []
    assert sorted(found) == list(range(3000))
    assert all(found[number] == expected[number % kinds] for number in found)
    assert sizes[2999] - sizes[2000] < 20
    deadline = time.monotonic() + 10
    while (tiny_engine._scheduler.running or tiny_engine.waiting) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert tiny_engine._scheduler.batch.rows == tiny_engine.waiting == tiny_engine.restarts == 0


def test_the_queue_is_seen_and_comes_round(tiny: Tiny) -> None:
    with Engine.from_config(tiny.config) as engine:
        engine._scheduler.batch.max_rows = 4  # one at a time
        sampling = Sampling(max_new_tokens=60, temperature=0.0)
        order: list[str] = []

        def ask(name: str, client: str):
            request = engine.submit("mix", engine.mixture(), sampling, client=client)
            request._future.add_done_callback(lambda _: order.append(name))
            return request

        first = ask("a1", "a")
        next(iter(first))
        many = [ask(f"a{i}", "a") for i in range(2, 6)]
        one = ask("b1", "b")
        engine.rewards([])  # everything before it has been taken by the worker
        assert (engine.waiting, one.ahead, many[0].ahead, many[3].ahead) == (5, 1, 0, 4)
        for request in (*many, one):
            request.completion(timeout=60)
        assert order == ["a1", "a2", "b1", "a3", "a4", "a5"]
        assert one.ahead == -1


@pytest.mark.parametrize("where", ["begin", "step"])
def test_out_of_memory_makes_do_with_fewer_at_once(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As a GPU would: any pass with more than 8 rows runs out. All responses are what they would have been."""
    with Engine.from_config(tiny.config) as engine:
        sampling = Sampling(max_new_tokens=12, temperature=0.8)
        prompts = [PROMPTS[i % 3] for i in range(8)]
        expected = [engine.generate(p, max_new_tokens=12, temperature=0.8, seed=i) for i, p in enumerate(prompts)]
        real = getattr(ModelRunner, where)

        def limited(self: ModelRunner, *given) -> Any:
            if len(self.rows) + (len(given[0]) if given else 0) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return real(self, *given)

        monkeypatch.setattr(ModelRunner, where, limited)
        asked = threading.Event()
        engine._scheduler.post(lambda: asked.wait(60))  # they all join at once
        requests = [engine.submit(p, engine.mixture(), sampling, i) for i, p in enumerate(prompts)]
        asked.set()
        assert [r.completion(timeout=60).tokens for r in requests] == [e.tokens for e in expected]
        assert engine._scheduler.batch.max_rows <= 8
        assert engine.restarts == 0
        assert "out of memory with 32 rows: no more than 16 at once" in caplog.text
        monkeypatch.setattr(
            ModelRunner, where, lambda *given: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
        )
        with pytest.raises(InputError, match=r"out of memory: one response of 4 policies and up to 1.. tokens"):
            engine.submit("mix", engine.mixture(), Sampling(max_new_tokens=100)).completion(timeout=60)
        monkeypatch.undo()
        assert engine.generate("mix", max_new_tokens=3).tokens


def test_a_step_that_fails_for_one_goes_on_for_the_others(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The culprit is found by trying each alone."""
    with Engine.from_config(tiny.config) as engine:
        sampling = Sampling(max_new_tokens=20, temperature=0.8)
        expected = [engine.generate("mix", max_new_tokens=20, temperature=0.8, seed=i).tokens for i in range(3)]
        real = ModelRunner.begin

        def fragile(self: ModelRunner, rows) -> Any:
            if any("poison" in sequence.prompt for sequence, _ in rows):
                raise RuntimeError("this prompt breaks the model")
            return real(self, rows)

        monkeypatch.setattr(ModelRunner, "begin", fragile)
        others = [engine.submit("mix", engine.mixture(), sampling, seed) for seed in range(2)]
        next(iter(others[0]))
        poison = engine.submit("poison", engine.mixture(), sampling)
        others.append(engine.submit("mix", engine.mixture(), sampling, 2))
        with pytest.raises(RuntimeError, match="this prompt breaks the model"):
            poison.completion(timeout=60)
        assert [request.completion(timeout=60).tokens for request in others] == expected
        assert engine.restarts == 0


def test_the_worker_begins_again_and_says_so(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine.from_config(tiny.config) as engine:
        monkeypatch.setattr(Batch, "fits", lambda *_: (_ for _ in ()).throw(KeyError("a mistake of ours")))
        first = engine.submit("mix", engine.mixture(), Sampling(max_new_tokens=200, temperature=0.0))
        next(iter(first))
        second = engine.submit("mix", engine.mixture())
        with pytest.raises(RuntimeError, match="the engine had to restart: 'a mistake of ours'"):
            first.completion(timeout=60)
        assert engine.restarts >= 1
        # Whoever waited is let in by the worker that began again.
        assert second.completion(timeout=60).tokens
        monkeypatch.undo()
        assert engine.generate("mix", max_new_tokens=3).tokens
