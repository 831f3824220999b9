"""A reference that is itself an adapter, and stacked adapters, against peft's own unmerged forward passes."""

from __future__ import annotations

import math

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer, LlamaForCausalLM

from engine import Engine, InputError, MixedPolicy, Sampling
from engine.config import load_config
from engine.inference.batch import Batch
from engine.inference.sampler import Sampler
from engine.inference.sequence import Sequence
from engine.models.config_fingerprint import config_fingerprint
from tests.conftest import ALL_LINEARS, Tiny, make_adapter

# The reference is `narrow`; `stacked` was trained on top of it, `alone` was not.
STACKS = {"reference": ["narrow"], "alone": ["plain"], "stacked": ["narrow", "stabilized"], "told": ["narrow"]}
POLICIES = [
    {"name": "alone", "objective": "a", "adapter": "plain"},
    {"name": "stacked", "objective": "b", "adapter": ["narrow", "stabilized"]},
    {"name": "told", "objective": "c", "system_prompt": "mix the policies"},
]
REWARDS = [{"objective": "b", "kind": "implicit", "beta": 0.1}]
WEIGHTS = {"alone": 0.5, "stacked": 0.3, "reference": 0.2}
PROMPTS = ["mix", "move the faders over the lazy dog and jump", "the quick brown fox 你好"]
MIXTURES = [
    {"rule": "geometric", "gain": 1.7},
    {"rule": "power", "exponent": -1.0},
    {"rule": "soup"},
    {"rule": "soup", "gain": 0.6},
]


@pytest.fixture(scope="module")
def engine(tiny: Tiny):
    file = tiny.write("reference.yaml", reference={"adapter": "narrow"}, policies=POLICIES, rewards=REWARDS)
    with Engine.from_config(file) as engine:
        yield engine


def unmerged(tiny: Tiny, adapters: list[str]) -> torch.nn.Module:
    """peft with all of these adapters active at once."""
    model = LlamaForCausalLM.from_pretrained(tiny.base)
    if not adapters:
        return model.eval()
    model = PeftModel.from_pretrained(model, tiny.folder / adapters[0], adapter_name=adapters[0])
    for name in adapters[1:]:
        model.load_adapter(tiny.folder / name, adapter_name=name)
    model.base_model.set_adapter(adapters)
    return model.eval()


@pytest.fixture(scope="module")
def models(tiny: Tiny) -> dict[str, torch.nn.Module]:
    """Each policy, and the soup: θ_ref + Σ λ_k (θ_k - θ_ref) of the weights that peft merges."""
    weights = {}
    for name in ("alone", "stacked", "reference"):
        weights[name] = dict(unmerged(tiny, STACKS[name]).merge_and_unload().named_parameters())
    soup = LlamaForCausalLM.from_pretrained(tiny.base)
    with torch.no_grad():
        for key, parameter in soup.named_parameters():
            of_reference = weights["reference"][key]
            parameter.copy_(of_reference)
            for name, weight in WEIGHTS.items():
                parameter += weight * (weights[name][key] - of_reference)
    return {**{name: unmerged(tiny, stack) for name, stack in STACKS.items()}, "soup": soup.eval()}


def chat(tiny: Tiny, prompt: str, name: str = "") -> list[int]:
    system = "<|system|>mix the policies<|end|>" if name == "told" else ""
    return AutoTokenizer.from_pretrained(tiny.base)(f"{system}<|user|>{prompt}<|end|><|assistant|>").input_ids


@torch.no_grad()
def by_hand(tiny: Tiny, models: dict[str, torch.nn.Module], prompt: str, tokens: list[int], settings) -> torch.Tensor:
    lp = {
        name: model(input_ids=torch.tensor([[*chat(tiny, prompt, name), *tokens]])).logits[0, -1].double()
        for name, model in models.items()
    }
    lp = {name: logits.log_softmax(-1) for name, logits in lp.items()}
    if settings["rule"] == "soup":
        mixed = lp["soup"]
    elif settings["rule"] == "geometric":
        mixed = sum(weight * lp[name] for name, weight in WEIGHTS.items())
    else:
        p = settings["exponent"]
        mixed = sum(weight * lp[name].exp() ** p for name, weight in WEIGHTS.items()).log() / p
    gain = settings.get("gain", 1.0)
    return (lp["reference"] + gain * (mixed.log_softmax(-1) - lp["reference"])).log_softmax(-1)


