"""Chat completions as the openai client reads them."""

from __future__ import annotations

from typing import Any

import openai
import pytest
import torch
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from engine import Engine, MixedPolicy, Sampling
from engine.config import REFERENCE
from tests.conftest import Tiny
from tests.engine.api.conftest import Poster

QUESTION = "mix the policies"
MIXTURE = "plain=0.6,narrow=0.4"


def asked(**changes: Any) -> dict[str, Any]:
    body = {"model": MIXTURE, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 6, "seed": 7}
    return {**body, **changes}


def complete(poster: Poster, **changes: Any) -> ChatCompletion:
    answer = poster.post("/v1/chat/completions", asked(**changes))
    assert answer.status_code == 200, answer.text
    found = ChatCompletion.model_validate(answer.json())
    assert not found.model_extra and not any(choice.model_extra for choice in found.choices)
    return found


def stream(poster: Poster, **changes: Any) -> list[ChatCompletionChunk]:
    answer = poster.post("/v1/chat/completions", asked(stream=True, **changes))
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    *events, last, rest = answer.text.split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    chunks = [ChatCompletionChunk.model_validate_json(event.removeprefix("data: ")) for event in events]
    assert not any(chunk.model_extra for chunk in chunks) and len({chunk.id for chunk in chunks}) == 1
    return chunks


def test_the_text_is_the_engines_own(poster: Poster, tiny_engine: Engine) -> None:
    found = complete(poster, temperature=0.9, top_p=0.8, n=2)
    mixture = tiny_engine.mixture({"plain": 0.6, "narrow": 0.4})
    sampling = Sampling(max_new_tokens=6, temperature=0.9, top_p=0.8)
    own = [tiny_engine.submit(QUESTION, mixture, sampling, seed).completion() for seed in (7, 8)]
    assert [choice.message.content for choice in found.choices] == [one.text for one in own]
    assert [choice.finish_reason for choice in found.choices] == ["length", "length"]
    assert [choice.index for choice in found.choices] == [0, 1]
    assert found.model == MIXTURE and found.object == "chat.completion"
    assert found.usage and found.usage.completion_tokens == 12
    assert found.usage.prompt_tokens == len(tiny_engine.check_prompt(QUESTION, 1)[REFERENCE])
    assert found.usage.total_tokens == found.usage.prompt_tokens + 12


def test_a_conversation_and_what_clients_send_back_of_it(poster: Poster, tiny_engine: Engine) -> None:
    first = complete(poster, temperature=0)
    turns: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "mix the "}, {"type": "text", "text": "policies"}]},
        first.choices[0].message.model_dump(),
        {"role": "user", "content": "move", "type": "text", "name": None},
    ]
    found = complete(poster, messages=turns, temperature=0)
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "move"},
    ]
    own = tiny_engine.generate(messages, {"plain": 0.6, "narrow": 0.4}, max_new_tokens=6, temperature=0.0)
    assert found.choices[0].message.content == own.text


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_is_read_first(poster: Poster, tiny_engine: Engine, role: str) -> None:
    user = {"role": "user", "content": QUESTION}
    found = complete(poster, messages=[{"role": role, "content": "move"}, user], temperature=0)
    messages = [{"role": "system", "content": "move"}, user]
    own = tiny_engine.generate(messages, {"plain": 0.6, "narrow": 0.4}, max_new_tokens=6, temperature=0.0)
    assert found.choices[0].message.content == own.text != complete(poster, temperature=0).choices[0].message.content


def test_stop_strings_and_biases(poster: Poster, tiny_engine: Engine) -> None:
    settings: dict[str, Any] = {"temperature": 0, "max_tokens": 20}
    whole = complete(poster, **settings).choices[0].message.content
    assert whole
    stop = whole[5:8]  # over the borders of tokens, wherever they are
    found = complete(poster, stop=["never", stop], logprobs=True, **settings)
    assert found.choices[0].message.content == whole[: whole.index(stop)]
    assert found.choices[0].finish_reason == "stop"
    chunks = [chunk.choices[0] for chunk in stream(poster, stop=stop, **settings)]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason == "stop"
    (only,) = tiny_engine.tokenize("q")
    biased = complete(poster, logit_bias={str(only): 100}, logprobs=True, top_logprobs=1, **settings)
    assert biased.choices[0].message.content == "q" * 20
    assert biased.choices[0].logprobs and biased.choices[0].logprobs.content
    assert biased.choices[0].logprobs.content[0].logprob < -0.5, "the mixture's, before the bias"
    first = tiny_engine.tokenize(whole[0])[0]
    banned = complete(poster, logit_bias={str(first): -100}, **settings).choices[0].message.content
    assert banned and not banned.startswith(whole[0])


