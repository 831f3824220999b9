"""A mixture as a Hugging Face model, against the engine and against transformers' own decoding of the same logits."""

from __future__ import annotations

import pytest
import torch
from transformers import TextIteratorStreamer

from engine import Engine, InputError, MixedPolicy
from tests.conftest import Tiny

WEIGHTS = {"plain": 0.5, "stabilized": 0.2, "narrow": 0.3}
PROMPTS = ["mix", "move the faders over the lazy dog and jump"]


@pytest.fixture(scope="module", params=["geometric", "power", "soup"])
def model(tiny: Tiny, request: pytest.FixtureRequest) -> MixedPolicy:
    return MixedPolicy.from_config(tiny.config, WEIGHTS, rule=request.param, gain=1.3).eval()


def ids(model: MixedPolicy, prompt: str) -> list[int]:
    return model.policy_set.prompt_ids(model.policy_set.policies[0], prompt)


def batch(model: MixedPolicy) -> dict[str, torch.Tensor]:
    """Both prompts, left-padded."""
    input_ids, mask = model.policy_set.pad([ids(model, prompt) for prompt in PROMPTS])
    return {"input_ids": input_ids, "attention_mask": mask}


def test_greedy_equals_the_engine(tiny_engine: Engine, model: MixedPolicy) -> None:
    made = model.generate(**batch(model), max_new_tokens=20, do_sample=False)
    longest = batch(model)["input_ids"].shape[1]
    for row, prompt in zip(made.tolist(), PROMPTS, strict=True):
        expected = tiny_engine.generate(
            prompt, WEIGHTS, rule=model.mixture.rule, gain=1.3, max_new_tokens=20, temperature=0.0
        )
        assert row[longest:][: len(expected.tokens)] == expected.tokens


def test_beams_equal_beams_without_a_cache(model: MixedPolicy) -> None:
    """The beams' rows are re-ordered in the cache; without one there is nothing to re-order."""
    settings = {"max_new_tokens": 12, "num_beams": 4, "do_sample": False, "num_return_sequences": 2}
    assert torch.equal(
        model.generate(**batch(model), **settings, use_cache=True),
        model.generate(**batch(model), **settings, use_cache=False),
    )


def test_samples_follow_the_mixture(model: MixedPolicy) -> None:
    """4,000 first tokens against the mixture's distribution."""
    given = torch.tensor([ids(model, PROMPTS[1])])
    torch.manual_seed(0)
    made = model.generate(
        given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=1,
        do_sample=True,
        top_k=0,
        num_return_sequences=4000,
    )
    drawn = torch.bincount(made[:, -1], minlength=model.config.vocab_size) / 4000
    with torch.no_grad():
        expected = model(given).logits[0, -1].exp()
    assert expected.sum().item() == pytest.approx(1, abs=1e-4)
    assert (drawn - expected).abs().sum() / 2 < 0.12  # a sample of that size from the same distribution is under it


def test_streamers_and_processors(model: MixedPolicy) -> None:
    given = torch.tensor([ids(model, PROMPTS[0])])
    streamer = TextIteratorStreamer(model.tokenizer, skip_prompt=True, skip_special_tokens=True)
    settings = {"attention_mask": torch.ones_like(given), "max_new_tokens": 15, "do_sample": False}
    made = model.generate(given, streamer=streamer, **settings)
    tokens = made[0, given.shape[1] :]
    assert "".join(streamer) == model.tokenizer.decode(tokens, skip_special_tokens=True)
    others = model.generate(given, suppress_tokens=tokens.tolist(), **settings)[0, given.shape[1] :]
    assert not set(others.tolist()) & set(tokens.tolist())


def test_the_mixture_can_be_changed_between_calls(tiny_engine: Engine, tiny: Tiny) -> None:
    model = MixedPolicy.from_config(tiny.config, {"plain": 1}, trace=True)
    given = torch.tensor([ids(model, PROMPTS[1])])
    for weights in ({"plain": 1}, {"narrow": 1}, {"stabilized": 0.5, "plain": 0.5}):
        model.mixture = model.mix(weights)
        made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=10, do_sample=False)
        expected = tiny_engine.generate(PROMPTS[1], weights, max_new_tokens=10, temperature=0.0).tokens
        assert made[0, given.shape[1] :].tolist() == expected


def test_the_loss_is_the_cross_entropy_of_the_mixture(model: MixedPolicy) -> None:
    given = torch.tensor([ids(model, PROMPTS[1])])
    with torch.no_grad():
        made = model(given, labels=given)
    by_hand = -sum(made.logits[0, i, given[0, i + 1]] for i in range(given.shape[1] - 1)) / (given.shape[1] - 1)
    assert made.loss.item() == pytest.approx(by_hand.item(), abs=1e-5)


def test_what_cannot_be_one_model_is_refused(tiny: Tiny) -> None:
    policies = [
        {"name": "plain", "objective": "plain", "adapter": "plain"},
        {"name": "told", "objective": "b", "system_prompt": "mix"},
    ]
    config = tiny.write("told.yaml", policies=policies, rewards=[])
    with pytest.raises(InputError, match="policy 'told' is a prompted policy"):
        MixedPolicy.from_config(config)
    model = MixedPolicy.from_config(config, {"plain": 1})
    model.mixture = model.mix({"told": 1})
    with pytest.raises(InputError, match="told is not among this model's policies"):
        model(torch.tensor([[5]]))
