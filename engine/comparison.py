"""A comparison: several mixtures answer the same prompts, and are held against the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.bank import Array, seed_of
from engine.engine import Engine
from engine.errors import InputError
from engine.evaluate import wins
from engine.methods import with_intervals
from engine.mixing import Mixture
from engine.requests import Completion, wait
from engine.sampling import Sampling

MAX_MIXTURES = 6
KEYS = ("rule", "gain", "exponent")


@dataclass(frozen=True)
class Summary:
    """What a comparison says: of M mixtures and R rewards, over the prompts that all have answered.

    means, errors: [M, R] and their standard errors over prompts. wins: for each mixture but the first [R + 1, 3], the
    rate at which it beats the first (a tie is half a win) and its 95% interval, for each reward and the lowest of them.
    """

    prompts: int
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
    """(prompt's number, a response of each mixture with its rewards), prompt by prompt, through the running batch.

    Every mixture has a seed of its own for every prompt, the same whichever prompts are asked for: what was interrupted
    can be gone on with. When stopped() is true what is under way is given up. Raises InputError.
    """
    client, under_way, missing = object(), [], list(prompts.items())
    # Half of the batch: whoever comes to the desk meanwhile finds room in the other half, and takes turns beyond.
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
                if any(made is None or made.finish_reason == "stopped" for made in completions):
                    return
                under_way.pop(0)
                whole = [made for made in completions if made is not None]
                scored = engine.rewards([(made.prompt, made.text, made.tokens) for made in whole])
                for made, rewards in zip(whole, scored, strict=True):
                    made.rewards.update(rewards)
                yield number, whole
    finally:
        for _, requests in under_way:
            for request in requests:
                request.cancel()


def summarise(rewards: Array, seed: int = 0) -> Summary:
    """rewards: [prompts, M, R], NaN where there is no response. The bootstrap is over prompts, in pairs."""
    whole = rewards[~np.isnan(rewards).any((1, 2))]
    count, mixtures, size = whole.shape
    if not count or not size:
        nothing = np.full((mixtures, size), np.nan)
        return Summary(count, nothing, nothing, np.full((mixtures - 1, size + 1, 3), np.nan))
    won = wins(whole, whole[:, :1])  # [prompts, M, R]
    spread = whole.std(0, ddof=1) / np.sqrt(count) if count > 1 else np.full((mixtures, size), np.nan)
    rates = [with_intervals(won[:, place], np.random.default_rng(seed)) for place in range(1, mixtures)]
    return Summary(count, whole.mean(0), spread, np.array(rates).reshape(mixtures - 1, size + 1, 3))


def read_mixture(engine: Engine, text: str) -> Mixture:
    """'helpful=0.6, humorous=0.4, gain=1.5, rule=soup' -> that mixture. Raises InputError."""
    weights: dict[str, float] = {}
    settings: dict[str, str | float] = {}
    for part in text.replace(";", ",").split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name in settings or name in weights:
            raise InputError(f"weights: {name} is given twice; give each name once")
        if name == "rule":
            settings[name] = value
            continue
        try:
            (settings if name in KEYS else weights)[name] = float(value)
        except ValueError:
            raise InputError(
                f"weights: found '{part.strip()[:40]}'; type name=number with commas between, such as "
                f"{engine.policy_set.names[0]}=0.6, gain=1.5"
            ) from None
    return engine.mixture(weights or None, **settings)  # type: ignore[arg-type]
