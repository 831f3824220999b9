from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine import Engine
from engine.api.token_texts import TokenTexts


def test_tokens_of_bytes_add_up_to_the_text(tiny_engine: Engine) -> None:
    tokenizer = tiny_engine.policy_set.tokenizer
    texts = TokenTexts(tokenizer)
    for text in ("Grüße an alle 你好 🎉", " the  quick\n", "<|end|> a"):
        ids = tokenizer(text).input_ids
        assert b"".join(map(texts.bytes_of, ids)).decode() == text
    (first, *_) = tokenizer("🎉").input_ids
    assert texts.text_of(first).startswith("bytes:\\xf0")
    assert texts.is_special(tokenizer.eos_token_id) and texts.text_of(tokenizer.eos_token_id) == "<|end|>"
    assert texts.bytes_of(10**6) == b"" and not texts.drops_space(first)


@pytest.mark.parametrize("text", ["Hello you", "Hé you"])
def test_tokens_of_sentencepiece_have_their_spaces(text: str) -> None:
    pieces = ["▁Hello", "▁you", "▁", "H", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = [("<unk>", 0.0), *((piece, -1.0) for piece in pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    texts = TokenTexts(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    ids = tokenizer.encode(text).ids
    assert b"".join(map(texts.bytes_of, ids)).decode() == " " + text
    assert texts.drops_space(ids[0])
