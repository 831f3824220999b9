"""An engine behind HTTP gives what the engine itself gives; and what happens when it cannot be reached."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from engine import Engine, InputError, Sampling
from engine.bank.collection import collect
from engine.inference.batch import Batch
from engine.inference.sequence import Record
from engine.inference.token_events import StepRecord
from engine.messages import TokenPrompt
from engine.remote import EngineError, RemoteEngine
from engine.remote import client as client_module
from engine.remote import responses as responses_module
from engine.remote.routes import EngineRoutes, error_response
from tests.browser.serving import Relay
from tests.conftest import Tiny
from tests.engine.remote.serving import serving

PROMPT = "move the faders"
KEY = "a key of sixteen"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def remote(tiny_engine: Engine) -> Iterator[RemoteEngine]:
    with serving(EngineRoutes(tiny_engine).routes()) as url, RemoteEngine(url) as remote:
        yield remote


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time to do something while a response is written."""
    step = Batch.step
    monkeypatch.setattr(Batch, "step", lambda batch, drawn: (time.sleep(0.03), step(batch, drawn))[1])


def test_it_describes_itself_as_the_engine_does(remote: RemoteEngine, tiny_engine: Engine) -> None:
    assert remote.config.name == tiny_engine.config.name
    assert remote.policy_set.names == tiny_engine.policy_set.names
    assert remote.policy_set.context == tiny_engine.policy_set.context
    assert remote.policy_set.stop_ids == tiny_engine.policy_set.stop_ids
    assert remote.reward_set.objectives == tiny_engine.reward_set.objectives
    assert remote.max_rows == tiny_engine.max_rows
    tokens = [*range(40), *tiny_engine.policy_set.stop_ids]
    assert remote.policy_set.spell(tokens) == tiny_engine.policy_set.spell(tokens)
    # What can be called on an engine can be called on this one: nothing falls through to models that are not here.
    own = {name for kind in Engine.__mro__[:-1] for name in vars(kind) if not name.startswith("_")}
    built_on_others = {"from_config", "mixture", "notes", "stream", "generate", "generate_batch"}
    assert own - built_on_others <= set(vars(RemoteEngine))


@pytest.mark.parametrize("rule", ["geometric", "power", "soup"])
def test_a_response_is_the_same(remote: RemoteEngine, tiny_engine: Engine, rule: str) -> None:
    settings = {"weights": {"plain": 2, "narrow": 1}, "rule": rule, "gain": 1.5, "max_new_tokens": 20, "seed": 3}
    here, there = tiny_engine.generate(PROMPT, **settings), remote.generate(PROMPT, **settings)
    assert there == here and there.trace == here.trace and there.log_probs == here.log_probs
    assert there.rewards == here.rewards and there.rewards


def test_every_token_comes_with_what_is_known_of_it(remote: RemoteEngine, tiny_engine: Engine) -> None:
    mixture = tiny_engine.mixture({"plain": 0.3, "stabilized": 0.7})
    sampling = Sampling(max_new_tokens=12)
    local = list(tiny_engine.submit(PROMPT, mixture, sampling, seed=5, top_logprobs=4))
    others = list(remote.submit(PROMPT, mixture, sampling, seed=5, top_logprobs=4))
    assert [token.text for token in others] == [token.text for token in local]
    for one, other in zip(local, others, strict=True):
        assert replace(one, top_logprobs=None) == replace(other, top_logprobs=None)
        assert one.top_logprobs and other.top_logprobs
        assert one.top_logprobs.ids == other.top_logprobs.ids
        for changed in (mixture, tiny_engine.mixture({"narrow": 1})):
            assert one.top_logprobs.under(changed) == other.top_logprobs.under(changed)
        assert one.top_logprobs.likeliest(3) == other.top_logprobs.likeliest(3)


def test_panels_conversations_and_given_tokens(remote: RemoteEngine, tiny_engine: Engine) -> None:
    mixtures = [tiny_engine.mixture({name: 1}) for name in ("plain", "narrow", "reference")]
    turns = [
        {"role": "user", "content": "the quick brown fox"},
        {"role": "assistant", "content": "jumps"},
        {"role": "user", "content": "over"},
    ]
    for prompt in (turns, TokenPrompt((5, 6, 7))):
        asked = (prompt, mixtures, [Sampling(max_new_tokens=n) for n in (5, 6, 7)], [1, 2, 3])
        local = [request.completion() for request in tiny_engine.submit_all(*asked)]
        assert [request.completion() for request in remote.submit_all(*asked)] == local
    begun = local_tokens = tiny_engine.generate(PROMPT, max_new_tokens=8).tokens[:4]
    requests = [
        engine.submit(PROMPT, mixtures[0], Sampling(max_new_tokens=6), 9, tokens=begun, steered={6: mixtures[1]})
        for engine in (tiny_engine, remote)
    ]
    here, there = (request.completion() for request in requests)
    assert here == there and there.tokens[:4] == local_tokens and there.steered


