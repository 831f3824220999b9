"""Prompts of token ids, and the mixture's log-probs of a text, against the mixture as a Hugging Face model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import processors
from transformers import AutoTokenizer, LlamaForCausalLM

from engine import Engine, InputError, MixedPolicy, Sampling
from engine.inference.text_api import PositionLogProb
from engine.messages import TokenPrompt
from engine.models import mixture_log_probs
from tests.conftest import Tiny

WEIGHTS = {"plain": 0.5, "stabilized": 0.2, "narrow": 0.3}
MIXINGS = [
    {"rule": "geometric"},
    {"rule": "power", "exponent": -0.5},
    {"rule": "soup"},
    {"rule": "geometric", "gain": 1.7},
    {"rule": "power", "gain": 0.5},
    {"rule": "soup", "gain": 1.3},
]
TEXT = "the quick brown fox mixes Grüße and the faders over 你好 <|end|> and <|user|> jumps"
GREEDY = Sampling(max_new_tokens=14, temperature=0.0)


@pytest.fixture(scope="module")
def prompted(tiny: Tiny) -> Path:
    """Two prompted policies, one on an adapter, beside adapters without a prompt."""
    return tiny.write(
        "prompted.yaml",
        rewards=[],
        policies=[
            {"name": "plain", "objective": "plain", "adapter": "plain"},
            {"name": "told", "objective": "told", "system_prompt": "mix the policies"},
            {"name": "begun", "objective": "begun", "adapter": "narrow", "prefix": "lazy "},
        ],
    )


@pytest.fixture(scope="module")
def prompted_engine(prompted: Path) -> Iterator[Engine]:
    with Engine.from_config(prompted) as engine:
        yield engine


def forward(model: MixedPolicy, ids: list[int]) -> torch.Tensor:
    """Log-probs [tokens, V] of the token after each of the ids."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def check(found: list[PositionLogProb], rows: torch.Tensor, ids: list[int], first: int, top: int) -> None:
    """Compare with a model's rows, from the token `first` on."""
    assert len(found) == len(ids)
    assert found[:first] == [PositionLogProb(None)] * first
    for place in range(first, len(ids)):
        row = rows[place - 1]
        assert found[place].log_prob == pytest.approx(float(row[ids[place]]), abs=1e-4)
        best = found[place].top
        assert [value for _, value in best] == pytest.approx(row.topk(top).values.tolist(), abs=1e-4)
        assert [value for _, value in best] == pytest.approx(row[[number for number, _ in best]].tolist(), abs=1e-4)
        assert len({number for number, _ in best}) == top


@pytest.mark.parametrize("pieces", [1, 3, 1000])
@pytest.mark.parametrize("mixing", MIXINGS, ids=lambda mixing: " ".join(map(str, mixing.values())))
def test_a_text_has_the_mixtures_log_probs(
    tiny_engine: Engine, tiny: Tiny, mixing: dict, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixture_log_probs, "POSITIONS", pieces * 4)  # of at most 4 rows
    ids = tiny_engine.tokenize(TEXT)
    model = MixedPolicy.from_config(tiny.config, WEIGHTS, **mixing).eval()
    found = tiny_engine.mixture_log_probs(ids, tiny_engine.mixture(WEIGHTS, **mixing), top=4)
    check(found, forward(model, ids), ids, 1, 4)


@pytest.mark.parametrize("pieces", [2, 1000])
@pytest.mark.parametrize("weights", [{"plain": 1, "told": 1, "begun": 2}, {"told": 1}, {"begun": 1, "reference": 1}])
def test_prompted_policies_put_their_own_beginning_first(
    prompted_engine: Engine, prompted: Path, weights: dict, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixture_log_probs, "POSITIONS", pieces * 3)
    policy_set = prompted_engine.policy_set
    prompt = policy_set.prompt_ids(policy_set.policies[0], "move the faders")
    ids = [*prompt, *prompted_engine.tokenize("over the lazy dog")]
    model = MixedPolicy.from_config(prompted, weights).eval()
    first = max(len(head.plain) for head in model.heads.values())
    assert first <= len(prompt)
    found = prompted_engine.mixture_log_probs(ids, prompted_engine.mixture(weights), top=3)
    check(found, forward(model, ids), ids, max(first, 1), 3)
    # And from each policy's whole conversation, by the engine's own scoring.
    alone = prompted_engine.token_log_probs("move the faders", ids[len(prompt) :])
    if len(weights) == 1:
        (name,) = weights
        own = [position.log_prob for position in found[len(prompt) :]]
        assert own == pytest.approx(alone[name], abs=1e-4)


