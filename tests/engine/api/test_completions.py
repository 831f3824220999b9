"""Completions of raw texts and token ids, with the log-probs of prompts that are echoed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from openai.types import Completion

from engine import Engine, MixedPolicy, Sampling
from engine.messages import TokenPrompt
from tests.conftest import Tiny
from tests.engine.api.conftest import Poster, make_app

MIXTURE = "plain=0.6,narrow=0.4"
TEXTS = ["the quick brown fox", "move the faders 你好 Grüße"]


def asked(**changes: Any) -> dict[str, Any]:
    return {"model": MIXTURE, "prompt": TEXTS[0], "max_tokens": 5, "seed": 3, **changes}


def complete(poster: Poster, **changes: Any) -> dict[str, Any]:
    answer = poster.post("/v1/completions", asked(**changes))
    assert answer.status_code == 200, answer.text
    checked = copy.deepcopy(answer.json())
    for choice in checked["choices"]:
        # The first token of a text has null for its log-prob, which OpenAI's answers have, but not its types.
        for name in ("token_logprobs", "top_logprobs"):
            if choice["logprobs"] and choice["logprobs"][name]:
                choice["logprobs"][name] = [one for one in choice["logprobs"][name] if one is not None]
    found = Completion.model_validate(checked)
    assert not found.model_extra and not any(choice.model_extra for choice in found.choices)
    return answer.json()


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> MixedPolicy:
    return MixedPolicy.from_config(tiny.config, weights={"plain": 0.6, "narrow": 0.4})


def test_texts_and_token_ids_are_continued_as_they_are(poster: Poster, tiny_engine: Engine, model: MixedPolicy) -> None:
    tokens = [model.tokenizer(text).input_ids for text in TEXTS]
    by_text = complete(poster, prompt=TEXTS, n=2, temperature=0.8)
    by_tokens = complete(poster, prompt=tokens, n=2, temperature=0.8)
    assert by_text["choices"] == by_tokens["choices"] and len(by_text["choices"]) == 4
    assert complete(poster, prompt=tokens[0], temperature=0.8)["choices"][0] == by_text["choices"][0]
    mixture, sampling = tiny_engine.mixture({"plain": 0.6, "narrow": 0.4}), Sampling(5, temperature=0.8)
    own = [tiny_engine.submit(TokenPrompt(tuple(ids)), mixture, sampling, seed) for ids in tokens for seed in (3, 4)]
    assert [choice["text"] for choice in by_text["choices"]] == [one.completion().text for one in own]
    assert by_text["usage"]["prompt_tokens"] == len(tokens[0]) + len(tokens[1])
    assert by_text["usage"]["completion_tokens"] == 20


def test_greedy_text_is_that_of_the_mixed_policy(poster: Poster, model: MixedPolicy) -> None:
    inputs = model.tokenizer(TEXTS[0], return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs.input_ids.shape[1] :]
    choice = complete(poster, temperature=0)["choices"][0]
    assert choice["text"] == model.tokenizer.decode(output, skip_special_tokens=True)
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize("as_tokens", [False, True])
@pytest.mark.parametrize("max_tokens", [0, 1, 4])
def test_an_echo_has_the_mixtures_log_probs(
    poster: Poster, model: MixedPolicy, as_tokens: bool, max_tokens: int
) -> None:
    tokens = [model.tokenizer(text).input_ids for text in TEXTS]
    found = complete(
        poster, prompt=tokens if as_tokens else TEXTS, echo=True, logprobs=3, max_tokens=max_tokens, temperature=0
    )
    for text, ids, choice in zip(TEXTS, tokens, found["choices"], strict=True):
        listed = choice["logprobs"]
        assert choice["text"].startswith(text) and len(listed["tokens"]) == len(ids) + max_tokens
        assert listed["token_logprobs"][0] is None and listed["top_logprobs"][0] is None
        generated = (
            model.generate(torch.tensor([ids]), max_new_tokens=max_tokens, do_sample=False)[0].tolist()
            if (max_tokens)
            else ids
        )
        with torch.inference_mode():
            log_probs = model(torch.tensor([generated])).logits[0].double().log_softmax(-1)
        for place in range(1, len(generated)):
            before = log_probs[place - 1]
            expected = before[generated[place]].item()
            assert listed["token_logprobs"][place] == pytest.approx(expected, abs=1e-4)
            top = listed["top_logprobs"][place]
            assert sorted(top.values())[::-1][:3] == pytest.approx(before.topk(3).values.tolist(), abs=1e-4)
            assert top[listed["tokens"][place]] == listed["token_logprobs"][place]
            greedy = max(top.values()) == listed["token_logprobs"][place]
            assert greedy == (before.argmax().item() == generated[place])
        # Every offset is where the token's text begins; a part of a character begins where the character does.
        for piece, offset in zip(listed["tokens"], listed["text_offset"], strict=True):
            if not piece.startswith("bytes:") and not piece.startswith("<|"):
                assert choice["text"][offset:].startswith(piece), (piece, offset)


def test_a_prompt_is_scored_without_drawing(poster: Poster) -> None:
    found = complete(poster, echo=True, logprobs=0, max_tokens=0, n=2)
    assert found["usage"]["completion_tokens"] == 0 and found["choices"][0]["text"] == TEXTS[0]
    assert found["choices"][0]["logprobs"]["top_logprobs"] is None
    assert found["choices"][0]["logprobs"] == found["choices"][1]["logprobs"]
    assert complete(poster, echo=True, max_tokens=0)["choices"][0]["logprobs"] is None


def test_a_stream_says_the_same(poster: Poster) -> None:
    settings = {"prompt": TEXTS, "n": 2, "echo": True, "logprobs": 2}
    whole = complete(poster, **settings)
    answer = poster.post("/v1/completions", asked(stream=True, stream_options={"include_usage": True}, **settings))
    *events, last, _ = answer.text.split("\n\n")
    assert last == "data: [DONE]"
    *chunks, final = [json.loads(event.removeprefix("data: ")) for event in events]
    assert final["usage"] == whole["usage"] and final["choices"] == []
    for choice in whole["choices"]:
        own = [one for chunk in chunks for one in chunk["choices"] if one["index"] == choice["index"]]
        assert "".join(one["text"] for one in own) == choice["text"]
        assert [one["finish_reason"] for one in own if one["finish_reason"]] == [choice["finish_reason"]]
        for name, values in choice["logprobs"].items():
            assert [value for one in own if one["logprobs"] for value in one["logprobs"][name]] == values


@pytest.mark.parametrize(
    ("changes", "status", "param", "words"),
    [
        ({"prompt": {}}, 400, "prompt", "expected a text"),
        ({"prompt": ["a", 1]}, 400, "prompt", "expected a text"),
        ({"prompt": [[1, "a"]]}, 400, "prompt", "expected a text"),
        ({"prompt": [-1]}, 400, "prompt", "expected a text"),
        ({"prompt": [True]}, 400, "prompt", "expected a text"),
        ({"prompt": ["a"] * 257}, 400, "prompt", "256 are the most"),
        ({"prompt": ["a"] * 100, "n": 3}, 400, "n", "256 are the most"),
        ({"prompt": [300]}, 422, None, "300"),
        ({"prompt": [2**31 - 1]}, 422, None, "2147483647"),
        ({"prompt": None}, 422, "prompt", ""),  # its tokenizer has no BOS token
        ({"prompt": ""}, 422, "prompt", ""),
        ({"prompt": []}, 422, "prompt", ""),
        ({"prompt": [7] * 300}, 400, None, "256"),
        ({"max_tokens": 300}, 400, "max_tokens", "256"),
        ({"max_tokens": 0}, 400, "max_tokens", "echo: true"),
        ({"max_tokens": -1}, 400, "max_tokens", "greater than"),
        ({"logprobs": 21}, 400, "logprobs", "20"),
        ({"logprobs": True}, 400, "logprobs", "integer"),
        ({"best_of": 2}, 400, "best_of", "n instead"),
        ({"suffix": "x"}, 400, "suffix", "leave it out"),
        ({"messages": []}, 400, "messages", "no such field"),
    ],
    ids=str,
)
def test_mistakes(poster: Poster, changes: dict[str, Any], status: int, param: str | None, words: str) -> None:
    answer = poster.post("/v1/completions", asked(**changes))
    error = answer.json()["error"]
    assert answer.status_code == status and words in error["message"], error
    assert param is None or error["param"] == param, error


def test_defaults_are_openais(poster: Poster) -> None:
    body = {"model": "plain", "prompt": "the", "best_of": 1, "suffix": None, "seed": 1}
    found = poster.post("/v1/completions", body).json()
    assert found["usage"]["completion_tokens"] <= 16 and found["choices"][0]["logprobs"] is None


def test_the_tokenizers_routes(poster: Poster, model: MixedPolicy) -> None:
    for text in (*TEXTS, "<|end|> x", ""):
        found = poster.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()
        assert found["tokens"] == model.tokenizer(text, add_special_tokens=False).input_ids
        assert found["count"] == len(found["tokens"]) and found["max_model_len"] == 256
        assert poster.post("/detokenize", {"tokens": found["tokens"], "model": "plain"}).json() == {"prompt": text}
    info = poster.get("/tokenizer_info").json()
    assert info["eos_token"] == "<|end|>" and info["bos_token"] is None and info["vocab_size"] == 300
    for path, body in {
        "/tokenize": {"prompt": 1},
        "/detokenize": {"tokens": ["a"]},
    }.items():
        assert poster.post(path, body).status_code == 400
    assert poster.post("/detokenize", {"tokens": [300]}).status_code in (400, 422)
    assert poster.post("/tokenize", {"prompt": "x", "model": "gone"}).status_code == 404


def test_prompted_policies_read_token_ids_where_their_prompt_fits(tiny: Tiny) -> None:
    policies = [
        {"name": "plain", "objective": "plain", "adapter": "plain"},
        {"name": "terse", "objective": "terse", "system_prompt": "be brief", "prefix": "Q: "},
    ]
    with Engine.from_config(tiny.write("prompted-api.yaml", policies=policies, rewards=[])) as engine:
        poster = Poster(make_app(engine))
        body = {"model": "terse", "prompt": "the quick", "max_tokens": 3, "seed": 1, "temperature": 0}
        refused = poster.post("/v1/completions", body)
        assert refused.status_code == 422 and refused.json()["error"]["param"] == "prompt"
        scored = poster.post("/v1/completions", {**body, "model": "plain=1,terse=1", "echo": True, "logprobs": 1})
        assert scored.status_code == 422
        # A mixture without it is not hindered.
        assert poster.post("/v1/completions", {**body, "model": "plain"}).status_code == 200
        chat = engine.policy_set.tokenizer.apply_chat_template(
            [{"role": "user", "content": "mix"}], add_generation_prompt=True, return_dict=False
        )
        drawn = poster.post("/v1/completions", {**body, "prompt": chat}).json()["choices"][0]["text"]
        assert drawn == engine.generate("mix", {"terse": 1}, max_new_tokens=3, temperature=0.0).text