def test_invalid_input_is_the_engines_own_line(remote: RemoteEngine, tiny_engine: Engine) -> None:
    for call in (
        lambda engine: engine.generate("", max_new_tokens=3),
        lambda engine: engine.generate(PROMPT, max_new_tokens=10**6),
        lambda engine: engine.generate(PROMPT, weights={"nobody": 1}),
        lambda engine: engine.generate(PROMPT, seed=-1),
        lambda engine: engine.submit(PROMPT, engine.mixture(), Sampling(), tokens=[10**9]),
        lambda engine: engine.token_log_probs("", "fox"),
    ):
        said = []
        for engine in (tiny_engine, remote):
            with pytest.raises(InputError) as caught:
                call(engine)
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_scores(remote: RemoteEngine, tiny_engine: Engine) -> None:
    items = [(PROMPT, "the lazy dog", None), (PROMPT, "fox", None)]
    assert remote.rewards(items) == tiny_engine.rewards(items)
    assert remote.token_log_probs(PROMPT, "the lazy dog") == tiny_engine.token_log_probs(PROMPT, "the lazy dog")
    mixture = tiny_engine.mixture({"plain": 1, "narrow": 1})
    ids = tiny_engine.tokenize("the quick brown fox")
    assert remote.tokenize("the quick brown fox") == ids and remote.detokenize(ids) == "the quick brown fox"
    assert remote.mixture_log_probs(ids, mixture, top=3) == tiny_engine.mixture_log_probs(ids, mixture, top=3)


def test_a_bank_is_the_same(remote: RemoteEngine, tiny_engine: Engine) -> None:
    sampling = Sampling(max_new_tokens=6, temperature=1.0)
    here, there = (collect(engine, [PROMPT, "fox"], 5, sampling) for engine in (tiny_engine, remote))
    assert np.array_equal(here.log_ratios, there.log_ratios) and np.array_equal(here.rewards, there.rewards)
    records = [Record({"even": tiny_engine.mixture()}, steps=StepRecord()) for _ in range(2)]
    for engine, record in zip((tiny_engine, remote), records, strict=True):
        engine.submit(PROMPT, tiny_engine.mixture(), sampling, 4, record=record).completion()
    assert records[0].log_probs == records[1].log_probs and records[0].drawn == records[1].drawn
    assert records[0].steps and records[1].steps
    assert records[0].steps.as_dict() == records[1].steps.as_dict()


@pytest.mark.usefixtures("slow")
def test_steering_reaches_the_response(remote: RemoteEngine) -> None:
    stream = remote.stream(PROMPT, weights={"plain": 1}, max_new_tokens=60)
    received = []
    for token in stream:
        received.append(token)
        if len(received) == 4:
            stream.steer({"narrow": 1}, gain=2.0)
    completion = stream.completion()
    last = received[-1].mixture
    assert last.weights["narrow"] == 1 and last.gain == 2 and len(received) == len(completion.tokens)
    assert 3 < min(place for place in completion.steered if place) < len(completion.tokens)


@pytest.mark.usefixtures("slow")
def test_cancelling_and_leaving_free_the_rows(remote: RemoteEngine, tiny_engine: Engine) -> None:
    request = remote.submit(PROMPT, remote.mixture(), Sampling(max_new_tokens=200))
    tokens = iter(request)
    next(tokens)
    request.cancel()
    completion = request.completion(timeout=30)
    assert completion.finish_reason == "stopped" and 0 < len(completion.tokens) < 200
    assert "".join(token.text for token in [*tokens]) in completion.text
    deadline = time.monotonic() + 10
    while tiny_engine.rows and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not tiny_engine.rows


@pytest.mark.usefixtures("slow")
def test_a_stream_that_is_cut_off_continues_where_it_was(tiny_engine: Engine) -> None:
    expected = tiny_engine.generate(PROMPT, seed=2, max_new_tokens=60)
    with serving(EngineRoutes(tiny_engine).routes()) as url:
        relay = Relay(url)
        with RemoteEngine(relay.url) as remote:
            request = remote.submit(PROMPT, remote.mixture(), Sampling(max_new_tokens=60), seed=2)
            received = []
            for token in request:
                received.append(token)
                if len(received) in (5, 20):
                    relay.cut()
                    threading.Timer(0.3, relay.mend).start()
            assert [token.id for token in received] == expected.tokens
            assert request.completion().text == expected.text
        relay.cut()


