"""Exact sampling against policies whose responses are all written out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from engine import Completion, Engine, InputError, Request, Sampling
from tests.engine.conftest import LENGTH, PROMPTS, Exact, Small

PROMPT = PROMPTS[0]
WEIGHTS = {"p0": 0.4, "p1": 0.4, "p2": 0.2}
GAIN = 1.5  # the exact mixture is then farther from what token by token gives


@pytest.fixture(scope="module")
def some(small: Callable[[int, int], Small]) -> Small:
    return small(3, 0)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Particles are resampled at nearly every token."""
    monkeypatch.setattr("engine.inference.smc.LOW_ESS_FRACTION", 0.99)


def submit(engine: Engine, particles: int, seed: int, gain: float = GAIN) -> Request:
    mixture, sampling = engine.mixture(WEIGHTS, gain=gain), Sampling(LENGTH, 1.0, particles=particles)
    return engine.submit(PROMPT, mixture, sampling, seed, trace=False)


def truth(exact: Exact, gain: float = GAIN) -> tuple[dict[str, float], float]:
    """Probabilities of how a response to PROMPT begins under π_λ, and the log of its normaliser."""
    log_w = exact.log_probs[0] @ np.array([1 - gain, *(gain * weight for weight in WEIGHTS.values())])
    normaliser = np.logaddexp.reduce(log_w)
    found: Counter[str] = Counter()
    for text, probability in zip(exact.texts, np.exp(log_w - normaliser), strict=True):
        found[begin(text)] += probability
    return dict(found), float(normaliser)


def begin(text: str) -> str:
    return " ".join(text.split()[:2])


def distance(found: dict[str, float], true: dict[str, float]) -> float:
    """Total variation."""
    return 0.5 * sum(abs(found.get(key, 0.0) - true.get(key, 0.0)) for key in {*found, *true})


def shares(completions: list[Completion]) -> dict[str, float]:
    counts = Counter(begin(completion.text) for completion in completions)
    return {key: count / len(completions) for key, count in counts.items()}


@pytest.mark.usefixtures("often")
def test_particles_come_nearer_by_the_square_root_of_their_number(some: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(some.engine._scheduler.batch, "max_rows", 2048)
    true, _ = truth(some.exact)
    policy_set, distances = some.engine.policy_set, {}
    for count in (32, 512):
        found = []
        for seed in range(24):
            request = submit(some.engine, count, seed=10_000 * seed)
            request.completion()
            assert request.particles
            weighted: Counter[str] = Counter()
            for seq, log_weight in zip(request.particles.sequences, request.particles.log_weights, strict=True):
                weighted[begin(policy_set.text(seq.tokens))] += math.exp(log_weight)
            total = sum(weighted.values())
            found.append(distance({key: value / total for key, value in weighted.items()}, true))
        distances[count] = float(np.mean(found))
    # 16 times as many: a quarter of the distance.
    assert distances[32] / distances[512] == pytest.approx(4, rel=0.3)
    assert distances[512] < 0.09


def test_responses_are_those_of_the_exact_mixture(some: Small) -> None:
    """One response of many particles is drawn from π_λ; token by token it is not."""
    gain, count = 1.75, 800
    true, _ = truth(some.exact, gain)
    exact = [submit(some.engine, 32, 1000 * i, gain) for i in range(count)]
    plain = [submit(some.engine, 1, i, gain) for i in range(count)]
    far = distance(shares([request.completion() for request in plain]), true)
    near = distance(shares([request.completion() for request in exact]), true)
    # What so many draws from the truth itself would be away: half the mean absolute deviations.
    noise = 0.5 * sum(math.sqrt(2 * p * (1 - p) / math.pi / count) for p in true.values())
    assert near < 1.6 * noise
    assert far > 2.5 * noise


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("count", [4, 32])
def test_the_normaliser_is_unbiased(some: Small, count: int) -> None:
    _, true = truth(some.exact)
    requests = [submit(some.engine, count, seed=1000 * i) for i in range(400)]
    found = np.exp([request.completion().log_normaliser for request in requests])
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - math.exp(true)) < 3.5 * error
    assert error < 0.1 * math.exp(true)
    # They were resampled on the way.
    assert sum(bool(request.particles and request.particles._log_mean) for request in requests) > 150