def test_a_prompted_policy_cannot_read_other_beginnings(prompted_engine: Engine) -> None:
    raw = prompted_engine.tokenize("the quick brown fox")
    mixed = prompted_engine.mixture({"plain": 1, "begun": 1})
    with pytest.raises(InputError, match=r"^prompt: .*policy 'begun'"):
        prompted_engine.mixture_log_probs(raw, mixed)
    with pytest.raises(InputError, match=r"^prompt: .*policy 'begun'"):
        prompted_engine.submit(TokenPrompt(tuple(raw)), mixed, GREEDY)
    with pytest.raises(InputError, match=r"^prompt: .*policy 'begun'"):
        prompted_engine.token_log_probs(TokenPrompt(tuple(raw)), "jumps")
    # Where it has no weight it is left out of the trace, and cannot be steered to.
    request = prompted_engine.submit(TokenPrompt(tuple(raw)), prompted_engine.mixture({"plain": 1}), GREEDY)
    with pytest.raises(InputError, match=r"^steer: begun cannot read"):
        request.steer(weights={"begun": 1})
    request.steer(weights={"plain": 1, "reference": 1})
    made = request.completion()
    assert set(made.trace[0]) == {"reference", "plain", "told"}
    given = prompted_engine.submit(
        TokenPrompt(tuple(raw)), prompted_engine.mixture({"plain": 1}), GREEDY, tokens=made.tokens[:2]
    )
    assert set(given.completion().trace[0]) == {"reference", "plain", "told"}


@pytest.mark.parametrize("mixing", MIXINGS, ids=lambda mixing: " ".join(map(str, mixing.values())))
def test_responses_to_token_ids(tiny_engine: Engine, tiny: Tiny, mixing: dict) -> None:
    ids = tiny_engine.tokenize("the quick brown")
    made = tiny_engine.submit(TokenPrompt(tuple(ids)), tiny_engine.mixture(WEIGHTS, **mixing), GREEDY).completion()
    model = MixedPolicy.from_config(tiny.config, WEIGHTS, **mixing).eval()
    own = model.generate(torch.tensor([ids]), max_new_tokens=14, do_sample=False)[0, len(ids) :].tolist()
    assert made.tokens == own[: len(made.tokens)]
    assert len(made.tokens) == 14 or made.finish_reason == "end"
    assert made.rewards == made.missing_rewards == {}
    assert made.prompt == TokenPrompt(tuple(ids))
    assert made.as_dict()["prompt"] == {"tokens": ids}
    rows = forward(model, [*ids, *made.tokens])[len(ids) - 1 : -1]
    assert made.log_probs == pytest.approx(rows[range(len(made.tokens)), made.tokens].tolist(), abs=1e-4)


def test_prompted_policies_respond_to_the_same_tokens_as_to_the_text(prompted_engine: Engine) -> None:
    policy_set = prompted_engine.policy_set
    prompt = policy_set.prompt_ids(policy_set.policies[0], "move the faders")
    mixture = prompted_engine.mixture({"plain": 1, "told": 1, "begun": 2})
    by_ids, by_text = (
        prompted_engine.submit(said, mixture, GREEDY).completion()
        for said in (TokenPrompt(tuple(prompt)), "move the faders")
    )
    assert by_ids.tokens == by_text.tokens
    both = prompted_engine.submit_all(TokenPrompt(tuple(prompt)), [mixture, mixture], GREEDY, [0, 1])
    assert [request.completion().tokens for request in both] == [by_text.tokens] * 2
    alone = [prompted_engine.token_log_probs(said, by_ids.tokens) for said in (by_ids.prompt, by_text.prompt)]
    for name, log_probs in alone[1].items():
        assert alone[0][name] == pytest.approx(log_probs, abs=1e-5)


