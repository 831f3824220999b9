"""Submit, stream, steer, cancel: many at once, and through mistakes."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from engine import Engine, InputError, Sampling
from engine.inference.model_runner import ModelRunner
from engine.inference.reward_worker import NICE
from tests.conftest import Tiny

PROMPT = "move the faders"


def test_the_same_seed_gives_the_same_response_whoever_else_generates(tiny_engine: Engine) -> None:
    settings = {"max_new_tokens": 30, "temperature": 0.9}
    alone = {seed: tiny_engine.generate(PROMPT, seed=seed, **settings).tokens for seed in range(6)}
    assert len({tuple(tokens) for tokens in alone.values()}) == 6
    together: dict[int, list[int]] = {}
    threads = [
        threading.Thread(
            target=lambda seed=seed: together.update({seed: tiny_engine.generate(PROMPT, seed=seed, **settings).tokens})
        )
        for seed in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_batches_equal_single_responses(tiny_engine: Engine) -> None:
    mixture = tiny_engine.mixture({"plain": 1, "narrow": 2})
    sampling = Sampling(max_new_tokens=12, temperature=0.8)
    prompts = ["mix", PROMPT, "the quick brown fox jumps"] * 40  # more rows than the batch holds at once
    completions = tiny_engine.generate_batch(prompts, mixture, sampling, list(range(120)))
    for i in (0, 50, 119):
        single = tiny_engine.submit(prompts[i], mixture, sampling, seed=i).completion()
        assert single.tokens == completions[i].tokens
        assert single.rewards == pytest.approx(completions[i].rewards, abs=1e-4)


def test_streamed_text_adds_up(tiny_engine: Engine) -> None:
    tokens = list(tiny_engine.stream(PROMPT, max_new_tokens=40, temperature=1.0, seed=2))
    completion = tiny_engine.generate(PROMPT, max_new_tokens=40, temperature=1.0, seed=2)
    assert [token.id for token in tokens] == completion.tokens
    assert "".join(token.text for token in tokens) == completion.text
    assert set(tokens[0].log_probs) == {"reference", "plain", "stabilized", "narrow"}


def test_generation_ends_at_the_end_of_turn(tiny_engine: Engine) -> None:
    reasons = set()
    for seed in range(12):
        completion = tiny_engine.generate(PROMPT, max_new_tokens=60, temperature=1.5, seed=seed)
        reasons.add(completion.finish_reason)
        ended = completion.tokens[-1] == tiny_engine.policy_set.tokenizer.eos_token_id
        assert (completion.finish_reason == "end") == ended
        assert completion.finish_reason == "end" or len(completion.tokens) == 60
        assert "<|end|>" not in completion.text
    assert "end" in reasons


def test_one_policy_alone_is_that_policy(tiny_engine: Engine) -> None:
    completion = tiny_engine.generate(PROMPT, {"narrow": 3.0}, max_new_tokens=10, temperature=0.0)
    assert completion.mixture.weights == {"plain": 0.0, "stabilized": 0.0, "narrow": 1.0}
    assert completion.tokens[0] != tiny_engine.generate(PROMPT, {"plain": 1}, max_new_tokens=1, temperature=0).tokens[0]
    reference = tiny_engine.generate(PROMPT, {"reference": 1}, max_new_tokens=10, temperature=0.0)
    no_gain = tiny_engine.generate(PROMPT, {"plain": 1}, gain=0.0, max_new_tokens=10, temperature=0.0)
    assert reference.tokens == no_gain.tokens


def test_cancel_keeps_what_there_is(tiny_engine: Engine) -> None:
    request = tiny_engine.submit(PROMPT, tiny_engine.mixture(), Sampling(max_new_tokens=200, temperature=0.0))
    seen = [next(iter(request)) for _ in range(3)]
    request.cancel()
    completion = request.completion(timeout=10)
    assert completion.finish_reason in ("stopped", "end")
    assert completion.tokens[:3] == [token.id for token in seen]
    assert set(completion.rewards) == {"plain", "narrow"}
    assert tiny_engine.generate(PROMPT, max_new_tokens=3).tokens  # the engine goes on


def test_leaving_a_stream_stops_it(tiny_engine: Engine) -> None:
    stream = tiny_engine.stream(PROMPT, max_new_tokens=200, temperature=0.0)
    next(stream)
    stream.close()
    deadline = time.monotonic() + 10
    while tiny_engine._scheduler.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not tiny_engine._scheduler.running


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights": {"nobody": 1}}, "no policy is called 'nobody'"),
        ({"weights": {"plain": 0, "narrow": 0}}, "all are zero"),
        ({"weights": {}}, "all are zero"),
        ({"weights": {"plain": float("nan")}}, "plain is nan"),
        ({"weights": {"plain": float("inf")}}, "plain is inf"),
        ({"weights": {"plain": -0.1}}, "plain is -0.1; weights cannot be negative"),
        ({"weights": {"plain": "much"}}, "plain is much"),
        ({"rule": "alchemy"}, "no rule is called 'alchemy'"),
        ({"gain": float("nan")}, "gain: found nan"),
        ({"exponent": float("inf"), "rule": "power"}, "exponent: found inf"),
        ({"temperature": -1.0}, "temperature: found -1.0"),
        ({"temperature": float("nan")}, "temperature: found nan"),
        ({"max_new_tokens": 0}, "max_new_tokens: found 0"),
        ({"top_p": 0.0}, "top_p: found 0.0"),
        ({"seed": -1}, "seed: found -1"),
        ({"seed": 1.5}, "seed: found 1.5"),
        ({"max_tokens": 3}, "settings: .*max_tokens"),
        ({"prompt": ""}, "prompt: it is empty"),
        ({"prompt": " \n\t "}, "prompt: it is empty"),
        ({"prompt": "word " * 20_000}, "prompt: it is 100,000 characters long, and these models hold 256 tokens"),
        ({"prompt": "word " * 1_000}, "prompt: it is .* tokens long, and these models hold 256"),
        ({"prompt": "half \ud83d"}, "lone surrogate"),
        ({"max_new_tokens": 10_000}, "of which 10,000 are for new tokens"),
    ],
)
def test_mistakes_are_one_line_and_the_engine_goes_on(tiny_engine: Engine, settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        tiny_engine.generate(**{"prompt": PROMPT, "max_new_tokens": 3, **settings})
    assert "\n" not in str(caught.value)
    assert len(tiny_engine.generate(PROMPT, max_new_tokens=3, temperature=0.0, seed=0).tokens) > 0


def test_huge_and_tiny_weights_are_normalised(tiny_engine: Engine) -> None:
    weights = tiny_engine.mixture({"plain": 1e308, "narrow": 1e308}).weights
    assert weights == {"plain": 0.5, "stabilized": 0.0, "narrow": 0.5}
    assert tiny_engine.mixture({"plain": 5e-324}).weights["plain"] == 1.0
    assert sum(tiny_engine.mixture().weights.values()) == pytest.approx(1)


def test_a_request_that_fails_fails_alone(tiny: Tiny) -> None:
    with Engine.from_config(tiny.config) as engine:
        mixture, sampling = engine.mixture(), Sampling(max_new_tokens=200, temperature=0.9)
        expected = engine.submit("mix", mixture, sampling, seed=3).completion().tokens
        broken = engine.submit(PROMPT, mixture, sampling)
        other = engine.submit("mix", mixture, sampling, seed=3)
        broken.sequence.sampler = None  # type: ignore[assignment]
        with pytest.raises(AttributeError):
            list(broken)
        with pytest.raises(AttributeError):
            broken.completion(timeout=10)
        assert other.completion(timeout=60).tokens == expected
        assert engine.restarts == 0


def test_closing_ends_what_is_under_way(tiny: Tiny) -> None:
    engine = Engine.from_config(tiny.config)
    request = engine.submit(PROMPT, engine.mixture(), Sampling(max_new_tokens=200, temperature=0.0))
    next(iter(request))
    engine.close()
    assert request.completion(timeout=5).finish_reason in ("stopped", "end")
    with pytest.raises(RuntimeError, match="closed"):
        engine.generate(PROMPT)


def test_text_goes_on_while_finished_responses_are_scored(tiny_engine: Engine, monkeypatch) -> None:
    score, counts = tiny_engine.reward_set.score, []

    def counted(items, objectives=None):
        counts.append((list(objectives or ()), long.drawn, threading.current_thread().name))
        return score(items, objectives)

    monkeypatch.setattr(tiny_engine.reward_set, "score", counted)
    long = tiny_engine.submit("move the faders", tiny_engine.mixture(), Sampling(max_new_tokens=90), 1, rewards=False)
    short = [
        tiny_engine.submit("mix", tiny_engine.mixture(), Sampling(max_new_tokens=3, temperature=0.0)) for _ in range(6)
    ]
    rewards = [request.completion().rewards for request in short]
    long.cancel()
    objectives, apart = tiny_engine.reward_set.objectives, tiny_engine._scheduler.reward_worker.on_thread
    assert all(list(found) == objectives for found in rewards)
    assert [asked for asked, _, name in counts if name != "mixdesk-engine"] == [apart] * len(short)
    here = [(asked, drawn) for asked, drawn, name in counts if name == "mixdesk-engine"]
    assert [asked for asked, _ in here] == [[name] for _ in short for name in objectives if name not in apart]
    drawn = [count for _, count in here]
    assert drawn == sorted(set(drawn)), "two rewards between two tokens"


def test_a_reward_that_takes_its_time_holds_up_nobody(tiny_engine: Engine, monkeypatch) -> None:
    score, goes_on = tiny_engine.reward_set.score, threading.Event()

    def slow(items, objectives=None):
        if objectives == tiny_engine._scheduler.reward_worker.on_thread:
            assert goes_on.wait(30)
        return score(items, objectives)

    monkeypatch.setattr(tiny_engine.reward_set, "score", slow)
    scored = tiny_engine.submit("mix", tiny_engine.mixture(), Sampling(max_new_tokens=3, temperature=0.0))
    other = tiny_engine.submit("mix", tiny_engine.mixture(), Sampling(max_new_tokens=20), rewards=False)
    assert other.completion(timeout=30).tokens
    assert not scored.done and tiny_engine.busy
    goes_on.set()
    found = scored.completion(timeout=30)
    assert found.rewards == tiny_engine.rewards([(found.prompt, found.text, found.tokens)])[0]


@pytest.mark.skipif(sys.platform != "linux", reason="niceness by thread")
def test_rewards_leave_the_cores_to_the_text(tiny_engine: Engine) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert tiny_engine._scheduler.reward_worker._thread.submit(niceness).result() == max(niceness(), NICE)
    assert tiny_engine._scheduler.run(niceness) == niceness()


def test_a_token_is_there_before_it_is_read(tiny_engine: Engine, monkeypatch) -> None:
    """Who waits for it has it while the models read it, also the last one."""
    read, may_read = ModelRunner.step, threading.Event()
    monkeypatch.setattr(ModelRunner, "step", lambda runner: (may_read.wait(30), read(runner))[1])
    try:
        tokens = iter(tiny_engine.submit("mix", tiny_engine.mixture(), Sampling(max_new_tokens=2, temperature=0.0)))
        first: list[int] = []
        reader = threading.Thread(target=lambda: first.append(next(tokens).id), daemon=True)
        reader.start()
        reader.join(20)
        assert first
    finally:
        may_read.set()
    assert [*first, *(token.id for token in tokens)] == tiny_engine.generate(
        "mix", max_new_tokens=2, temperature=0.0
    ).tokens


@pytest.mark.parametrize("objectives", ["on_thread", "on_worker"])
def test_a_reward_that_fails_is_told_to_who_asked(tiny_engine: Engine, monkeypatch, objectives: str) -> None:
    score = tiny_engine.reward_set.score
    fails = getattr(tiny_engine._scheduler.reward_worker, objectives)

    def broken(items, asked=None):
        if set(fails) & set(asked or ()):
            raise RuntimeError("no memory for rewards")
        return score(items, asked)

    with monkeypatch.context() as patched:
        patched.setattr(tiny_engine.reward_set, "score", broken)
        request = tiny_engine.submit("mix", tiny_engine.mixture(), Sampling(max_new_tokens=3))
        with pytest.raises(RuntimeError, match="no memory for rewards"):
            request.completion(timeout=30)
        with pytest.raises(RuntimeError, match="no memory for rewards"):
            tiny_engine.rewards([("mix", "the faders", None)])
    assert tiny_engine.generate("mix", max_new_tokens=3).rewards
    assert not tiny_engine._scheduler.reward_worker.responses


def test_closing_waits_for_rewards(tiny: Tiny, monkeypatch) -> None:
    engine = Engine.from_config(tiny.config)
    score = engine.reward_set.score

    def slow(items, objectives=None):
        time.sleep(0.3)
        return score(items, objectives)

    monkeypatch.setattr(engine.reward_set, "score", slow)
    requests = [engine.submit(PROMPT, engine.mixture(), Sampling(max_new_tokens=200)) for _ in range(2)]
    for request in requests:
        next(iter(request))
    engine.close()
    assert all(list(r.completion(timeout=0).rewards) == engine.reward_set.objectives for r in requests)
    with pytest.raises(RuntimeError, match="closed"):
        engine.rewards([("mix", "the faders", None)])


def test_panels_read_their_prompt_once(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[object] = []
    read = tiny_engine.policy_set.read
    monkeypatch.setattr(tiny_engine.policy_set, "read", lambda *args: rendered.append(args) or read(*args))
    mixtures = [tiny_engine.mixture({"plain": 1}), tiny_engine.mixture()]
    requests = tiny_engine.submit_all(PROMPT, mixtures, Sampling(max_new_tokens=4), [1, 2])
    assert len(rendered) == 1  # before the rewards read it
    together = [request.completion(timeout=60).tokens for request in requests]
    each = zip(mixtures, (1, 2), strict=True)
    alone = [
        tiny_engine.submit(PROMPT, one, Sampling(max_new_tokens=4), seed).completion().tokens for one, seed in each
    ]
    assert together == alone