@pytest.mark.usefixtures("often")
def test_a_copy_has_read_what_it_says(some: Small) -> None:
    """The log-probs that a copied row had are those of reading its response anew."""
    engine, copied = some.engine, 0
    for seed in range(12):
        request = engine.submit(PROMPT, engine.mixture(WEIGHTS), Sampling(LENGTH, 1.0, particles=16), seed)
        completion = request.completion()
        assert request.particles
        copied += bool(request.particles._log_mean)
        again = engine.token_log_probs(PROMPT, completion.tokens)
        for name in engine.policy_set.by_name:
            assert [token[name] for token in completion.trace] == pytest.approx(again[name], abs=1e-4)
    assert copied > 6
    assert engine._scheduler.batch.rows == 0


def test_the_seed_says_it_all(some: Small) -> None:
    settings = {"max_new_tokens": LENGTH, "temperature": 1.0, "particles": 8, "gain": GAIN}
    alone = [some.engine.generate(PROMPT, {"p0": 1, "p1": 1}, seed=seed, **settings) for seed in range(4)]
    mixture = some.engine.mixture({"p0": 1, "p1": 1}, gain=GAIN)
    sampling = Sampling(LENGTH, 1.0, particles=8)
    together = [some.engine.submit(PROMPT, mixture, sampling, seed) for seed in range(4)]
    assert [request.completion().tokens for request in together] == [completion.tokens for completion in alone]
    assert len({tuple(completion.tokens) for completion in alone}) > 1
    assert alone[0].as_dict()["sampling"]["particles"] == 8


def test_one_policy_needs_no_correction(some: Small) -> None:
    completion = some.engine.generate(PROMPT, {"p1": 1}, max_new_tokens=LENGTH, temperature=0.7, particles=4)
    assert completion.log_normaliser == pytest.approx(0, abs=1e-4)


def test_the_tokens_come_at_the_end_and_can_be_stopped(some: Small) -> None:
    request = submit(some.engine, 4, seed=3)
    tokens = [token.id for token in request]
    assert tokens == request.completion().tokens
    stopped = [submit(some.engine, 8, seed=i) for i in range(40)]
    for request in stopped:
        request.cancel()
    for request in stopped:
        assert request.completion(timeout=10).finish_reason in ("stopped", "end", "length")
    assert stopped[-1].completion().finish_reason == "stopped"
    assert some.engine._scheduler.batch.rows == some.engine.waiting == 0


def test_one_that_fails_fails_alone(some: Small) -> None:
    broken, reliable = submit(some.engine, 8, seed=1), submit(some.engine, 8, seed=2)
    assert broken.particles
    broken.particles.sequences[3].sampler = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        broken.completion(timeout=10)
    assert reliable.completion(timeout=10).tokens
    assert some.engine._scheduler.batch.rows == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 0.0}, "at temperature 0 they are all alike"),
        ({"rule": "power"}, "the rule is power"),
        ({"particles": 100}, "100 of 4 policies are 400 rows, and the batch holds 320; give 80 or fewer"),
        ({"particles": 0}, "particles: found 0; give a whole number, 1 or more"),
        ({"particles": 2.5}, "particles: found 2.5"),
    ],
)
def test_what_makes_no_sense_is_told(some: Small, settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        some.engine.generate(PROMPT, **{"max_new_tokens": LENGTH, "temperature": 1.0, "particles": 4, **settings})


def test_steering_is_refused(some: Small) -> None:
    request = submit(some.engine, 4, seed=0)
    with pytest.raises(InputError, match="drawn from one mixture"):
        request.steer({"p0": 1})
    assert request.completion().log_normaliser is not None
