"""Mixtures against the same figures from peft: separate forward passes of separate models, none of our code."""

from __future__ import annotations

import math

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer, LlamaForCausalLM

from engine import Engine, Sampling
from engine.inference.batch import Batch
from engine.inference.sampler import Sampler
from engine.inference.sequence import Sequence
from tests.conftest import Tiny

WEIGHTS = {"plain": 0.5, "stabilized": 0.2, "narrow": 0.3}
PROMPTS = ["mix", "move the faders over the lazy dog and jump", "the quick brown fox 你好"]
MIXTURES = [
    {"rule": "geometric"},
    {"rule": "geometric", "gain": 1.7},
    {"rule": "geometric", "gain": 0.0},
    {"rule": "power", "exponent": 1.0},
    {"rule": "power", "exponent": -1.0},
    {"rule": "power", "exponent": 0.01},
    {"rule": "power", "exponent": 2.5, "gain": 0.6},
    {"rule": "power", "exponent": 0.0},
    {"rule": "soup"},
    {"rule": "soup", "gain": 1.7},
]


@pytest.fixture(scope="module")
def peft_models(tiny: Tiny) -> dict[str, torch.nn.Module]:
    models = {
        name: PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny.base), folder).eval()
        for name, folder in tiny.adapters.items()
    }
    return {"reference": LlamaForCausalLM.from_pretrained(tiny.base).eval(), **models}


@pytest.fixture(scope="module")
def soup(tiny: Tiny) -> torch.nn.Module:
    """Rewarded Soups: the base with the weighted average of what peft merges into it for each adapter."""
    model = LlamaForCausalLM.from_pretrained(tiny.base)
    averaged = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for name, weight in WEIGHTS.items():
        merged = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny.base), tiny.adapters[name])
        for key, parameter in merged.merge_and_unload().named_parameters():
            averaged[key] += weight * (parameter.detach() - model.get_parameter(key).detach())
    model.load_state_dict(averaged, strict=False)
    return model.eval()


def chat(tiny: Tiny, prompt: str) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    return tokenizer(f"<|user|>{prompt}<|end|><|assistant|>").input_ids


@torch.no_grad()
def by_hand(models: dict[str, torch.nn.Module], ids: list[int], settings: dict) -> torch.Tensor:
    """The mixture's log-probs [V] after `ids`, each model on its own, without cache or padding, in double precision."""
    lp = {
        name: model(input_ids=torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
        for name, model in models.items()
    }
    if settings["rule"] == "soup":
        mixed = lp["soup"]
    elif settings["rule"] == "geometric" or settings["exponent"] == 0:
        mixed = sum(weight * lp[name] for name, weight in WEIGHTS.items())
    else:
        p = settings["exponent"]
        mixed = sum(weight * lp[name].exp() ** p for name, weight in WEIGHTS.items()).log() / p
    mixed = mixed - mixed.exp().sum().log()
    gain = settings.get("gain", 1.0)
    unnormalised = lp["reference"] + gain * (mixed - lp["reference"])
    return unnormalised - unnormalised.exp().sum().log()


@pytest.mark.parametrize("static", [False, True], ids=["exact", "static"])
@pytest.mark.parametrize("settings", MIXTURES, ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items()))
def test_mixture_equals_peft_along_a_cached_decode(tiny, tiny_engine, peft_models, soup, settings, static) -> None:
    policy_set = tiny_engine.policy_set
    mixture = tiny_engine.mixture(WEIGHTS, **settings)
    policies = tiny_engine.policy_set.rows_of(mixture, trace=True)
    models = {**peft_models, "soup": soup}
    sequences = [
        Sequence(
            prompt,
            mixture,
            Sampling(max_new_tokens=99, temperature=1.0),
            Sampler(Sampling(max_new_tokens=99, temperature=1.0), seed),
            policies,
            policy_set.read(policies, prompt),
        )
        for seed, prompt in enumerate(PROMPTS)
    ]
    batch = Batch(policy_set, static=static)
    batch.admit(sequences[:2])
    worst = 0.0
    for step in range(14):
        if step == 3:
            batch.admit(sequences[2:])  # joins while the others are on their way
        if step == 9:
            sequences[0].finish_reason = "stopped"  # leaves before them
        for sequence in batch.sequences:
            if sequence.finish_reason is None:
                ours = sequence.mixture.log_probs(batch.log_probs([sequence])[:, 0], sequence.names)
                theirs = by_hand(models, [*chat(tiny, sequence.prompt), *sequence.tokens], settings)
                worst = max(worst, (ours.double() - theirs).abs().max().item())
        batch.step()
    assert len(sequences[1].tokens) > 5
    assert worst < 1e-4


