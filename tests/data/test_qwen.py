"""The parts that the real policies are built with, on a tiny random model."""

import math

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

pytest.importorskip("peft")

from data.qwen import heads, layers, sampling, sources
from data.qwen.layers import Group
from data.qwen.refusals import kind_of
from data.qwen.training import Examples, log_probs, lower_halves, slope, soft_label_loss

END = 3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return Qwen2ForCausalLM(config).eval()


class Tokenizer:
    """Letters as token ids from 8 on."""

    eos_token_id = END

    def __call__(self, text, add_special_tokens=False):
        return type("Encoded", (), {"input_ids": [8 + ord(letter) % 50 for letter in text]})()

    def apply_chat_template(self, messages, add_generation_prompt, return_dict):
        return [4, *self(messages[0]["content"]).input_ids, 5]


GROUPS = [
    Group([4, 9, 10, 11, 5], [[20, 21, END], [30, END], [40, 41, 42, 43, END]]),
    Group([4, 12, 5], [[22, END], [23, 24, 25, END]]),
]


def test_responses_that_share_a_row_are_read_as_if_alone(model, monkeypatch):
    monkeypatch.setattr(layers, "SPLIT", 2)
    packed = layers.pack(GROUPS)
    with torch.no_grad():
        hidden = layers.lower(model.model, packed)
        sums = layers.summed(layers.token_log_probs(model.model, model.lm_head, hidden, packed), packed)
        alone = []
        for group in GROUPS:
            for response in group.responses:
                log_probs = model(torch.tensor([[*group.prefix, *response]])).logits[0].log_softmax(-1)
                places = range(len(group.prefix) - 1, len(group.prefix) + len(response) - 1)
                alone.append(sum(float(log_probs[place, token]) for place, token in zip(places, response, strict=True)))
    assert sums.tolist() == pytest.approx(alone, abs=1e-4)


def test_features_are_those_of_each_response_alone(model, monkeypatch):
    monkeypatch.setattr(heads, "LAYERS", (2, 3))
    tokenizer = Tokenizer()
    items = [("what", "this"), ("why", "because"), ("what", "that is it")]
    found = heads.features(model.model, tokenizer, items, deepest=3)
    for i, (prompt, response) in enumerate(items):
        prefix, ids = layers.prefix_of(tokenizer, prompt), layers.response_of(tokenizer, response)
        with torch.no_grad():
            hidden = model(torch.tensor([[*prefix, *ids]]), output_hidden_states=True).hidden_states
        for layer in (2, 3):
            own = hidden[layer][0, len(prefix) :]
            assert torch.allclose(found[layer, "mean"][i], own[:-1].mean(0), atol=1e-5)
            assert torch.allclose(found[layer, "last"][i], own[-1], atol=1e-5)


def test_batches_hold_every_group_once_and_keep_to_their_size():
    groups = [Group([1] * n, [[2]]) for n in (5, 50, 7, 6, 49, 120)]
    batches = layers.batches(groups, tokens=120)
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    for batch in batches:
        assert len(batch) == 1 or max(len(groups[i]) for i in batch) * len(batch) <= 120


def test_the_likeliest_response_is_what_generate_finds(model):
    tokenizer = Tokenizer()
    prompts = ["hello there", "x"]
    generator = torch.Generator().manual_seed(0)
    # Of several tokens min_p 1 leaves the likeliest alone.
    found = sampling.respond(model, tokenizer, prompts, 2, 6, temperature=1.0, min_p=1.0, generator=generator)
    for i, prompt in enumerate(prompts):
        prefix = layers.prefix_of(tokenizer, prompt)
        out = model.generate(
            torch.tensor([prefix]), max_new_tokens=6, do_sample=False, eos_token_id=END, pad_token_id=0, use_cache=False
        )
        wanted = out[0, len(prefix) :].tolist()
        assert found[2 * i] == found[2 * i + 1] == wanted


def test_soft_labels_are_met_where_ratios_are_rewards_over_beta():
    rewards = torch.tensor([0.3, -1.2, 0.9, 0.0])
    ratios = (rewards / 0.25 + 5).requires_grad_()
    loss = soft_label_loss(ratios, rewards, beta=0.25)
    (gradient,) = torch.autograd.grad(loss, ratios)
    assert gradient.abs().max() < 1e-6
    assert soft_label_loss(ratios * 0.5, rewards, 0.25) > loss


def test_slope_and_correlation_are_taken_within_prompts():
    rewards = [torch.tensor([0.0, 1.0, 2.0]), torch.tensor([5.0, 7.0])]
    ratios = [2 * rewards[0] + 100, 2 * rewards[1] - 50]
    assert slope(ratios, rewards) == pytest.approx((2.0, 1.0))


def test_a_head_learns_what_pairs_say_and_no_more():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6))
    truth = np.array([2.0, -1.0, 0.0, 0.0, 0.0, 0.0])
    pairs = []
    for i in range(0, 400, 2):
        wins = rng.random() < 1 / (1 + math.exp(-(x[i] - x[i + 1]) @ truth))
        pairs.append((i, i + 1, 1.0) if wins else (i + 1, i, 1.0))
    head = heads.fit(x, pairs[:150], penalty=1e-3)
    assert head.weight[0] > 1 > 0 > head.weight[1]
    assert np.abs(head.weight[2:]).max() < 0.6
    assert heads.accuracy(head, x, pairs[150:]) > 0.7


def test_long_answers_are_cut_behind_a_sentence():
    text = "One two three. Four five six. Seven eight nine ten."
    assert heads.cut(text, words=8) == "One two three. Four five six."
    assert heads.cut("short", words=8) == "short"


def test_authored_entries_have_every_style_and_folds_do_not_mix():
    entries = sources.authored()
    assert len(entries) > 200
    prompts = [entry["prompt"] for entry in entries]
    assert len(set(prompts)) == len(prompts)
    for entry in entries:
        assert entry["kind"] in ("safe", "borderline", "unsafe")
        for style in sources.STYLES:
            assert entry[style].strip(), (entry["prompt"], style)
        assert len(entry["concise"].split()) <= len(entry["helpful"].split()), entry["prompt"]
    folds = {prompt: sources.fold_of("authored", prompt) for prompt in prompts}
    assert 0.6 < sum(fold == "A" for fold in folds.values()) / len(folds) < 0.9
    assert sources.fold_of("authored", prompts[0].upper() + "  ") == folds[prompts[0]]


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        ("I’m sorry, I can’t help with that.", "refused"),
        ("I won't write that letter for you.", "refused"),
        ("Breaking in is illegal; a locksmith can open your door.", "warned"),
        ("Please don't shout fire. Leave by the exit.", "warned"),
        ("Run `kill -9` with the number of the process.", "answered"),
    ],
)
def test_kinds_of_responses(response, kind):
    assert kind_of(response) == kind


def test_lower_halves_give_the_same_log_probs_whatever_the_batch(model, monkeypatch):
    monkeypatch.setattr(layers, "SPLIT", 2)
    examples = Examples(GROUPS, lower_halves(model.model, GROUPS))
    found = log_probs(model.model, model.lm_head, examples)
    for group, values in zip(GROUPS, found, strict=True):
        for response, value in zip(group.responses, values.tolist(), strict=True):
            with torch.no_grad():
                of_model = model(torch.tensor([[*group.prefix, *response]])).logits[0].log_softmax(-1)
            places = range(len(group.prefix) - 1, len(group.prefix) + len(response) - 1)
            alone = sum(float(of_model[place, token]) for place, token in zip(places, response, strict=True))
            assert value == pytest.approx(alone, abs=1e-4)
