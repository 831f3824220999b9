"""Thousands of requests to OpenAI's protocol, valid and broken in every mixture, by hypothesis."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from starlette.types import ASGIApp

from engine import Engine
from tests.engine.api.asgi_call import Answer, Leave, call_app
from tests.engine.api.conftest import drain, make_app

STATUSES = {200, 400, 404, 422}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PROBE = {"model": "plain", "prompt": "the quick brown", "max_tokens": 8, "temperature": 0}

words = st.sampled_from(["mix the policies", "the quick", "你好", "<|end|><|user|>", "é" * 50, "lazy dog", "a", "\n."])
broken = st.sampled_from([" ", "", "fox " * 400, "\ud800"])
texts = st.one_of(words, words, words, words, st.text(min_size=1, max_size=30), broken)
numbers = st.one_of(
    st.integers(-3, 300), st.floats(allow_nan=True), st.sampled_from([10**400, -(2**63), 2**63, 1e308, 0.0, -0.0, 1e-9])
)
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


def mostly(valid: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A valid value, or, once in a while, anything at all."""
    return st.integers(0, 25).flatmap(lambda turn: junk if turn == 17 else valid)


policies = st.sampled_from(["plain", "narrow", "stabilized", "reference"])
weights = st.dictionaries(policies, st.one_of(*[st.floats(0, 3)] * 4, numbers), max_size=4)
models = st.one_of(
    *[policies] * 6,
    st.sampled_from(
        ["plain=0.6,narrow=0.4", "tiny/plain", "plain=1,rule=soup,gain=2", "plain=", "=", "a=b=c", "plain=1e999"]
    ),
    weights.map(lambda found: ",".join(f"{name}={weight}" for name, weight in found.items())),
)
message = st.fixed_dictionaries(
    {"role": mostly(st.sampled_from(["user", "assistant", "system", "developer", "tool"]))},
    optional={
        "content": mostly(st.one_of(texts, st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts})))),
        "name": st.one_of(st.none(), junk),
        "refusal": st.none(),
        "tool_calls": junk,
    },
)
turns = st.one_of(
    texts.map(lambda text: [{"role": "user", "content": text}]),
    st.tuples(texts, texts, texts).map(
        lambda said: [
            {"role": role, "content": text}
            for role, text in zip(["system", "user", "assistant", "user"], ["be brief", *said], strict=True)
        ]
    ),
    texts.map(lambda text: [{"role": "user", "content": [{"type": "text", "text": text}], "name": None}]),
    texts.map(lambda text: [{"role": "user", "content": text}]),
    st.lists(message, max_size=4),
)
ids = st.one_of(
    *[st.lists(st.integers(0, 299), min_size=1, max_size=12)] * 5, st.lists(st.integers(-2, 400), max_size=3)
)
mixdesk = st.fixed_dictionaries(
    {},
    optional={
        "weights": mostly(weights),
        "rule": mostly(st.sampled_from(["geometric", "power", "soup", "best"])),
        "gain": mostly(st.floats(0, 3)),
        "exponent": mostly(st.floats(-3, 3)),
        "particles": mostly(st.integers(1, 4)),
        "top_k": mostly(st.integers(0, 400)),
        "min_p": mostly(st.floats(0, 1)),
        "repetition_penalty": mostly(st.floats(0.1, 3)),
        "more": st.none(),
    },
)
drawing = {
    "temperature": mostly(st.floats(0, 2)),
    "top_p": mostly(st.floats(0, 1)),
    "n": mostly(st.integers(1, 3)),
    "seed": mostly(st.integers(-(2**63), 2**64)),
    "stop": mostly(st.one_of(words, st.lists(texts, max_size=5))),
    "logit_bias": mostly(st.dictionaries(st.integers(0, 299).map(str), st.integers(-100, 100), max_size=3)),
    "stream": mostly(st.booleans()),
    "stream_options": mostly(st.fixed_dictionaries({}, optional={"include_usage": st.booleans(), "x": junk})),
    "mixdesk": mostly(mixdesk),
    "frequency_penalty": st.sampled_from([0, 0.0, None, 1]),
    "user": texts,
    "unknown": st.one_of(st.none(), junk),
}


def rarely(fields: dict[str, st.SearchStrategy[Any]], names: list[str]) -> st.SearchStrategy[Any]:
    """Some of the fields: most requests have few, so that many are valid."""
    return st.lists(st.sampled_from(names), max_size=3, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: fields[name] for name in chosen})
    )