def test_each_adapter_is_folded_once(engine: Engine) -> None:
    policy_set = engine.policy_set
    assert len(policy_set.models) == 1 and policy_set.gates[0].adapters == 3
    gates = {policy.name: policy.gate for policy in policy_set.policies}
    assert gates == {"reference": (1, 0, 0), "alone": (0, 1, 0), "stacked": (1, 0, 1), "told": (1, 0, 0)}
    # Weights that do not add up to 1 leave the rest to the reference.
    assert policy_set.soup({"alone": 0.25, "stacked": 0.5}).gate == pytest.approx((0.75, 0.25, 0.5))
    assert policy_set.soup({"alone": -1.0}).gate == pytest.approx((2.0, -1.0, 0.0))


@pytest.mark.parametrize("settings", MIXTURES, ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items()))
@pytest.mark.parametrize("static", [False, True], ids=["exact", "static"])
def test_the_running_batch_equals_peft(tiny: Tiny, engine: Engine, models, settings: dict, static: bool) -> None:
    policy_set = engine.policy_set
    mixture = engine.mixture(WEIGHTS, **settings)
    policies = policy_set.rows_of(mixture, trace=True)
    sampling = Sampling(max_new_tokens=99, temperature=1.0)
    sequences = [
        Sequence(
            *(prompt, mixture, sampling, Sampler(sampling, seed), policies),
            {**policy_set.read(policies, prompt), "soup": chat(tiny, prompt)},
        )
        for seed, prompt in enumerate(PROMPTS)
    ]
    batch = Batch(policy_set, static=static)
    batch.admit(sequences[:2])
    worst, compared = 0.0, 0
    for step in range(10):
        if step == 3:
            batch.admit(sequences[2:])
        for sequence in batch.sequences:
            if sequence.finish_reason is None:
                ours = sequence.mixture.log_probs(batch.log_probs([sequence])[:, 0], sequence.names)
                theirs = by_hand(tiny, models, sequence.prompt, sequence.tokens, settings)
                worst, compared = max(worst, (ours.double() - theirs).abs().max().item()), compared + 1
        batch.step()
    assert compared > 12
    assert worst < 1e-4


def test_teacher_forcing_and_rewards_equal_peft(tiny: Tiny, engine: Engine, models) -> None:
    found = engine.token_log_probs(PROMPTS[1], "the lazy fox")
    response = AutoTokenizer.from_pretrained(tiny.base)("the lazy fox<|end|>").input_ids
    assert list(found) == ["reference", "alone", "stacked", "told"]
    sums = {}
    for name in found:
        prompt = chat(tiny, PROMPTS[1], name)
        with torch.no_grad():
            log_probs = models[name](input_ids=torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        expected = [log_probs[len(prompt) - 1 + i, token].item() for i, token in enumerate(response)]
        assert found[name] == pytest.approx(expected, abs=1e-4)
        sums[name] = math.fsum(expected)
    rewards = engine.rewards([(PROMPTS[1], "the lazy fox", response)])[0]
    assert rewards["b"] == pytest.approx(0.1 * (sums["stacked"] - sums["reference"]), abs=1e-3)


def test_a_gain_of_nothing_is_the_adapter_and_not_the_base(tiny: Tiny, engine: Engine, models) -> None:
    greedy = engine.generate("mix", {"alone": 1.0}, gain=0.0, max_new_tokens=8, temperature=0.0).tokens
    assert greedy == engine.generate("mix", {"reference": 1.0}, max_new_tokens=8, temperature=0.0).tokens
    tokens: list[int] = []
    while len(tokens) < len(greedy):
        with torch.no_grad():
            logits = models["reference"](input_ids=torch.tensor([chat(tiny, "mix") + tokens])).logits
        tokens.append(int(logits[0, -1].argmax()))
    assert tokens == greedy
    base = unmerged(tiny, [])(input_ids=torch.tensor([chat(tiny, "mix")])).logits[0, -1].log_softmax(-1)
    own = models["reference"](input_ids=torch.tensor([chat(tiny, "mix")])).logits[0, -1].log_softmax(-1)
    assert (base - own).abs().max() > 0.5, "else the test above would show nothing"


def test_a_mixture_as_a_model_has_the_reference(tiny: Tiny, models) -> None:
    file = tiny.write("reference-model.yaml", reference={"adapter": "narrow"}, policies=POLICIES[:2], rewards=[])
    ids = torch.tensor([chat(tiny, PROMPTS[1])])
    for settings in MIXTURES:
        model = MixedPolicy.from_config(file, weights=WEIGHTS, **settings)
        with torch.no_grad():
            ours = model(input_ids=ids).logits[0, -1].double()
        assert (ours - by_hand(tiny, models, PROMPTS[1], [], settings)).abs().max() < 1e-4


def test_what_cannot_be_folded_takes_the_general_path(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    """A DoRA as the reference, and in a stack; the prompted policy is the reference's model under another prompt."""
    make_adapter(tiny.base, tiny.folder / "refdora", 9, r=3, lora_alpha=6, target_modules=ALL_LINEARS, use_dora=True)
    policies = [
        {"name": "alone", "objective": "a", "adapter": "plain"},
        {"name": "stacked", "objective": "b", "adapter": ["refdora", "stabilized"]},
        {"name": "told", "objective": "c", "system_prompt": "mix the policies"},
    ]
    reference = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny.base), tiny.folder / "refdora")
    stacked = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny.base), tiny.folder / "refdora")
    stacked = PeftModel.from_pretrained(stacked.merge_and_unload(), tiny.folder / "stabilized").eval()
    models = {"reference": reference.eval(), "stacked": stacked, "told": reference}
    with Engine.from_config(
        tiny.write("dora.yaml", reference={"adapter": "refdora"}, policies=policies, rewards=[])
    ) as engine:
        assert [policy.model for policy in engine.policy_set.policies] == [1, 0, 2, 1]
        assert "policy 'reference' takes the general path, since it uses use_dora" in caplog.text
        made = engine.generate(PROMPTS[1], max_new_tokens=8, temperature=1.0, seed=3)
        for name, model in models.items():
            prompt = chat(tiny, PROMPTS[1], name)
            with torch.no_grad():
                log_probs = model(input_ids=torch.tensor([prompt + made.tokens])).logits[0].log_softmax(-1)
            expected = [log_probs[len(prompt) - 1 + i, token].item() for i, token in enumerate(made.tokens)]
            assert [step[name] for step in made.trace] == pytest.approx(expected, abs=1e-4)
        engine.mixture({"alone": 1.0}, rule="soup")
        with pytest.raises(InputError, match="soup averages adapters, and 'reference' is general path"):
            engine.mixture({"alone": 0.5, "reference": 0.5}, rule="soup")
        with pytest.raises(InputError, match="'reference' is general path"):
            engine.policy_set.soup({"alone": 0.5})