def test_the_policies_differ(tiny, peft_models) -> None:
    """Else the test above would show nothing."""
    ids = torch.tensor([chat(tiny, PROMPTS[1])])
    log_probs = [model(input_ids=ids).logits[0, -1].log_softmax(-1) for model in peft_models.values()]
    for i, one in enumerate(log_probs):
        for other in log_probs[:i]:
            assert (one - other).abs().max() > 0.5


def test_token_log_probs_equal_peft(tiny, tiny_engine, peft_models) -> None:
    found = tiny_engine.token_log_probs(PROMPTS[1], "the lazy fox")
    prompt = chat(tiny, PROMPTS[1])
    response = AutoTokenizer.from_pretrained(tiny.base)("the lazy fox<|end|>").input_ids
    assert list(found) == ["reference", *WEIGHTS]
    for name, model in peft_models.items():
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        expected = [log_probs[len(prompt) - 1 + i, token].item() for i, token in enumerate(response)]
        assert found[name] == pytest.approx(expected, abs=1e-4)


def test_the_trace_equals_teacher_forcing(tiny_engine) -> None:
    completion = tiny_engine.generate(PROMPTS[2], WEIGHTS, max_new_tokens=20, temperature=1.0, seed=5)
    forced = tiny_engine.token_log_probs(PROMPTS[2], completion.tokens)
    for name, expected in forced.items():
        assert [step[name] for step in completion.trace] == pytest.approx(expected, abs=1e-4)


def test_general_path_and_prompted_policies_equal_peft(tiny: Tiny) -> None:
    """DoRA, a full model, and the base under another system prompt, mixed in one sequence."""
    from tests.conftest import ALL_LINEARS, make_adapter, make_base

    make_adapter(tiny.base, tiny.folder / "dora", 9, r=3, lora_alpha=6, target_modules=ALL_LINEARS, use_dora=True)
    make_base(tiny.folder / "other", hidden=40, seed=5)
    policies = [
        {"name": "plain", "objective": "a", "adapter": "plain"},
        {"name": "dora", "objective": "b", "adapter": "dora"},
        {"name": "other", "objective": "c", "model": "other"},
        {"name": "told", "objective": "d", "system_prompt": "mix the policies"},
    ]
    config = tiny.write("general.yaml", policies=policies, rewards=[])
    weights = {"plain": 0.4, "dora": 0.3, "other": 0.2, "told": 0.1}

    def load(path) -> torch.nn.Module:
        return LlamaForCausalLM.from_pretrained(path).eval()

    models = {
        "plain": PeftModel.from_pretrained(load(tiny.base), tiny.adapters["plain"]),
        "dora": PeftModel.from_pretrained(load(tiny.base), tiny.folder / "dora"),
        "other": load(tiny.folder / "other"),
        "told": load(tiny.base),
    }
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    with Engine.from_config(config) as engine:
        assert "use_dora" in engine.policy_set.by_name["dora"].note
        assert engine.policy_set.by_name["plain"].note == ""
        completion = engine.generate(PROMPTS[1], weights, max_new_tokens=12, temperature=1.0, seed=3)
        greedy = engine.generate(PROMPTS[1], weights, max_new_tokens=8, temperature=0.0)
    prompt = chat(tiny, PROMPTS[1])
    told = tokenizer("<|system|>mix the policies<|end|>").input_ids + prompt
    for name, model in models.items():
        start = told if name == "told" else prompt
        with torch.no_grad():
            log_probs = model.eval()(input_ids=torch.tensor([start + completion.tokens])).logits[0].log_softmax(-1)
        expected = [log_probs[len(start) - 1 + i, token].item() for i, token in enumerate(completion.tokens)]
        assert [step[name] for step in completion.trace] == pytest.approx(expected, abs=1e-4)
    # The greedy decode of the mixture, by hand.
    tokens: list[int] = []
    for _ in range(8):
        mixed = torch.zeros(len(tokenizer))
        for name, weight in weights.items():
            start = told if name == "told" else prompt
            with torch.no_grad():
                mixed += weight * models[name](input_ids=torch.tensor([start + tokens])).logits[0, -1].log_softmax(-1)
        tokens.append(int(mixed.argmax()))
        if tokens[-1] == tokenizer.eos_token_id:
            break
    assert greedy.tokens == tokens


def test_every_rule_is_tested_here() -> None:
    from engine import RULES

    assert {settings["rule"] for settings in MIXTURES} == set(RULES)
    assert math.isclose(sum(WEIGHTS.values()), 1)
