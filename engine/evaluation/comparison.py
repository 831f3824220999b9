"""Comparisons: several mixtures respond to the same prompts, and are compared with the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.bank.collection import Array
from engine.evaluation.statistics import with_intervals
from engine.evaluation.sweep import wins
from engine.inference.completion import Completion
from engine.inference.engine import Engine
from engine.inference.finish_reason import FinishReason
from engine.inference.request import wait
from engine.rules.mixture import Mixture
from engine.sampling import Sampling
from engine.seeding import seed_of

MAX_MIXTURES = 6


@dataclass(frozen=True)
class Summary:
    """Statistics of M mixtures and R rewards, over the prompts to which all mixtures have responded.

    Figures are NaN if there are no prompts for them.

    Attributes:
        prompts: the number of prompts with every reward of every mixture.
        counts: [R], the number of prompts with this reward of every mixture, which its figures are computed from.
        means: [M, R], mean rewards.
        errors: [M, R], their standard errors over prompts.
        wins: [M - 1, R + 1, 3], for each mixture but the first, the rate at which it beats the first (a tie is half a
            win) and its 95% interval, for each reward and for the lowest rate.
    """

    prompts: int
    counts: NDArray[np.int64]
    means: Array
    errors: Array
    wins: Array


def answers(
    engine: Engine,
    prompts: Mapping[int, str],
    mixtures: Sequence[Mixture],
    sampling: Sampling,
    seed: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, list[Completion]]]:
    """Yield (prompt number, a response of each mixture with its rewards), prompt by prompt, through the running batch.

    The seed of a response depends only on `seed`, the prompt and the mixture's position, so that an interrupted
    comparison can be resumed with the remaining prompts.

    Args:
        engine: the engine.
        prompts: {prompt number: prompt}.
        mixtures: the mixtures.
        sampling: the sampling settings of all responses.
        seed: the seed of the comparison.
        stopped: the iteration ends, and running responses are cancelled, when it returns true.

    Raises:
        InputError: a prompt or setting is not valid.
    """
    client, under_way, missing = object(), [], list(prompts.items())
    # Half of the batch: other requests use the other half, and beyond that the fair queue alternates.
    rows = sum(len(mixture.needs) for mixture in mixtures)
    window = max(1, engine.max_rows // 2 // rows)
    try:
        for i in range(len(missing) + window):
            if i < len(missing):
                number, prompt = missing[i]
                requests = [
                    engine.submit(
                        prompt,
                        mixture,
                        sampling,
                        seed_of(seed, place, prompt) % 2**31,  # short enough to be typed again
                        trace=False,
                        rewards=False,
                        client=client,
                    )
                    for place, mixture in enumerate(mixtures)
                ]
                under_way.append((number, requests))
            if i >= window and under_way:
                number, requests = under_way[0]
                completions = [wait(request, stopped) for request in requests]
                if any(made is None or made.finish_reason == FinishReason.STOPPED for made in completions):
                    return
                under_way.pop(0)
                whole = [made for made in completions if made is not None]
                scored = engine.rewards([(made.prompt, made.text, made.tokens) for made in whole])
                for made, rewards in zip(whole, scored, strict=True):
                    made.score(rewards)
                yield number, whole
    finally:
        for _, requests in under_way:
            for request in requests:
                request.cancel()


def summarise(rewards: Array, seed: int = 0) -> Summary:
    """Summarise a comparison, with a paired bootstrap over prompts.

    Args:
        rewards: [prompts, M, R], NaN if there is no response or no reward.
        seed: of the bootstrap.
    """
    _, mixtures, size = rewards.shape
    there = np.asarray(np.isfinite(rewards).all(1))  # [prompts, R]
    whole = np.asarray(there.all(1))
    means, errors = np.full((mixtures, size), np.nan), np.full((mixtures, size), np.nan)
    rates = np.full((mixtures - 1, size + 1, 3), np.nan)

    def intervals(rows: NDArray[np.bool_], columns: slice) -> Array:
        own = rewards[rows, :, columns]
        won = wins(own, own[:, :1])  # [prompts, M, R]
        return np.array([with_intervals(won[:, place], np.random.default_rng(seed)) for place in range(1, mixtures)])

    if size and whole.any():
        rates[:] = intervals(whole, slice(None))
    for column in range(size):
        rows, count = there[:, column], int(there[:, column].sum())
        if not count:
            continue
        own = rewards[rows, :, column]
        means[:, column] = own.mean(0)
        if count > 1:
            errors[:, column] = own.std(0, ddof=1) / np.sqrt(count)
        if count > whole.sum():
            rates[:, column] = intervals(rows, slice(column, column + 1))[:, 0]
    return Summary(int(whole.sum()), there.sum(0), means, errors, rates)
