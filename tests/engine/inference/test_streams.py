"""What is streamed is the final text, however a response ends, for byte-level and byte-fallback tokenizers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine import Engine, Sampling
from engine.inference.detokenizer import Detokenizer
from engine.inference.request import Request
from engine.inference.sampler import Sampler
from engine.inference.sequence import Sequence
from engine.models.chat_template import Chat
from engine.rewards.missing import Rewards
from tests.conftest import CHAT, Tiny, make_tokenizer

TEXTS = {
    "emoji": "Hi 👩‍👩‍👧‍👦 and 🇩🇪!",
    "cjk": "你好，世界。こんにちは 안녕",
    "combining": "e\u0301 a\u0308\u0323 \u0928\u0940",
    "right to left": "שלום עולם مرحبا \u202babc\u202c",
    "replacement": "a \ufffd b \ufffd",
}


def byte_level(folder: Path) -> PreTrainedTokenizerFast:
    return make_tokenizer(folder)


def byte_fallback(folder: Path) -> PreTrainedTokenizerFast:
    """As Llama 2 and Gemma have it: what has no token of its own is written in bytes, <0xE4> and so on."""
    specials = ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    words = ["▁", "▁a", "b", "n", "d", "H", "i", "▁H", "▁b", "!", "好"]
    names = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary = {name: number for number, name in enumerate(names)}
    model = models.BPE(vocabulary, [], byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(specials)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = CHAT
    fast.save_pretrained(folder)
    return fast


KINDS = {"byte level": byte_level, "byte fallback": byte_fallback}


def random_engine(kind: str, tiny: Tiny, base: Path) -> Engine:
    """A random model, which writes bytes that are no text as often as not."""
    tokenizer = KINDS[kind](base)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.02, eos_token_id=4, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(base)
    policies = [{"name": "told", "objective": "told", "system_prompt": "mix"}]
    return Engine.from_config(tiny.write("streams.yaml", base=str(base), policies=policies, rewards=[]))


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with random_engine(request.param, tiny, tmp_path_factory.mktemp("streams") / "base") as engine:
        yield engine


def handed(engine: Engine, tokens: list[int], stop_at: int | None = None) -> tuple[str, str]:
    """(streamed text, final text) of a response with these tokens, handed over one by one as the worker does; it ends
    after stop_at of them."""
    sampling = Sampling()
    sequence = Sequence("", engine.mixture(), sampling, Sampler(sampling, 0), [], {})
    request = Request(engine, sequence, 0, False, None)
    for token in tokens[:stop_at]:
        sequence.tokens.append(token)
        sequence.trace.append({})
        sequence.drawn_with.append(sequence.mixture)
        sequence.log_probs.append(0.0)
        request.publish()
    request.close_stream()
    request.complete(Rewards())
    streamed = list(request)
    assert [token.id for token in streamed] == tokens[:stop_at]
    return "".join(token.text for token in streamed), request.completion().text


@pytest.mark.parametrize("text", TEXTS)
def test_stopped_anywhere(engine: Engine, text: str) -> None:
    """Also inside a character, whose bytes so far are what the tokenizer makes of them."""
    tokenizer = engine.policy_set.tokenizer
    tokens = tokenizer(TEXTS[text], add_special_tokens=False).input_ids
    assert handed(engine, tokens) == (TEXTS[text], TEXTS[text])
    for stop_at in range(len(tokens) + 1):
        streamed, final = handed(engine, tokens, stop_at)
        assert streamed == final == tokenizer.decode(tokens[:stop_at], skip_special_tokens=True)


def test_bytes_that_are_no_text(engine: Engine) -> None:
    """A run of bytes is decoded as a whole: a wrong one at its end takes back what was a character before."""
    tokenizer = engine.policy_set.tokenizer
    good, bad = (
        tokenizer("龘", add_special_tokens=False).input_ids,
        tokenizer("é", add_special_tokens=False).input_ids,
    )
    for tokens in ([*good, bad[-1]], [*good, good[-2], good[-1]], [*good, *good[:-1]], [good[-1], *good], [*bad[:-1]]):
        streamed, final = handed(engine, tokens)
        assert streamed == final == tokenizer.decode(tokens, skip_special_tokens=True)


def test_whole_characters_are_not_held_back(tiny_engine: Engine) -> None:
    tokens = tiny_engine.policy_set.tokenizer("ü你", add_special_tokens=False).input_ids
    chat = tiny_engine.policy_set.chat
    texts = [tiny_engine.policy_set.text(tokens[:i]) for i in range(1, len(tokens) + 1)]
    settled = [chat.settled(text, tokens[: i + 1], "") for i, text in enumerate(texts)]
    assert settled == [text.rstrip("\ufffd") for text in texts] and settled[-1] == "ü你"


def test_however_it_ends(engine: Engine) -> None:
    """By length, by its end, by Stop at any place, by a time limit, in the engine's own worker."""
    reasons = set()
    for seed in range(24):
        sampling = Sampling(max_new_tokens=40 if seed % 2 else 9, temperature=2.0)
        limit = 0.05 if seed % 6 == 5 else None
        request = engine.submit("mix", engine.mixture(), sampling, seed, trace=False, time_limit=limit)
        text = ""
        for place, token in enumerate(request):
            text += token.text
            if seed % 4 == 1 and place == seed:
                request.cancel()
        made = request.completion()
        reasons.add(made.finish_reason)
        decoded = engine.policy_set.tokenizer.decode(made.tokens, skip_special_tokens=True)
        assert text == made.text == decoded
    assert {"length", "stopped"} <= reasons


