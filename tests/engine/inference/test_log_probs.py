"""The mixture's log-probs of drawn tokens, against the same mixture as a Hugging Face model."""

from __future__ import annotations

import pytest
import torch

from engine import Engine, InputError, MixedPolicy, Sampling
from tests.conftest import Tiny

PROMPT = "move the faders over the lazy dog"
WEIGHTS = {"plain": 0.5, "stabilized": 0.2, "narrow": 0.3}
MIXINGS = [
    {"rule": "geometric"},
    {"rule": "power", "exponent": 0.5},
    {"rule": "soup"},
    {"rule": "geometric", "gain": 1.7},
    {"rule": "soup", "gain": 0.4},
]
# Whatever changes the draws must not change the log-probs.
SAMPLING = Sampling(max_new_tokens=12, temperature=1.4, top_k=40, min_p=0.01, repetition_penalty=1.2)


def exact(tiny: Tiny, mixing: dict, tokens: list[int]) -> torch.Tensor:
    """Log-probs [tokens, V] before each token of a response, of one forward pass."""
    model = MixedPolicy.from_config(tiny.config, WEIGHTS, **mixing).eval()
    prompt = model.policy_set.prompt_ids(model.policy_set.policies[0], PROMPT)
    with torch.no_grad():
        return model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]


@pytest.mark.parametrize("trace", [True, False])
@pytest.mark.parametrize("mixing", MIXINGS, ids=lambda mixing: " ".join(map(str, mixing.values())))
def test_drawn_tokens_have_the_mixtures_log_prob(tiny_engine: Engine, tiny: Tiny, mixing: dict, trace: bool) -> None:
    mixture = tiny_engine.mixture(WEIGHTS, **mixing)
    request = tiny_engine.submit(PROMPT, mixture, SAMPLING, seed=4, trace=trace, top_logprobs=7)
    streamed = list(request)
    made = request.completion()
    expected = exact(tiny, mixing, made.tokens)
    own = expected[range(len(made.tokens)), made.tokens]
    assert made.log_probs == pytest.approx(own.tolist(), abs=1e-4)
    assert [token.log_prob for token in streamed] == made.log_probs
    for token, row in zip(streamed, expected, strict=True):
        assert token.top_logprobs is not None
        assert token.top_logprobs.mixed.tolist() == pytest.approx(row[token.top_logprobs.seen].tolist(), abs=1e-4)
        best = token.top_logprobs.likeliest(5)
        assert [value for _, value in best] == pytest.approx(row.topk(5).values.tolist(), abs=1e-4)
        assert [value for _, value in best] == pytest.approx(row[[number for number, _ in best]].tolist(), abs=1e-4)
        assert len({number for number, _ in best}) == 5
        with pytest.raises(InputError, match="top_logprobs: found 8; 7 per policy"):
            token.top_logprobs.likeliest(8)


def test_given_tokens_have_none(tiny_engine: Engine, tiny: Tiny) -> None:
    request = tiny_engine.submit(PROMPT, tiny_engine.mixture(WEIGHTS), SAMPLING, seed=4, tokens=[20, 30, 40])
    streamed = list(request)
    made = request.completion()
    assert [token.log_prob for token in streamed] == [None, None, None, *made.log_probs]
    expected = exact(tiny, {}, made.tokens)[range(len(made.tokens)), made.tokens]
    assert made.log_probs == pytest.approx(expected[3:].tolist(), abs=1e-4)


def test_particles_keep_the_log_probs_of_the_response_that_is_chosen(tiny_engine: Engine, tiny: Tiny) -> None:
    """The mixture's log-probs at temperature 1, whatever the particles are weighted with; resampling copies them."""
    sampling = Sampling(max_new_tokens=16, temperature=1.5, particles=6)
    for seed in range(4):
        made = tiny_engine.submit(PROMPT, tiny_engine.mixture(WEIGHTS), sampling, seed).completion()
        expected = exact(tiny, {}, made.tokens)[range(len(made.tokens)), made.tokens]
        assert made.log_probs == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_response_that_was_evicted_keeps_its_log_probs(tiny_engine: Engine) -> None:
    """Steering to a policy without a row reads the response again."""
    request = tiny_engine.submit(PROMPT, tiny_engine.mixture({"plain": 1}), SAMPLING, seed=1, trace=False)
    for place, _ in enumerate(request):
        if place == 2:
            request.steer(weights={"narrow": 1})
    made = request.completion()
    assert len(made.log_probs) == len(made.tokens)
    alone = tiny_engine.token_log_probs(PROMPT, made.tokens)
    for place, log_prob in enumerate(made.log_probs):
        mixture = (
            max((start, mixture) for start, mixture in made.steered.items() if start <= place)[1]
            if (made.steered)
            else made.mixture
        )
        (name,) = [name for name, weight in mixture.weights.items() if weight]
        assert log_prob == pytest.approx(alone[name][place], abs=1e-4)
