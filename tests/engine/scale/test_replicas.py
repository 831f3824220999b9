"""Two replicas of the bundled policies on Ray: the same tokens, steering, and one that is killed. Needs Ray."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("ray")

from engine import Engine, InputError, Sampling
from engine.config import DEMO
from engine.remote import EngineError
from engine.scale.cluster import Cluster
from engine.scale.engine import ReplicaClient, ScaledEngine
from engine.scale.options import Replicas
from tests.conftest import Tiny

PROMPT = "How do I boil an egg?"


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScaledEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with Cluster([DEMO], Replicas.read("2")) as cluster, ScaledEngine(cluster, DEMO) as scaled:
            yield scaled


def processes(scaled: ScaledEngine) -> dict[str, int]:
    """Return {address: process} of the replicas that answer."""
    found = {}
    for url, client in scaled.clients.items():
        try:
            found[url] = client.get("/status", timeout=5).json()["process"]
        except EngineError:
            continue
    return found


def test_tokens_do_not_depend_on_the_replica(scaled: ScaledEngine) -> None:
    sampling, mixture = Sampling(max_new_tokens=12), scaled.mixture({"helpful": 2, "concise": 1})
    with Engine.from_config(DEMO) as engine:
        requests = [engine.submit(PROMPT, mixture, sampling, seed) for seed in range(64)]
        expected = [request.completion() for request in requests]

    def client(number: int) -> list[list[int]]:
        seeds = range(4 * number, 4 * number + 4)
        own = [scaled.submit(PROMPT, mixture, sampling, seed, client=f"client {number}") for seed in seeds]
        assert [[token.id for token in request] for request in own] == [r.completion().tokens for r in own]
        return [request.completion() for request in own]

    with ThreadPoolExecutor(16) as pool:
        found = [completion for part in pool.map(client, range(16)) for completion in part]
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    assert [one.rewards for one in found] == [pytest.approx(one.rewards, abs=1e-4) for one in expected]
    assert len(set(processes(scaled).values())) == 2, "one replica did it all"


def test_steering_reaches_the_response(scaled: ScaledEngine) -> None:
    requests = [scaled.submit(PROMPT, scaled.mixture({"helpful": 1}), Sampling(200, 2.0), seed) for seed in range(6)]
    for number, request in enumerate(requests):
        if number % 2:
            request.steer({"humorous": 1}, gain=1.5)
    for number, completion in enumerate([request.completion() for request in requests]):
        assert completion.mixture.weights["humorous"] == number % 2
        assert completion.mixture.gain == (1.5 if number % 2 else 1)


def test_a_replica_that_is_killed_costs_its_own_responses_and_comes_back(scaled: ScaledEngine) -> None:
    before = processes(scaled)
    requests = [scaled.submit(PROMPT, scaled.mixture(), Sampling(400, 2.0), seed) for seed in range(16)]
    for request in requests:
        next(iter(request))
    url, process = next(iter(before.items()))
    os.kill(process, signal.SIGKILL)
    failed = 0
    for request in requests:
        try:
            assert request.completion(timeout=120).tokens
        except EngineError as error:
            assert "replica that wrote this has died, and is being replaced; generate it again" in str(error)
            failed += 1
    assert 0 < failed < len(requests)
    assert scaled.generate(PROMPT, max_new_tokens=3).tokens
    deadline = time.monotonic() + 120
    while len(processes(scaled)) < 2 and time.monotonic() < deadline:
        assert scaled.generate(PROMPT, max_new_tokens=3).tokens
        time.sleep(0.5)
    after = processes(scaled)
    assert len(after) == 2 and url not in after


def test_configurations_take_turns_on_a_replica(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    policies = [{"name": "only", "objective": "only", "adapter": "plain"}]
    configs = [tiny.config, tiny.write("second.yaml", name="second", policies=policies, rewards=[])]
    with Cluster(configs, Replicas.read("1", loaded=1)) as cluster, ExitStack() as opened:
        first, second = (opened.enter_context(ScaledEngine(cluster, config)) for config in configs)
        # The second's loading drops the first, whose response is written to its end all the same.
        long = first.submit("mix", first.mixture({"plain": 1}), Sampling(200, 2.0), seed=1)
        next(iter(long))
        *_, client = first.clients.values()
        short = second.generate("mix", {"only": 1}, max_new_tokens=5, seed=3)
        assert long.completion(timeout=60).tokens
        assert short.tokens == first.generate("mix", {"plain": 1}, max_new_tokens=5, seed=3).tokens
        deadline = time.monotonic() + 30
        caller = ReplicaClient(client.url, cluster.key)
        with pytest.raises(EngineError, match="no longer holds this configuration"):
            while time.monotonic() < deadline:
                caller.get("/status", timeout=5)
                time.sleep(0.2)
        caller.close()


def test_a_configuration_that_cannot_be_loaded_is_one_line(tiny: Tiny) -> None:
    broken = tiny.write("broken.yaml", name="broken", base="nowhere")
    with Cluster([tiny.config, broken], Replicas.read("1", loaded=1)) as cluster:
        with pytest.raises(InputError, match="nowhere"):
            ScaledEngine(cluster, broken)
        with ScaledEngine(cluster, tiny.config) as engine:
            assert engine.generate("mix", max_new_tokens=2).tokens