def test_an_error_comes_after_all_text_that_there_is(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = type(engine._scheduler.batch)._draw

    def failing(batch, group):
        if any(len(sequence.tokens) == 5 for sequence in group):
            raise ValueError("no more")
        draw(batch, group)

    monkeypatch.setattr(type(engine._scheduler.batch), "_draw", failing)
    request = engine.submit("mix", engine.mixture(), Sampling(max_new_tokens=9, temperature=2.0), 3)
    streamed = []
    with pytest.raises(ValueError, match="no more"):
        for token in request:
            streamed.append(token)
    tokens = [token.id for token in streamed]
    assert len(tokens) == 5
    decoded = engine.policy_set.tokenizer.decode(tokens, skip_special_tokens=True)
    assert "".join(token.text for token in streamed) == decoded


def test_particles_too(engine: Engine) -> None:
    sampling = Sampling(max_new_tokens=12, temperature=1.0, particles=3)
    request = engine.submit("mix", engine.mixture({"told": 1}), sampling, 1)
    assert "".join(token.text for token in request) == request.completion().text


def test_what_ends_a_turn_is_no_text(tiny: Tiny, tmp_path: Path) -> None:
    """Even where the tokenizer does not call it special."""
    tokenizer = make_tokenizer(tmp_path)
    tokenizer.add_tokens(["<turn>"])
    tokenizer.chat_template = CHAT.replace("<|end|>", "<turn>")
    chat = Chat(tokenizer)
    assert chat.end == [tokenizer.convert_tokens_to_ids("<turn>")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_is_decoded_in_a_window(tmp_path: Path, kind: str) -> None:
    tokenizer, random = KINDS[kind](tmp_path), Random(1)
    text = " ".join(random.choice(list(TEXTS.values())) for _ in range(60))
    ids = tokenizer(text, add_special_tokens=False).input_ids
    decoded: list[int] = []

    def decode(tokens: list[int]) -> str:
        decoded.append(len(tokens))
        return tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    chat, detokenizer, given = Chat(tokenizer), Detokenizer(decode), ""
    for count in range(1, len(ids) + 1):
        tokens = ids[:count]
        found = detokenizer.text(tokens)
        assert found == tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        settled = chat.settled(found, tokens, given)
        if settled == found:
            given = found
            detokenizer.settle(tokens)
    assert len(ids) > 500 and max(decoded) < 200