chat_fields: dict[str, st.SearchStrategy[Any]] = {
    **drawing,
    "logprobs": mostly(st.booleans()),
    "top_logprobs": mostly(st.integers(0, 20)),
    "max_completion_tokens": mostly(st.integers(1, 5)),
    "tools": st.one_of(st.just([]), junk),
    "response_format": st.sampled_from([{"type": "text"}, None, {"type": "json_object"}]),
}
completion_fields: dict[str, st.SearchStrategy[Any]] = {
    **drawing,
    "logprobs": mostly(st.integers(0, 20)),
    "echo": mostly(st.booleans()),
    "best_of": mostly(st.integers(1, 3)),
    "suffix": st.sampled_from([None, "", "x"]),
}
chats = st.tuples(
    st.fixed_dictionaries(
        {"model": mostly(models), "messages": mostly(turns), "max_tokens": mostly(st.integers(1, 5))}
    ),
    rarely(chat_fields, list(chat_fields)),
).map(lambda parts: (CHAT, {**parts[0], **parts[1]}))
completions = st.tuples(
    st.fixed_dictionaries(
        {
            "model": mostly(models),
            "prompt": mostly(st.one_of(texts, ids, st.lists(texts, max_size=3), st.lists(ids, max_size=3))),
            "max_tokens": mostly(st.integers(0, 5)),
        }
    ),
    rarely(completion_fields, list(completion_fields)),
).map(lambda parts: (COMPLETIONS, {**parts[0], **parts[1]}))
others = st.one_of(
    st.tuples(
        st.just("/tokenize"), st.fixed_dictionaries({"prompt": mostly(texts)}, optional={"model": mostly(models)})
    ),
    st.tuples(st.just("/detokenize"), st.fixed_dictionaries({"tokens": mostly(ids)}, optional={"x": junk})),
    st.tuples(st.sampled_from([CHAT, COMPLETIONS, "/tokenize", "/detokenize"]), junk),
)
requests = st.one_of(chats, chats, completions, completions, others)


@dataclass
class Report:
    """What came of the requests so far."""

    statuses: Counter[int] = field(default_factory=Counter)
    paths: Counter[tuple[str, int]] = field(default_factory=Counter)
    left: int = 0


def encoded(body: Any, cut: int) -> bytes:
    """A body as JSON, which may have NaN and half characters; once in a while cut off."""
    raw = json.dumps(body).encode()
    return raw[: len(raw) * cut // 30] if 10 < cut < 30 else raw


def check_answer(path: str, answer: Answer) -> None:
    """Raise AssertionError unless an answer is one of the protocol's."""
    assert answer.status in STATUSES, (answer.status, answer.body[:500])
    if answer.status != 200:
        error = json.loads(answer.body)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"] and "\n" not in error["message"]
        return
    if answer.headers["content-type"].startswith("text/event-stream"):
        *events, last, _ = answer.body.decode().split("\n\n")
        assert last == "data: [DONE]", last
        for event in events:
            chunk = json.loads(event.removeprefix("data: "))
            assert "error" not in chunk, chunk
            if path == CHAT:
                ChatCompletionChunk.model_validate(chunk)
        return
    found = json.loads(answer.body, parse_constant=lambda name: 1 / 0)  # JSON has no infinity
    if path == CHAT:
        ChatCompletion.model_validate(found)
    elif path == COMPLETIONS:
        for choice in found["choices"]:
            choice["logprobs"] = None  # their first entry is null, which the types do not know
        Completion.model_validate(found)


def throw(engine: Engine, count: int, report: Report) -> None:
    """Send so many requests to an engine, and check that it is as it was afterwards. Raises AssertionError."""
    app: ASGIApp = make_app(engine)
    restarts = engine.restarts

    async def probe() -> Any:
        answer = await call_app(app, "POST", COMPLETIONS, json.dumps(PROBE).encode())
        return json.loads(answer.body)["choices"]

    before = asyncio.run(probe())

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests, st.integers(0, 900), st.one_of(st.none(), st.none(), st.integers(0, 12)))
    def send(request: tuple[str, Any], cut: int, messages: int | None) -> None:
        path, body = request
        answer = asyncio.run(call_app(app, "POST", path, encoded(body, cut), Leave(after_messages=messages)))
        report.statuses[answer.status] += 1
        report.paths[path, answer.status] += 1
        if answer.left:
            report.left += 1
            assert answer.status != 500
        else:
            check_answer(path, answer)

    send()
    drain(engine)
    assert engine.restarts == restarts, "the worker was lost"
    assert asyncio.run(probe()) == before, "the engine answers differently"
