"""The openai client and lm-evaluation-harness against a server of our own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import pytest

from engine import Engine, MixedPolicy
from engine.api.api_error import ApiError
from engine.api.calls import Load
from engine.api.keys import ApiKeys
from engine.errors import EngineError
from tests.conftest import Tiny
from tests.engine.api.asgi_call import Leave, call_app
from tests.engine.api.conftest import KEY, drain, make_app, serving_api

MESSAGES: list[Any] = [{"role": "user", "content": "mix the policies"}]
MIXTURE = "plain=0.6,narrow=0.4"


@contextmanager
def connected(url: str, **settings: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, **{"api_key": "any", "max_retries": 0, **settings}) as client:
        yield client


def test_the_sync_client(server_url: str) -> None:
    with connected(server_url) as client:
        settings: Any = {"model": MIXTURE, "messages": MESSAGES, "max_tokens": 8, "seed": 4}
        whole = client.chat.completions.create(**settings)
        chunks = list(client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content and chunks[-1].usage == whole.usage
        completion = client.completions.create(model="plain", prompt=[[70, 71], [72]], logprobs=1, echo=True, seed=1)
        assert [choice.index for choice in completion.choices] == [0, 1]
        pieces = client.completions.create(model="plain", prompt="the quick", stream=True, seed=1, max_tokens=9)
        same = client.completions.create(model="plain", prompt="the quick", seed=1, max_tokens=9)
        assert "".join(piece.choices[0].text for piece in pieces) == same.choices[0].text
        assert client.models.retrieve("plain").owned_by == "tiny"


def test_errors_are_the_clients_own(server_url: str, tiny_engine: Engine) -> None:
    with connected(server_url) as client:
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(model="plain", messages=MESSAGES, temperature=99)
        assert bad.value.param == "temperature" and bad.value.type == "invalid_request_error"
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="gpt-5", messages=MESSAGES)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.UnprocessableEntityError) as unfit:
            own = {"mixdesk": {"particles": 10**6}}
            client.chat.completions.create(model="plain", messages=MESSAGES, extra_body=own)
        assert unfit.value.param == "particles"
    with serving_api(make_app(tiny_engine, ApiKeys([KEY])).routes) as url:
        with connected(url) as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with connected(url, api_key=KEY) as client:
            assert client.models.list().data


def test_a_caller_with_too_much_under_way_waits_and_is_served(tiny_engine: Engine) -> None:
    with serving_api(make_app(tiny_engine, most=3).routes) as url:
        with connected(url) as client:
            streams = [
                client.chat.completions.create(model="plain", messages=MESSAGES, max_tokens=200, n=3, stream=True)
            ]
            next(streams[0])
            with pytest.raises(openai.RateLimitError) as refused:
                client.chat.completions.create(model="plain", messages=MESSAGES, max_tokens=2)
            assert refused.value.code == "rate_limit_exceeded"
            assert int(refused.value.response.headers["retry-after"]) > 0
            streams[0].close()
        with connected(url, max_retries=5) as client:
            assert client.chat.completions.create(model="plain", messages=MESSAGES, max_tokens=2, n=9).choices
    drain(tiny_engine)


def test_the_client_tries_again(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, refusals = Load.counted, [429, 503]

    def refuse(self: Load, caller: str, count: int) -> Any:
        if refusals:
            raise ApiError(refusals.pop(0), "try again", None, {"Retry-After": "1"})
        return counted(self, caller, count)

    monkeypatch.setattr(Load, "counted", refuse)
    with connected(server_url, max_retries=2) as client:
        assert client.chat.completions.create(model="plain", messages=MESSAGES, max_tokens=2).choices
    assert not refusals


def test_an_engine_that_closes_ends_streams_with_an_error(tiny: Tiny) -> None:
    engine = Engine.from_config(tiny.config)
    with serving_api(make_app(engine).routes) as url, connected(url) as client:
        stream = client.chat.completions.create(model="plain", messages=MESSAGES, max_tokens=200, n=4, stream=True)
        next(stream)
        engine.close()
        with pytest.raises(openai.APIError, match="closing"):
            list(stream)
        with pytest.raises(openai.InternalServerError) as unavailable:
            client.chat.completions.create(model="plain", messages=MESSAGES)
        assert unavailable.value.status_code == 503 and unavailable.value.code == "engine_unavailable"


@pytest.mark.parametrize("name", ["check_prompt", "submit_all", "mixture"])
def test_an_engine_elsewhere_that_is_out_of_reach_is_unavailable(
    server_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise EngineError("the engine at http://box does not answer; start it")

    monkeypatch.setattr(Engine, name, fail)
    with connected(server_url) as client, pytest.raises(openai.InternalServerError, match="http://box") as found:
        client.chat.completions.create(model="plain", messages=MESSAGES, max_tokens=2)
    assert found.value.status_code == 503 and found.value.response.headers["retry-after"]


def test_clients_that_leave_take_their_rows_along(server_url: str, tiny_engine: Engine) -> None:
    """Thirty-two clients at once, every second of which leaves in the middle, with and without a stream."""

    async def one(client: openai.AsyncOpenAI, number: int) -> bool:
        stream, leaves = number % 4 < 2, number % 2 == 0
        settings: Any = {"model": MIXTURE, "messages": MESSAGES, "max_tokens": 150, "seed": number, "n": 2}
        if not stream:
            call = client.chat.completions.create(**settings)
            if not leaves:
                return bool((await call).choices)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(call, 0.02 * (1 + number % 3))
            return True
        chunks = await client.chat.completions.create(**settings, stream=True)
        count = 0
        async for _ in chunks:
            count += 1
            if leaves and count > 5:
                await chunks.close()
                break
        return count > 5

    async def run() -> None:
        limits = httpx2.Limits(max_connections=64)
        async with (
            httpx2.AsyncClient(limits=limits, timeout=120) as http,
            openai.AsyncOpenAI(base_url=server_url, api_key="x", http_client=http, max_retries=0) as client,
        ):
            assert all(await asyncio.gather(*(one(client, number) for number in range(32))))

    asyncio.run(run())
    drain(tiny_engine)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_responses(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    requests: list[Any] = []
    submit_all = Engine.submit_all

    def submitted(self: Engine, *arguments: Any, **settings: Any) -> Any:
        requests.extend(submit_all(self, *arguments, **settings))
        return requests

    monkeypatch.setattr(Engine, "submit_all", submitted)
    wanted = {"model": "plain", "prompt": "the", "max_tokens": 240, "n": 3, "seed": 1, "stream": stream}
    leave = Leave(after_messages=8 if stream else None, when=lambda: any(request.drawn > 5 for request in requests))
    asyncio.run(call_app(make_app(tiny_engine), "POST", "/v1/completions", json.dumps(wanted).encode(), leave))
    drain(tiny_engine)
    reasons = {str(request.sequence.finish_reason) for request in requests}
    assert len(requests) == 3 and "stopped" in reasons and "length" not in reasons
    assert all(0 < request.drawn < 240 for request in requests)


def loglikelihoods(model: Any, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    from lm_eval.api.instance import Instance

    instances = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    return model.loglikelihood(instances, disable_tqdm=True)


PAIRS = [
    ("the quick brown", " fox jumps"),
    ("mix the policies", " and move the faders"),
    ("Grüße an", " alle 你好"),
    ("the", " lazy dog"),
]


@pytest.mark.parametrize("backend", ["remote", "huggingface"])
def test_lm_eval_reads_the_log_probs_of_the_mixed_policy(server_url: str, tiny: Tiny, backend: str) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    local = LocalCompletionsAPI(
        base_url=f"{server_url}/completions",
        model=MIXTURE,
        tokenizer_backend=backend,
        tokenizer=str(tiny.base) if backend == "huggingface" else None,
        batch_size=3,
        max_length=256,
    )
    found = loglikelihoods(local, PAIRS)
    policy = MixedPolicy.from_config(tiny.config, weights={"plain": 0.6, "narrow": 0.4})
    expected = loglikelihoods(HFLM(pretrained=policy, tokenizer=policy.tokenizer, batch_size=1, max_length=256), PAIRS)
    for (ours, greedy), (theirs, theirs_greedy) in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4) and greedy == theirs_greedy


def test_lm_eval_generates(server_url: str, tiny: Tiny) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

    settings = {"until": ["q"], "max_gen_toks": 12, "do_sample": False, "temperature": 0.0}

    def generated(model: Any, contexts: list[Any]) -> list[str]:
        instances = [Instance("generate_until", {}, (context, dict(settings)), i) for i, context in enumerate(contexts)]
        return model.generate_until(instances, disable_tqdm=True)

    url = f"{server_url}/completions"
    local = LocalCompletionsAPI(base_url=url, model=MIXTURE, tokenizer_backend="remote", batch_size=2, max_length=256)
    policy = MixedPolicy.from_config(tiny.config, weights={"plain": 0.6, "narrow": 0.4})
    reference = HFLM(pretrained=policy, tokenizer=policy.tokenizer, batch_size=1, max_length=256)
    contexts = [before for before, _ in PAIRS]
    assert generated(local, contexts) == generated(reference, contexts)

    chat = LocalChatCompletion(base_url=f"{server_url}/chat/completions", model=MIXTURE, tokenizer_backend=None)
    rendered = chat.apply_chat_template([{"role": "user", "content": "mix the policies"}])
    with connected(server_url) as client:
        own = client.chat.completions.create(model=MIXTURE, messages=MESSAGES, temperature=0, max_tokens=12, stop=["q"])
    assert generated(chat, [rendered]) == [own.choices[0].message.content]