@pytest.mark.parametrize("mixing", MIXINGS[:2], ids=["geometric", "power"])
@pytest.mark.parametrize("pieces", [2, 1000])
def test_policies_of_several_models(
    tiny: Tiny, tmp_path: Path, mixing: dict, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that is a model of its own, which `MixedPolicy` does not take."""
    other = LlamaForCausalLM.from_pretrained(tiny.base)
    torch.manual_seed(3)
    for parameter in other.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    other.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tiny.base).save_pretrained(tmp_path / "other")
    config = tiny.write(
        "models.yaml",
        rewards=[],
        policies=[
            {"name": "plain", "objective": "plain", "adapter": "plain"},
            {"name": "other", "objective": "other", "model": str(tmp_path / "other")},
        ],
    )
    monkeypatch.setattr(mixture_log_probs, "POSITIONS", pieces * 2)
    with Engine.from_config(config) as engine:
        ids = engine.tokenize(TEXT)
        mixture = engine.mixture({"plain": 1, "other": 3}, **mixing)
        found = engine.mixture_log_probs(ids, mixture, top=3)
        assert engine.submit(TokenPrompt((5, 6, 7)), mixture, GREEDY).completion().tokens
    first = MixedPolicy.from_config(tiny.config, {"plain": 1}).eval()
    with torch.no_grad():
        plain, own = first(torch.tensor([ids])).logits[0], other.eval()(torch.tensor([ids])).logits[0].log_softmax(-1)
    rows = plain / 4 + own * 3 / 4
    if mixture.takes_exponent:
        rows = (plain.exp() ** -0.5 / 4 + own.exp() ** -0.5 * 3 / 4).log() / -0.5
    check(found, rows.log_softmax(-1), ids, 1, 3)


@pytest.mark.parametrize("pieces", [5, 1000])
def test_sliding_windows_are_read_in_pieces(
    tiny: Tiny, tmp_path: Path, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that see four tokens alternate with layers that see all; their caches differ."""
    torch.manual_seed(0)
    base = transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(
            vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, initializer_range=0.2, bos_token_id=None, eos_token_id=4, pad_token_id=0,
            max_position_embeddings=256, sliding_window=4, layer_types=["sliding_attention", "full_attention"] * 2,
        )
    )  # fmt: skip
    base.eval().save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny.base).save_pretrained(tmp_path / "base")
    policies = [{"name": "told", "objective": "told", "system_prompt": "mix the policies"}]
    config = tiny.write("sliding.yaml", base=str(tmp_path / "base"), dtype="float32", policies=policies, rewards=[])
    monkeypatch.setattr(mixture_log_probs, "POSITIONS", pieces * 2)
    with Engine.from_config(config) as engine:
        policy_set = engine.policy_set
        texts = [policy_set.prompt_ids(policy, "mix") for policy in policy_set.policies]
        ids = [*texts[0], *engine.tokenize(TEXT)]
        found = engine.mixture_log_probs(ids, engine.mixture({"told": 1, "reference": 1}))
    response = ids[len(texts[0]) :]
    with torch.no_grad():
        logits = [base(torch.tensor([[*text, *response]])).logits[0, len(text) - 1 : -1] for text in texts]
    mixed = (sum(each.log_softmax(-1) for each in logits) / 2).log_softmax(-1)
    expected = mixed[range(len(response)), response].tolist()
    assert [position.log_prob for position in found[-len(response) :]] == pytest.approx(expected, abs=1e-4)


def test_tokenizing_is_the_tokenizers(tiny_engine: Engine, tiny: Tiny) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    ids = tiny_engine.tokenize(TEXT)
    assert ids == tokenizer(TEXT).input_ids
    assert tiny_engine.detokenize(ids) == TEXT
    assert tiny_engine.detokenize([]) == "" and tiny_engine.tokenize("") == []
    with pytest.raises(InputError, match=r"^text: "):
        tiny_engine.tokenize("\ud800")


def test_a_tokenizer_with_a_first_token(tiny: Tiny, tmp_path: Path) -> None:
    """It begins texts, unless that is refused, and stands for a prompt without tokens."""
    base = tmp_path / "base"
    LlamaForCausalLM.from_pretrained(tiny.base).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    tokenizer.bos_token = "<|user|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|user|> $A", special_tokens=[("<|user|>", tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(base)
    policies = [{"name": "told", "objective": "told", "system_prompt": "mix the policies"}]
    config = tiny.write("first.yaml", base=str(base), policies=policies, rewards=[])
    with Engine.from_config(config) as engine:
        first = tokenizer.convert_tokens_to_ids("<|user|>")
        assert engine.tokenize("mix") == [first, *engine.tokenize("mix", add_special_tokens=False)]
        reference = engine.mixture({"reference": 1})
        empty, given = (engine.submit(TokenPrompt(tokens), reference, GREEDY).completion() for tokens in ((), (first,)))
        assert empty.tokens == given.tokens


REFUSED_PROMPTS = [
    ((), "prompt: it has no tokens"),
    ((300,), "prompt: found 300"),
    ((5, -1), "prompt: found -1"),
    ((5, True), "prompt: found True"),
    (("a",), "prompt: found a"),
    ((5,) * 250, "prompt: it is 250 tokens"),
]
REFUSED_TEXTS = [
    ([], 0, "tokens: there are none"),
    ([300], 0, "tokens: found 300"),
    ([5] * 258, 0, "tokens: they are 258"),
    ([5], -1, "top: found"),
]


@pytest.mark.parametrize(("tokens", "error"), REFUSED_PROMPTS)
def test_tokens_that_are_refused(tiny_engine: Engine, tokens: tuple, error: str) -> None:
    with pytest.raises(InputError, match=f"^{error}"):
        tiny_engine.submit(TokenPrompt(tokens), tiny_engine.mixture(WEIGHTS), GREEDY)


@pytest.mark.parametrize(("tokens", "top", "error"), REFUSED_TEXTS)
def test_texts_that_are_refused(tiny_engine: Engine, tokens: list[int], top: int, error: str) -> None:
    with pytest.raises(InputError, match=f"^{error}"):
        tiny_engine.mixture_log_probs(tokens, tiny_engine.mixture(WEIGHTS), top)


def test_a_full_context_and_a_single_token(tiny_engine: Engine) -> None:
    assert tiny_engine.mixture_log_probs([5], tiny_engine.mixture(WEIGHTS), 3) == [PositionLogProb(None)]
    found = tiny_engine.mixture_log_probs([5, 6] * 128 + [7], tiny_engine.mixture(WEIGHTS))
    assert len(found) == 257 and all(position.log_prob is not None for position in found[1:])
