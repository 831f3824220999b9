"""What else could have been said: kept top_logprobs, mixed again, against the exact mixtures of a tiny model."""

from __future__ import annotations

import pytest
import torch

from engine import Engine, InputError, Mixture, Sampling
from engine.inference.top_logprobs import TopLogprobs

PROMPT = "move the faders over the lazy dog"
SAMPLING = Sampling(max_new_tokens=6, temperature=0.8)


def direct(engine: Engine, tokens: list[int]) -> dict[str, torch.Tensor]:
    """{policy: log-probs [V] of the token after these}, by a forward pass without the batch."""
    policy_set = engine.policy_set
    policies = policy_set.policies
    ids = [[*policy_set.prompt_ids(policy, PROMPT), *tokens] for policy in policies]
    logits = policy_set.forward(0, policies, *policy_set.pad(ids))[:, -1]
    return dict(zip([p.name for p in policies], logits.double().log_softmax(-1), strict=True))


def drawn(engine: Engine, count: int, mixture: Mixture | None = None) -> tuple[list[int], list[TopLogprobs]]:
    request = engine.submit(PROMPT, mixture or engine.mixture(), SAMPLING, seed=5, top_logprobs=count)
    kept = [token.top_logprobs for token in request]
    assert all(kept)
    return request.completion().tokens, [top_logprobs for top_logprobs in kept if top_logprobs]


def test_each_policys_likeliest_are_kept_with_the_mass_of_the_rest(tiny_engine: Engine) -> None:
    tokens, kept = drawn(tiny_engine, 12)
    for place, top_logprobs in enumerate(kept):
        exact = direct(tiny_engine, tokens[:place])
        assert top_logprobs.ids[0] == tokens[place]
        assert len(set(top_logprobs.ids)) == len(top_logprobs.ids) <= 1 + (len(exact) + 1) * 12
        for name, log_probs in exact.items():
            assert set(log_probs.topk(12).indices.tolist()) <= set(top_logprobs.ids)
            found = top_logprobs.of(name)
            assert found[:-1] == pytest.approx(log_probs[top_logprobs.ids].exp().tolist(), abs=1e-5)
            assert found[-1] == pytest.approx(1 - float(log_probs[top_logprobs.ids].exp().sum()), abs=1e-5)


MIXTURES = [
    {"weights": {"plain": 1, "narrow": 3}},
    {"weights": {"plain": 1, "stabilized": 1, "narrow": 0.2}, "rule": "power", "exponent": 1.0},
    {"weights": {"stabilized": 1}},
]


@pytest.mark.parametrize("settings", MIXTURES)
def test_other_weights_are_mixed_afterwards(tiny_engine: Engine, settings: dict) -> None:
    """Against the exact mixture over the whole vocabulary: the tail is the only approximation, bounded by itself."""
    mixture = tiny_engine.mixture(**settings)
    tokens, kept = drawn(tiny_engine, 12)
    for place, top_logprobs in enumerate(kept):
        exact = direct(tiny_engine, tokens[:place])
        whole = mixture.log_probs(torch.stack(list(exact.values())), list(exact)).exp()
        *found, rest = top_logprobs.under(mixture)
        known = whole[top_logprobs.ids]
        assert sum(found) + rest == pytest.approx(1)
        apart = known - torch.tensor(found)
        assert (apart > -1e-5).all(), "geometric and sums never say too much"
        assert float(apart.max()) <= rest + 1e-5
        if mixture.rule == "power":  # sums: the rest is exact as well
            assert found == pytest.approx(known.tolist(), abs=1e-5)


def test_with_the_whole_vocabulary_kept_it_is_exact(tiny_engine: Engine) -> None:
    size = len(tiny_engine.policy_set.tokenizer)
    _, kept = drawn(tiny_engine, size)
    exact = direct(tiny_engine, [])
    for settings in (*MIXTURES, {"gain": 2.5}, {"rule": "power", "exponent": -1.0}):
        mixture = tiny_engine.mixture(**settings)
        whole = mixture.log_probs(torch.stack(list(exact.values())), list(exact)).exp()
        assert kept[0].under(mixture)[:-1] == pytest.approx(whole[kept[0].ids].tolist(), abs=1e-4)


def test_a_soup_is_known_only_where_it_was_computed(tiny_engine: Engine) -> None:
    soup = tiny_engine.mixture({"plain": 1, "narrow": 1}, "soup")
    _, kept = drawn(tiny_engine, 4, soup)
    assert sum(kept[0].under(soup)) == pytest.approx(1)
    assert kept[0].under(soup) == kept[0].of("soup")
    with pytest.raises(InputError, match="soup"):
        kept[0].under(tiny_engine.mixture({"plain": 1}, "soup"))
    with pytest.raises(InputError, match="narrow"):
        untraced = tiny_engine.submit(PROMPT, tiny_engine.mixture({"plain": 1}), SAMPLING, trace=False, top_logprobs=3)
        (first, *_) = [token.top_logprobs for token in untraced]
        first.under(tiny_engine.mixture({"narrow": 1}))


def test_nothing_is_kept_unless_asked_and_it_changes_no_draw(tiny_engine: Engine) -> None:
    request = tiny_engine.submit(PROMPT, tiny_engine.mixture(), SAMPLING, seed=5)
    assert all(token.top_logprobs is None for token in request)
    assert request.completion().tokens == drawn(tiny_engine, 12)[0]


def test_panels_have_their_own_sampling_and_particles_keep_candidates(tiny_engine: Engine) -> None:
    exact, greedy = Sampling(max_new_tokens=5, temperature=0.9, particles=4), Sampling(max_new_tokens=7, temperature=0)
    mixture = tiny_engine.mixture({"plain": 1, "narrow": 1})
    requests = tiny_engine.submit_all(PROMPT, [mixture] * 2, [exact, greedy], [1, 2], top_logprobs=3)
    for request, sampling in zip(requests, (exact, greedy), strict=True):
        tokens = list(request)
        made = request.completion()
        assert made.sampling == sampling
        assert [token.top_logprobs.ids[0] for token in tokens] == made.tokens
    last = tokens[-1].top_logprobs
    known = direct(tiny_engine, made.tokens[:-1])["plain"][last.ids].exp().tolist()
    assert last.of("plain")[:-1] == pytest.approx(known, abs=1e-5)
