"""A bias of tokens, against draws by hand and transformers' own processor."""

from __future__ import annotations

import json
import math

import pytest
import torch

from engine import Engine, InputError, MixedPolicy, Sampling
from engine.inference.sampler import Sampler, draw, warp
from tests.conftest import Tiny

PROMPT = "move the faders over the lazy dog"
LOG_PROBS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
BIAS = {262: 2.5, 70: -1.5, 10: 4.0, 31: 1.25}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_are_of_the_shifted_distribution(temperature: float) -> None:
    sampling = Sampling(temperature=temperature, logit_bias={0: -0.7, 3: 1.9})  # type: ignore[arg-type]
    sampler, shift = Sampler(sampling, 1), torch.tensor([math.exp(-0.7), 1, 1, math.exp(1.9)])
    drawn = torch.tensor([draw(warp(LOG_PROBS[None], sampling, [[]]), [sampler])[0] for _ in range(6_000)])
    expected = (LOG_PROBS.exp() * shift) ** (1 / temperature)
    assert (
        torch.bincount(drawn, minlength=4) / 6_000 - expected / expected.sum()
    ).abs().max() < 0.026  # four standard errors


def test_a_banned_token_is_never_drawn() -> None:
    """Also at a temperature at which -100 would be little."""
    sampling = Sampling(temperature=10.0, logit_bias={0: -100, 1: -100, 2: 100})  # type: ignore[arg-type]
    scores = warp(LOG_PROBS.expand(3, -1), sampling, [[]] * 3)
    assert scores.softmax(-1)[:, :2].eq(0).all()
    assert scores[:, 2:].isfinite().all()
    with pytest.raises(InputError, match=r"^logit_bias: it bans every token"):
        warp(LOG_PROBS[None], Sampling(logit_bias=dict.fromkeys(range(4), -100)), [[]])  # type: ignore[arg-type]


def test_greedy_responses_equal_those_with_transformers_processor(tiny_engine: Engine, tiny: Tiny) -> None:
    sampling = Sampling(30, 0.0, logit_bias=BIAS)  # type: ignore[arg-type]
    made = tiny_engine.submit(PROMPT, tiny_engine.mixture(), sampling).completion()
    plain = tiny_engine.submit(PROMPT, tiny_engine.mixture(), Sampling(30, 0.0)).completion()
    model = MixedPolicy.from_config(tiny.config).eval()
    prompt = model.policy_set.prompt_ids(model.policy_set.policies[0], PROMPT)
    bias = {(token,): value for token, value in BIAS.items()}
    settings = {"max_new_tokens": 30, "do_sample": False}
    own = model.generate(torch.tensor([prompt]), sequence_bias=bias, **settings)[0, len(prompt) :].tolist()
    assert made.tokens == own[: len(made.tokens)]
    assert made.tokens != plain.tokens
    # The log-probs are the mixture's, without the bias.
    with torch.no_grad():
        rows = model(torch.tensor([[*prompt, *made.tokens]])).logits[0, len(prompt) - 1 : -1]
    assert made.log_probs == pytest.approx(rows[range(len(made.tokens)), made.tokens].tolist(), abs=1e-4)


def test_a_response_with_a_bias_shares_the_batch(tiny_engine: Engine) -> None:
    samplings = [Sampling(20, 0.9), Sampling(20, 0.9, logit_bias=((5, 3.0),)), Sampling(20, 0.9, stop=("e",))]
    alone = [tiny_engine.submit(PROMPT, tiny_engine.mixture(), one, 7).completion() for one in samplings]
    together = tiny_engine.submit_all(PROMPT, [tiny_engine.mixture()] * 3, samplings, [7] * 3)
    assert [request.completion().tokens for request in together] == [completion.tokens for completion in alone]


@pytest.mark.parametrize(
    ("sampling", "error"),
    [
        (Sampling(logit_bias=((300, 1.0),)), "logit_bias: found 300; give token ids from 0 to 299"),
        (Sampling(logit_bias=tuple((token, -100.0) for token in range(300))), "logit_bias: it bans all tokens"),
        (Sampling(logit_bias=((5, 1.0),), particles=4), "logit_bias: the exact mixture has none; give 1 particle"),
    ],
)
def test_a_bias_that_is_refused(tiny_engine: Engine, sampling: Sampling, error: str) -> None:
    with pytest.raises(InputError, match=f"^{error}"):
        tiny_engine.submit(PROMPT, tiny_engine.mixture(), sampling)


def test_the_settings_survive_json() -> None:
    assert "stop" not in Sampling().as_dict() and "logit_bias" not in Sampling().as_dict()
    assert Sampling(**json.loads(json.dumps(Sampling().as_dict()))) == Sampling()
    settings = Sampling(stop=["a", "\n"], logit_bias={5: -100, 7: 0.5})  # type: ignore[arg-type]
    assert settings.stop == ("a", "\n") and settings.logit_bias == ((5, -100.0), (7, 0.5))
    assert Sampling(**json.loads(json.dumps(settings.as_dict()))) == settings
    assert hash(settings) == hash(Sampling(**settings.as_dict()))
    assert Sampling(stop="end").stop == ("end",)  # type: ignore[arg-type]
