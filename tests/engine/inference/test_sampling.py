"""Draws against their distribution."""

from __future__ import annotations

import torch

from engine import Sampling
from engine.inference.sampler import Sampler, draw, warp

LOG_PROBS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def frequencies(sampling: Sampling, draws: int = 20_000) -> torch.Tensor:
    sampler = Sampler(sampling, seed=1)
    drawn = torch.tensor([draw(warp(LOG_PROBS[None], sampler.sampling, [[]]), [sampler])[0] for _ in range(draws)])
    return torch.bincount(drawn, minlength=4) / draws


def test_draws_follow_the_distribution() -> None:
    # Four standard errors at 20,000 draws are under 0.0142.
    assert (frequencies(Sampling(temperature=1.0)) - LOG_PROBS.exp()).abs().max() < 0.0142


def test_temperature_sharpens() -> None:
    sharpened = torch.tensor([0.25, 0.09, 0.0225, 0.0025]) / 0.365  # p squared, normalised by hand
    assert (frequencies(Sampling(temperature=0.5)) - sharpened).abs().max() < 0.0142


def test_truncation() -> None:
    assert frequencies(Sampling(temperature=1.0, top_k=2), 500)[2:].sum() == 0
    assert frequencies(Sampling(temperature=1.0, top_p=0.9), 500)[3] == 0
    assert frequencies(Sampling(temperature=1.0, min_p=0.2), 500)[3] == 0


def test_temperature_zero_takes_the_likeliest() -> None:
    assert frequencies(Sampling(temperature=0.0), 20)[0] == 1


def test_many_draw_as_each_alone() -> None:
    sampling = Sampling(temperature=0.8, top_p=0.9)
    log_probs = torch.randn(5, 50, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    together = [Sampler(sampling, seed) for seed in range(5)]
    alone = [Sampler(sampling, seed) for seed in range(5)]
    for _ in range(20):
        drawn = draw(warp(log_probs, together[0].sampling, [[]] * 5), together)
        assert drawn == [draw(warp(log_probs[i : i + 1], alone[i].sampling, [[]]), [alone[i]])[0] for i in range(5)]


def test_repetition_penalty_divides_what_was_said() -> None:
    """As transformers has it: a negative score is multiplied by the penalty."""
    said = Sampling(temperature=0.0, repetition_penalty=3.0)
    assert draw(warp(LOG_PROBS[None], said, [[]]), [Sampler(said, 0)]) == [0]
    assert draw(warp(LOG_PROBS[None], said, [[0]]), [Sampler(said, 0)]) == [1]  # 3 log 0.5 < log 0.3
    assert draw(warp(LOG_PROBS[None], said, [[0, 1]]), [Sampler(said, 0)]) == [2]
