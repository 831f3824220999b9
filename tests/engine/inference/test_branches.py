"""Responses that begin with given tokens."""

from __future__ import annotations

import pytest

from engine import Engine, InputError, Sampling
from tests.engine.inference.test_steering import by_hand

PROMPT = "move the faders over the lazy dog"
GREEDY = Sampling(max_new_tokens=10, temperature=0.0)


def test_a_branch_goes_on_from_what_was_said_with_other_weights(tiny_engine: Engine) -> None:
    parent = tiny_engine.submit(PROMPT, tiny_engine.mixture({"plain": 1}), GREEDY).completion()
    given, other = parent.tokens[:4], tiny_engine.mixture({"narrow": 1})
    request = tiny_engine.submit(PROMPT, other, GREEDY, tokens=given)
    tokens = list(request)
    made = request.completion()
    assert made.prefix_length == 4
    assert made.tokens[:4] == given
    assert len(made.tokens) <= 4 + GREEDY.max_new_tokens
    assert [token.id for token in tokens] == made.tokens
    assert "".join(token.text for token in tokens) == made.text
    assert by_hand(tiny_engine, made.tokens, [other] * len(made.tokens))[4:] == made.tokens[4:]
    assert made.steered == {}
    # What was given has the log-probs that it had when it was drawn.
    for then, now in zip(parent.trace[:4], made.trace, strict=False):
        assert now == pytest.approx(then, abs=1e-4)


@pytest.mark.parametrize("particles", [1, 4])
def test_a_branch_can_be_generated_again(tiny_engine: Engine, particles: int) -> None:
    sampling = Sampling(max_new_tokens=12, temperature=0.9, particles=particles)
    mixture = tiny_engine.mixture({"plain": 1, "narrow": 1})
    made = tiny_engine.submit(PROMPT, mixture, sampling, 3, tokens=[20, 30, 40]).completion()
    assert made.tokens[:3] == [20, 30, 40]
    for trace in (True, False):
        given = made.tokens[: made.prefix_length]
        again = tiny_engine.submit(PROMPT, made.mixture, sampling, 3, trace=trace, tokens=given).completion()
        assert again.tokens == made.tokens
    assert tiny_engine.submit(PROMPT, mixture, sampling, 3).completion().prefix_length == 0


def test_a_branch_that_is_steered_can_be_generated_again(tiny_engine: Engine) -> None:
    sampling = Sampling(max_new_tokens=20, temperature=0.9)
    request = tiny_engine.submit(PROMPT, tiny_engine.mixture({"plain": 1}), sampling, 3, tokens=[20, 30, 40])
    request.steer(weights={"stabilized": 1})  # maybe before its first token
    for place, _ in enumerate(request):
        if place == 8:
            request.steer(weights={"narrow": 1, "reference": 1}, gain=1.5)
    made = request.completion()
    assert made.steered
    again = tiny_engine.submit(
        PROMPT, made.mixture, sampling, 3, steered=made.steered, tokens=made.tokens[: made.prefix_length]
    ).completion()
    assert (again.tokens, again.steered) == (made.tokens, made.steered)


@pytest.mark.parametrize("tokens", [[-1], [10**6], [True], ["a"]])
def test_wrong_tokens_are_told(tiny_engine: Engine, tokens: list) -> None:
    with pytest.raises(InputError, match="tokens"):
        tiny_engine.submit(PROMPT, tiny_engine.mixture(), GREEDY, tokens=tokens)
    with pytest.raises(InputError, match="ends a response"):
        tiny_engine.submit(PROMPT, tiny_engine.mixture(), GREEDY, tokens=list(tiny_engine.policy_set.stop_ids))
    with pytest.raises(InputError, match="tokens long"):
        tiny_engine.submit(PROMPT, tiny_engine.mixture(), GREEDY, tokens=[20] * 250)