def test_only_policies_that_cannot_be_folded(tiny: Tiny) -> None:
    """No policy is left for the base's own model."""
    make_adapter(tiny.base, tiny.folder / "onlydora", 7, r=2, lora_alpha=2, target_modules=["q_proj"], use_dora=True)
    policies = [{"name": "told", "objective": "c", "system_prompt": "mix the policies"}]
    with Engine.from_config(
        tiny.write("onlydora.yaml", reference={"adapter": "onlydora"}, policies=policies, rewards=[])
    ) as engine:
        assert {policy.model for policy in engine.policy_set.policies} == {1}
        assert engine.generate("mix", max_new_tokens=4).tokens
        assert set(engine.token_log_probs("mix", "the fox")) == {"reference", "told"}


def test_the_bank_s_key_follows_the_reference(tiny: Tiny) -> None:
    plain = config_fingerprint(load_config(tiny.config))
    keys = [plain]
    for i, name in enumerate(("narrow", "plain", ["narrow", "plain"], ["plain", "narrow"])):
        keys.append(config_fingerprint(load_config(tiny.write(f"key{i}.yaml", reference={"adapter": name}))))
    stacked = [{"name": "plain", "objective": "plain", "adapter": ["plain", "narrow"]}]
    keys.append(config_fingerprint(load_config(tiny.write("key-stack.yaml", policies=stacked, rewards=[]))))
    assert all(keys[i] != keys[j] for i in range(len(keys)) for j in range(i))
    assert len(plain) == 4, "a configuration without a reference keeps its bank"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": {"adapter": "./gone"}}, "reference.adapter: found './gone', expected a path"),
        ({"reference": {}}, "reference.adapter: found nothing, expected this key"),
        ({"reference": {"adapter": []}}, r"reference.adapter: found '\[\]', expected an adapter's path or hub id"),
        ({"reference": {"model": "base"}}, "reference.adapter: found nothing|reference.model: found an unknown key"),
        ({"reference": "narrow"}, "reference: found 'narrow'"),
        ({"policies": [{**POLICIES[0], "adapter": ["plain", "plain"]}]}, r"policies\[0\].adapter: found .* each once"),
        ({"policies": [{**POLICIES[0], "adapter": ["plain", "./plain"]}]}, r"policies\[0\].adapter: found one adapter"),
        (
            {"policies": [{**POLICIES[0], "adapter": ["plain", "./gone"]}]},
            r"policies\[0\].adapter\[1\]: found './gone'",
        ),
        (
            {"policies": [{**POLICIES[0], "adapter": 5}]},
            r"policies\[0\].adapter: found '5', expected an adapter's path",
        ),
        ({"reference": {"adapter": "base"}}, "adapter_config.json is missing"),
    ],
)
def test_mistakes(tiny: Tiny, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        Engine.from_config(tiny.write("mistake.yaml", rewards=[], **{"policies": POLICIES, **changes}))
    assert "\n" not in str(raised.value)
