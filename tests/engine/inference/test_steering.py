"""Steering: every token is drawn from the mixture that was set when its turn came, and says so."""

from __future__ import annotations

import pytest

from engine import Engine, InputError, Mixture, Sampling

PROMPT = "move the faders over the lazy dog"
GREEDY = Sampling(max_new_tokens=24, temperature=0.0)


def steered(engine: Engine, first: Mixture, changes: dict[int, dict], trace: bool = True):
    """A greedy response, steered after as many tokens as the keys of `changes` say."""
    request = engine.submit(PROMPT, first, GREEDY, trace=trace)
    for place, _ in enumerate(request, 1):
        if place in changes:
            request.steer(**changes[place])
    return request.completion()


def by_hand(engine: Engine, tokens: list[int], mixtures: list[Mixture]) -> list[int]:
    """What each mixture would take next after the tokens before it, teacher-forced without the batch."""
    policy_set = engine.policy_set
    taken = []
    for place, mixture in enumerate(mixtures):
        policies = engine.policy_set.rows_of(mixture, trace=True)
        ids = [[*policy_set.prompt_ids(policy, PROMPT), *tokens[:place]] for policy in policies]
        logits = policy_set.forward(0, policies, *policy_set.pad(ids))[:, -1]
        log_probs = mixture.log_probs(logits.log_softmax(-1), [policy.name for policy in policies])
        taken.append(int(log_probs.argmax()))
    return taken


@pytest.mark.parametrize("trace", [True, False])
def test_every_token_says_what_it_was_drawn_from(tiny_engine: Engine, trace: bool) -> None:
    first = tiny_engine.mixture({"plain": 1})
    changes = {
        4: {"weights": {"narrow": 1, "stabilized": 2}},
        9: {"rule": "power", "exponent": -1.0},
        14: {"gain": 2.0, "rule": "geometric"},
    }
    completion = steered(tiny_engine, first, changes, trace)
    drawn = [completion.steered.get(0)]
    for place in range(1, len(completion.tokens)):
        drawn.append(completion.steered.get(place, drawn[-1]))
    assert completion.steered[0] == first
    assert len(completion.steered) == 4
    # The engine may be a few tokens ahead of whoever reads, never behind.
    assert all(place >= after for place, after in zip(list(completion.steered)[1:], changes, strict=True))
    assert completion.steered[max(completion.steered)] == completion.mixture
    assert completion.mixture.rule == "geometric"
    assert completion.mixture.gain == 2.0
    assert completion.mixture.weights == pytest.approx({"plain": 0, "stabilized": 2 / 3, "narrow": 1 / 3})
    assert by_hand(tiny_engine, completion.tokens, drawn) == completion.tokens


def test_steering_to_a_soup_and_away(tiny_engine: Engine) -> None:
    """A soup has a row of its own, which joins when it is wanted."""
    changes = {3: {"rule": "soup", "weights": {"plain": 1, "narrow": 1}}, 12: {"rule": "geometric"}}
    completion = steered(tiny_engine, tiny_engine.mixture({"plain": 1}), changes)
    drawn = [completion.steered[0]]
    for place in range(1, len(completion.tokens)):
        drawn.append(completion.steered.get(place, drawn[-1]))
    assert [mixture.rule for mixture in completion.steered.values()] == ["geometric", "soup", "geometric"]
    assert by_hand(tiny_engine, completion.tokens, drawn) == completion.tokens
    assert "soup" in completion.trace[-1]
    assert "soup" not in completion.trace[0]


def test_who_steers_while_a_prompt_is_read_waits_for_no_further_token(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, then = tiny_engine.mixture({"plain": 1}), tiny_engine.mixture({"narrow": 1})
    request = tiny_engine.submit(PROMPT, first, Sampling(max_new_tokens=200, temperature=0.9))
    join = tiny_engine._scheduler.batch.begin
    places = []

    def reading(sequences) -> None:
        request.steer_to(then)
        places.append(len(request.sequence.tokens))
        join(sequences)

    next(iter(request))
    monkeypatch.setattr(tiny_engine._scheduler.batch, "begin", reading)
    tiny_engine.submit("mix", first, GREEDY).completion()
    request.cancel()
    completion = request.completion()
    assert completion.finish_reason == "stopped", "it was over before the other began"
    assert completion.steered == {0: first, places[0]: then}


def test_a_steered_response_can_be_generated_again(tiny_engine: Engine) -> None:
    sampling = Sampling(max_new_tokens=40, temperature=0.9)
    request = tiny_engine.submit(PROMPT, tiny_engine.mixture({"plain": 1}), sampling, seed=4)
    for place, _ in enumerate(request):
        if place == 3:
            request.steer(weights={"narrow": 1, "reference": 1}, gain=1.5)
        elif place == 8:
            request.steer(rule="power", exponent=0.5)
    made = request.completion()
    for trace in (True, False):
        again = tiny_engine.submit(PROMPT, made.mixture, sampling, 4, trace=trace, steered=made.steered).completion()
        assert again.tokens == made.tokens
        assert again.steered == made.steered


def test_a_stream_is_steered_and_stopped(tiny_engine: Engine) -> None:
    stream = tiny_engine.stream(PROMPT, {"plain": 1}, max_new_tokens=200, temperature=0.0)
    assert next(stream).mixture.weights["plain"] == 1
    stream.steer(weights={"narrow": 1})
    token = next(token for token in stream if token.mixture.weights["narrow"] == 1)
    assert token.log_probs["narrow"] >= token.log_probs["plain"]
    stream.cancel()
    assert stream.completion(timeout=10).finish_reason in ("stopped", "end")


def test_mistakes_change_nothing(tiny_engine: Engine) -> None:
    stream = tiny_engine.stream(PROMPT, {"plain": 1}, max_new_tokens=12, temperature=0.0)
    for wrong in ({"weights": {"nobody": 1}}, {"rule": "alchemy"}, {"gain": float("nan")}, {"weights": {"plain": 0}}):
        with pytest.raises(InputError):
            stream.steer(**wrong)
    assert stream.completion(timeout=10).steered == {}


def test_a_time_limit_ends_a_response_as_it_is(tiny_engine: Engine) -> None:
    sampling = Sampling(max_new_tokens=200, temperature=0.0)
    completion = tiny_engine.submit(PROMPT, tiny_engine.mixture(), sampling, time_limit=0.0).completion(timeout=10)
    assert completion.finish_reason == "time"
    assert 0 < len(completion.tokens) < 200
