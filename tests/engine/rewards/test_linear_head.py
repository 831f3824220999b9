"""Features of heads and their scores against hidden states as transformers returns them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from engine import InputError
from engine.rewards.linear_head import Head, decoder_layers, features, read_head, render, save_head
from tests.conftest import Tiny

TURNS = [
    {"role": "user", "content": "the fox"},
    {"role": "assistant", "content": "jumps"},
    {"role": "user", "content": "mix the dog"},
]
ITEMS = [
    ("mix", "the lazy dog"),
    ("move the faders", "the quick brown fox jumps over the lazy dog and mixes all policies"),
    (TURNS, "move"),
    ("a", ""),
    ("the", "the lazy dog<|end|>"),
    ("fox", "the lazy fox"),
]
WANTED = [(1, "mean"), (2, "last"), (1, "max"), (2, "mean")]


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny.base).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny: Tiny) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny.base)


def by_hand(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, response: str, layer: int, pool: str
) -> torch.Tensor:
    """One feature of the conversation `text` + `response` + end of turn, one row at a time."""
    head = tokenizer(text).input_ids
    middle = tokenizer(response, add_special_tokens=False).input_ids
    ids = torch.tensor([[*head, *middle, tokenizer.convert_tokens_to_ids("<|end|>")]])
    raw = {}
    # transformers normalises the last of its hidden states, so the last layer's own output is read by a hook.
    last = decoder_layers(model)[-1]
    handle = last.register_forward_hook(lambda module, inputs, output: raw.update(hidden=output))
    with torch.no_grad():
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
    handle.remove()
    hidden = raw["hidden"] if layer == len(decoder_layers(model)) else states[layer]
    hidden = hidden[0] if hidden.dim() == 3 else hidden
    said = hidden[len(head) : len(head) + len(middle)] if middle else hidden[-1:]
    return {"last": hidden[-1], "mean": said.mean(0), "max": said.max(0).values}[pool]


def test_features_equal_hidden_states(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    turns = "<|user|>the fox<|end|><|assistant|>jumps<|end|><|user|>mix the dog<|end|><|assistant|>"
    texts = [turns if not isinstance(prompt, str) else f"<|user|>{prompt}<|end|><|assistant|>" for prompt, _ in ITEMS]
    for exact in (True, False):
        found = features(model, tokenizer, ITEMS, WANTED, exact=exact)
        assert list(found) == WANTED
        for layer, pool in WANTED:
            assert found[layer, pool].shape == (len(ITEMS), 32) and found[layer, pool].dtype == torch.float32
            for row, (text, (_, response)) in enumerate(zip(texts, ITEMS, strict=True)):
                expected = by_hand(model, tokenizer, text, response.removesuffix("<|end|>"), layer, pool)
                torch.testing.assert_close(found[layer, pool][row], expected, rtol=1e-5, atol=1e-5)


def test_neighbours_change_nothing(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    together = features(model, tokenizer, ITEMS, WANTED)
    padded = features(model, tokenizer, ITEMS, WANTED, exact=False)
    for row, item in enumerate(ITEMS):
        alone = features(model, tokenizer, [item], WANTED)
        for feature in WANTED:
            assert torch.equal(together[feature][row], alone[feature][0])
            torch.testing.assert_close(padded[feature][row], alone[feature][0], rtol=1e-5, atol=1e-5)


def test_no_layer_above_the_highest_is_computed(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    computed = []
    before = [len(layer._forward_hooks) for layer in decoder_layers(model)]
    handles = [
        layer.register_forward_hook(lambda *_, i=i: computed.append(i))
        for i, layer in enumerate(decoder_layers(model), 1)
    ]
    handles.append(model.lm_head.register_forward_hook(lambda *_: computed.append("logits")))
    features(model, tokenizer, ITEMS[:1], [(1, "mean")])
    assert computed == [1]
    for handle in handles:
        handle.remove()
    assert [len(layer._forward_hooks) for layer in decoder_layers(model)] == before


def test_long_conversations_keep_the_response(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    whole, start, end = render(tokenizer, TURNS, "the lazy dog")
    last, last_start, _ = render(tokenizer, TURNS[2:], "the lazy dog")
    assert render(tokenizer, TURNS, "the lazy dog", context=len(whole)) == (whole, start, end)
    assert render(tokenizer, TURNS, "the lazy dog", context=len(whole) - 1)[0] == last
    cut, cut_start, cut_end = render(tokenizer, TURNS, "the lazy dog", context=len(last) - 3)
    assert cut == last[3:] and cut_start == last_start - 3
    assert tokenizer.decode(cut[cut_start:cut_end]) == "the lazy dog"
    long = [(TURNS, "the quick brown fox jumps over the lazy dog " * 40)]
    found = features(model, tokenizer, long, [(2, "last")])
    assert found[2, "last"].isfinite().all()


def test_a_head_is_kept_and_scores(tmp_path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(2 * 32, generator=generator)
    head = Head("org/tiny", ((2, "last"), (1, "mean")), weight, torch.tensor([0.5]), 32, on="reference")
    save_head(tmp_path / "head", head)
    kept = read_head(tmp_path / "head")
    assert (kept.base, kept.features, kept.on, kept.chat_template) == ("org/tiny", head.features, "reference", True)
    found = features(model, tokenizer, ITEMS, kept.features)
    expected = found[2, "last"] @ weight[:32] + found[1, "mean"] @ weight[32:] + 0.5
    torch.testing.assert_close(kept.score(found), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format: found 2, expected 1"),
        ({"base": ""}, "base: found ''"),
        ({"hidden_size": 16}, r"weight: found \[64\], head.json asks for \[32\]"),
        ({"on": "policy"}, "on: found 'policy', expected base or reference"),
        ({"features": []}, "features: found \\[\\]"),
        ({"features": [{"layer": 0, "pool": "mean"}]}, "features: found"),
        ({"features": [{"layer": 1, "pool": "median"}]}, "mean or last or max"),
    ],
)
def test_mistakes_in_a_head(tmp_path: Path, change: dict, message: str) -> None:
    save_head(tmp_path, Head("org/tiny", ((2, "last"), (1, "mean")), torch.ones(64), torch.zeros(1), 32))
    file = tmp_path / "head.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=message):
        read_head(tmp_path)


def test_missing_and_torn_files(tmp_path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(InputError, match=r"head.json is missing"):
        read_head(tmp_path)
    save_head(tmp_path, Head("org/tiny", ((1, "last"),), torch.ones(32), torch.zeros(1), 32))
    (tmp_path / "head.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"head.safetensors is unreadable"):
        read_head(tmp_path)
    with pytest.raises(InputError, match="layers are 1 to 2"):
        features(model, tokenizer, ITEMS, [(3, "mean")])