@pytest.mark.parametrize(
    "mixdesk", [{}, {"gain": 1.7}, {"rule": "power", "exponent": -2, "gain": 0.5}, {"rule": "soup"}], ids=str
)
def test_log_probs_are_the_mixtures_before_temperature_and_min_p(
    poster: Poster, tiny: Tiny, mixdesk: dict[str, Any]
) -> None:
    settings = {"temperature": 0.5, "mixdesk": {**mixdesk, "min_p": 0.01, "top_k": 50}}
    found = complete(poster, logprobs=True, top_logprobs=5, **settings).choices[0]
    assert found.logprobs and found.logprobs.content
    model = MixedPolicy.from_config(tiny.config, weights={"plain": 0.6, "narrow": 0.4}, **mixdesk)
    tokenizer = model.tokenizer
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    names = {bytes(entry.bytes or []): entry for entry in found.logprobs.content}
    assert len(found.logprobs.content) == 6 and names
    for entry in found.logprobs.content:
        with torch.inference_mode():
            log_probs = model(ids).logits[0, -1].double().log_softmax(-1)
        best = log_probs.topk(5)
        assert [one.logprob for one in entry.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
        tokens = [bytes(one.bytes or []) for one in entry.top_logprobs]
        assert tokens == [byte_string(tokenizer, token) for token in best.indices.tolist()]
        token = next(i for i in range(300) if byte_string(tokenizer, i) == bytes(entry.bytes or []))
        assert entry.logprob == pytest.approx(log_probs[token].item(), abs=1e-4)
        ids = torch.cat([ids, torch.tensor([[token]])], 1)


def byte_string(tokenizer: Any, token: int) -> bytes:
    """The bytes of a token, by transformers' own table."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    if token in tokenizer.added_tokens_decoder:
        return tokenizer.added_tokens_decoder[token].content.encode()
    back = {character: byte for byte, character in bytes_to_unicode().items()}
    return bytes(back[character] for character in tokenizer.convert_ids_to_tokens(token))


def test_a_stream_says_the_same(poster: Poster) -> None:
    settings = {"n": 3, "logprobs": True, "top_logprobs": 2, "max_tokens": 12}
    whole = complete(poster, **settings)
    *chunks, last = stream(poster, stream_options={"include_usage": True}, **settings)
    assert last.choices == [] and last.usage == whole.usage and not any(chunk.usage for chunk in chunks)
    for choice in whole.choices:
        own = [one for chunk in chunks for one in chunk.choices if one.index == choice.index]
        assert own[0].delta.role == "assistant"
        assert "".join(one.delta.content or "" for one in own) == choice.message.content
        assert [one.finish_reason for one in own if one.finish_reason] == [choice.finish_reason]
        entries = [entry for one in own if one.logprobs for entry in one.logprobs.content or []]
        assert choice.logprobs and entries == choice.logprobs.content
    assert stream(poster)[-1].choices[0].finish_reason == "length"


def test_particles_and_settings_of_mixdesks_own(poster: Poster, tiny_engine: Engine) -> None:
    own = {"weights": {"stabilized": 1, "reference": 1}, "particles": 4, "repetition_penalty": 1.3}
    found = complete(poster, model="narrow", mixdesk=own, temperature=0.8)
    expected = tiny_engine.generate(
        QUESTION,
        {"stabilized": 0.5, "reference": 0.5},
        max_new_tokens=6,
        temperature=0.8,
        particles=4,
        repetition_penalty=1.3,
        seed=7,
    )
    assert found.choices[0].message.content == expected.text


def test_without_a_seed_answers_differ_and_without_a_length_the_context_is_the_end(poster: Poster) -> None:
    texts = {complete(poster, seed=None, max_tokens=20).choices[0].message.content for _ in range(3)}
    assert len(texts) == 3
    long = complete(poster, max_tokens=None, temperature=0.01)
    assert long.usage and (long.choices[0].finish_reason == "stop" or long.usage.total_tokens == 256)
    negative = complete(poster, seed=-1), complete(poster, seed=2**63 - 1)
    assert negative[0].choices == negative[1].choices


@pytest.mark.parametrize(
    ("changes", "status", "param", "code", "words"),
    [
        ({"model": "gone"}, 404, "model", "model_not_found", "there are reference, plain"),
        ({"model": None}, 400, "model", None, "missing"),
        ({"messages": []}, 400, "messages", None, "one at least"),
        ({"messages": "hello"}, 400, "messages", None, "a list of messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "messages", None, "end with one of the user's"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role", None, "'tool'"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0].content", None, "expected a text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            *(400, "messages[0].content", None, "parts of the type text"),
        ),
        ({"messages": [{"role": "user", "content": " "}]}, 400, None, None, "it is empty"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, None, None, "expected 'user'"),
        ({"messages": [{"role": "user", "content": "x", "name": "me"}]}, 400, "messages[0].name", None, "leave it out"),
        ({"temperature": "hot"}, 400, "temperature", None, "found 'hot', expected a valid number"),
        ({"temperature": 11}, 400, "temperature", None, "from 0"),
        ({"temperature": True}, 400, "temperature", None, "True"),
        ({"top_p": 0}, 400, "top_p", None, "above 0"),
        ({"n": 0}, 400, "n", None, "greater than or equal to 1"),
        ({"n": 10**30}, 400, "n", None, "less than or equal to"),
        ({"max_tokens": 0}, 400, "max_tokens", None, "greater than"),
        ({"max_tokens": 5000}, 400, "max_tokens", "context_length_exceeded", "256"),
        ({"messages": [{"role": "user", "content": "fox " * 300}]}, 400, None, "context_length_exceeded", "256"),
        ({"max_completion_tokens": 3}, 400, "max_tokens", None, "one of the two"),
        ({"top_logprobs": 2}, 400, "top_logprobs", None, "logprobs: true"),
        ({"top_logprobs": 21, "logprobs": True}, 400, "top_logprobs", None, "20"),
        ({"stream_options": {}}, 400, "stream_options", None, "stream: true"),
        ({"stream_options": {"more": 1}, "stream": True}, 400, "stream_options.more", None, "no such field"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty", None, "repetition_penalty"),
        ({"tools": [{"type": "function"}]}, 400, "tools", None, "found a list"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format", None, "an object"),
        ({"tempreature": 1}, 400, "tempreature", None, "there is no such field"),
        ({"mixdesk": {"wieghts": {}}}, 400, "mixdesk.wieghts", None, "weights, rule"),
        ({"mixdesk": {"weights": {"gone": 1}}}, 400, "mixdesk.weights", None, "no policy is called"),
        ({"mixdesk": {"rule": "best"}}, 400, "mixdesk.rule", None, "no rule is called"),
        ({"mixdesk": {"gain": 99}}, 400, "mixdesk.gain", None, "from 0"),
        ({"mixdesk": {"min_p": 2}}, 400, "mixdesk.min_p", None, "from 0"),
        ({"mixdesk": {"particles": 4, "rule": "power"}}, 422, "particles", "not_supported_here", "only geometric"),
        ({"mixdesk": {"particles": 10**6}}, 422, "particles", "not_supported_here", "rows"),
        ({"stop": ""}, 400, "stop", None, "not empty"),
        ({"stop": ["a"] * 3 + [1]}, 400, "stop", None, "texts"),
        ({"stop": [str(i) for i in range(17)]}, 400, "stop", None, "16"),
        ({"logit_bias": {"x": 1}}, 400, "logit_bias", None, "token id"),
        ({"logit_bias": {"300": 1}}, 400, "logit_bias", None, "300"),
        ({"logit_bias": {"5": 101}}, 400, "logit_bias", None, "-100 to 100"),
        ({"seed": 1.5}, 400, "seed", None, "integer"),
    ],
    ids=str,
)
def test_mistakes_get_one_line_that_says_how_to_mend_them(
    poster: Poster, changes: dict[str, Any], status: int, param: str | None, code: str | None, words: str
) -> None:
    answer = poster.post("/v1/chat/completions", asked(**changes))
    error = answer.json()["error"]
    assert answer.status_code == status and words in error["message"], error
    assert "\n" not in error["message"] and len(error["message"]) < 400
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code and (param is None or error["param"] == param), error


def test_fields_that_change_nothing_are_taken(poster: Poster) -> None:
    plain = complete(poster)
    neutral = {
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "user": "me",
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "store": False,
        "metadata": None,
        "parallel_tool_calls": True,
        "logit_bias": {},
        "stop": None,
        "service_tier": "auto",
        "mixdesk": {},
        "logprobs": False,
    }
    assert complete(poster, **neutral).choices == plain.choices


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"model": NaN}', "NaN"),
        (b'{"model": "\\ud800"}', "half a character"),
        (b'{"model": "\xff"}', "not JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
    ids=["empty", "open", "list", "deep", "nan", "surrogate", "bytes", "digits"],
)
def test_bodies_that_are_no_request(poster: Poster, content: bytes, words: str) -> None:
    answer = poster.post("/v1/chat/completions", content=content)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


def test_addresses_and_methods_that_there_are_not(poster: Poster) -> None:
    assert poster.get("/v1/embeddings").status_code == 404
    refused = poster.get("/v1/chat/completions")
    assert refused.status_code == 405 and refused.headers["allow"] == "POST"
    assert refused.headers["x-request-id"].startswith("req_")
    large = poster.post("/v1/chat/completions", content=b" " * 9_000_000)
    assert large.status_code == 413 and "larger" in large.json()["error"]["message"]


def test_the_async_client_lists_models_and_streams(with_client) -> None:
    async def use(client: openai.AsyncOpenAI) -> None:
        models = [model.id async for model in client.models.list()]
        assert models == ["reference", "plain", "stabilized", "narrow"]
        described = await client.models.retrieve(MIXTURE)
        assert described.id == MIXTURE and described.model_extra["mixdesk"]["weights"]["plain"] == 0.6
        whole = await client.chat.completions.create(**asked(), extra_body={"mixdesk": {"gain": 1.2}})
        chunks = await client.chat.completions.create(**asked(), stream=True, extra_body={"mixdesk": {"gain": 1.2}})
        texts = [chunk.choices[0].delta.content or "" async for chunk in chunks]
        assert "".join(texts) == whole.choices[0].message.content
        assert whole._request_id and whole._request_id.startswith("req_")

    with_client(use)