@pytest.mark.usefixtures("slow")
def test_a_restart_loses_the_response_and_nothing_else(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module.EngineClient, "patience", 5.0)
    with serving(EngineRoutes(tiny_engine).routes()) as url:
        remote = RemoteEngine(url)
        request = remote.submit(PROMPT, remote.mixture(), Sampling(max_new_tokens=200))
        next(iter(request))
    with serving(EngineRoutes(tiny_engine).routes(), int(url.rpartition(":")[2])):
        with pytest.raises(EngineError, match="was restarted, and this response is lost; generate it again"):
            request.completion(timeout=30)
        assert remote.generate(PROMPT, max_new_tokens=3).tokens
    with pytest.raises(EngineError, match=r"cannot be reached \(.*\); start it with python -m engine serve"):
        remote.generate(PROMPT, max_new_tokens=3)
    remote.close()


def test_a_restart_with_other_policies_is_refused(tiny: Tiny, tiny_engine: Engine, monkeypatch) -> None:
    monkeypatch.setattr("engine.remote.engine.WATCH", 0.1)
    other = tiny.write(
        "others.yaml", name="others", policies=[{"name": "x", "objective": "x", "adapter": "narrow"}], rewards=[]
    )
    with serving(EngineRoutes(tiny_engine).routes()) as url:
        remote = RemoteEngine(url)
    with Engine.from_config(other) as engine, serving(EngineRoutes(engine).routes(), int(url.rpartition(":")[2])):
        said, deadline = "", time.monotonic() + 30
        while "other policies" not in said and time.monotonic() < deadline:
            time.sleep(0.1)
            try:
                remote.generate(PROMPT, max_new_tokens=2, weights={"plain": 1})
            except InputError as error:
                said = str(error)
        assert "restarted with other policies, 'others'; restart this desk" in said
    remote.close()


@pytest.mark.usefixtures("slow")
def test_what_no_one_reads_is_cancelled_and_removed(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("UNREAD", 0.5), ("KEPT", 0.5)):
        monkeypatch.setattr(responses_module, name, seconds)
    monkeypatch.setattr("engine.remote.routes.SWEEP", 0.1)
    served = EngineRoutes(tiny_engine)
    with serving(served.routes()) as url, RemoteEngine(url) as remote:
        remote.submit(PROMPT, remote.mixture(), Sampling(max_new_tokens=200))
        time.sleep(0.2)
        assert len(served.responses) == 1
        remote.close()
        deadline = time.monotonic() + 20
        while (len(served.responses) or tiny_engine.rows) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not len(served.responses) and not tiny_engine.rows


def refuse_without_key(request):
    allowed = request.headers.get("authorization") == f"Bearer {KEY}"
    return None if allowed else error_response("no key", 401)


def test_what_is_wrong_is_one_line(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("gpu-box:8000", "ftp://gpu-box", "http://", "http://host:99999", ""):
        with pytest.raises(InputError, match=r"--engine: found .*; give an address such as"):
            RemoteEngine(url)
    with pytest.raises(EngineError, match="cannot be reached"):
        RemoteEngine("http://127.0.0.1:1")
    with (
        serving([Route("/", lambda _: PlainTextResponse("hello"))]) as url,
        pytest.raises(EngineError, match="there is no engine at"),
    ):
        RemoteEngine(url)
    with serving(EngineRoutes(tiny_engine, refuse_without_key).routes()) as url:
        for key in ("", "another"):
            with pytest.raises(EngineError, match="refuses the key; give one of its API keys in MIXDESK_ENGINE_KEY"):
                RemoteEngine(url, key)
        with RemoteEngine(url, KEY) as remote:
            assert remote.generate(PROMPT, max_new_tokens=2).tokens
        monkeypatch.setattr(client_module, "PROTOCOL", 2)
        with pytest.raises(EngineError, match="speaks version 1 of the protocol and the caller 2; install the same"):
            RemoteEngine(url, KEY)


def test_its_files_are_in_the_users_cache(remote: RemoteEngine, tiny_engine: Engine) -> None:
    assert remote.config.file.is_file() and "remote" in remote.config.file.parts
    assert Path(tiny_engine.config.file) != remote.config.file
