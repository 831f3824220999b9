"""Differences between policies: win rates against the reference, and rewards along the sweep of every fader."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from engine.config import REFERENCE
from engine.errors import InputError
from engine.inference.engine import Completion, Engine
from engine.rewards.missing import missing_counts, missing_line
from engine.sampling import Sampling

log = logging.getLogger("mixdesk")

FADER = (0.0, 0.25, 0.5, 0.75, 1.0)


def mean(values: Iterable[float]) -> float:
    """Return the mean of one or more values."""
    values = list(values)
    return math.fsum(values) / len(values)


def standard_error(values: list[float]) -> float:
    """Return the standard error of the mean; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    centre = mean(values)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1) / len(values))


def wins(ours: ArrayLike, theirs: ArrayLike) -> NDArray[np.float64]:
    """Return 1 for each element of `ours` that is higher, 0 if it is lower, 0.5 for a tie. The arrays broadcast."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return (ours > theirs) + 0.5 * (ours == theirs)


def win_rate(ours: list[float], theirs: list[float]) -> float:
    """Return the fraction of pairs that `ours` wins, a tie counting a half."""
    return mean(wins(ours, theirs).tolist())


def against_uniform(names: list[str], name: str, level: float) -> dict[str, float]:
    """Return weights with one fader at `level` and equal weights for the others."""
    rest = (1 - level) / max(len(names) - 1, 1)
    return {other: level if other == name else rest for other in names}


def evaluate(engine: Engine, prompts: list[str], sampling: Sampling, seed: int = 0) -> dict[str, Any]:
    """Evaluate the reference, every policy, and the sweep of every fader, with one response per prompt.

    Responses whose reward is missing are left out of its figures, and a reward that cannot be compared at all is left
    out of the result.

    Returns:
        {"policies": {name: {"win_rate_vs_reference", "rewards"}}, "reference": {"rewards"}, "sweep": {name: {"levels",
        "rewards": {objective: [mean at each level]}, "standard_errors": the same}}, "trade_offs": [...],
        "missing_rewards": {objective: {reason: number of responses}}, "n_prompts", "sampling"}. Rewards are means over
        prompts, in each reward's own unit.

    Raises:
        InputError: there are no rewards, or none can be compared.
    """
    names, objectives = engine.policy_set.names, engine.reward_set.objectives
    if not objectives:
        raise InputError(f"{engine.config.file}: rewards: found none, expected at least one to evaluate with")
    mixtures: dict[tuple[tuple[str, float], ...], list[Completion]] = {}

    def key(weights: dict[str, float]) -> tuple[tuple[str, float], ...]:
        return tuple(sorted((name, weight) for name, weight in weights.items() if weight > 0))

    sweep = {name: [against_uniform(names, name, level) for level in FADER] for name in names}
    wanted = {key(w): w for w in [{REFERENCE: 1.0}, *(w for column in sweep.values() for w in column)]}
    for index, (identity, weights) in enumerate(tqdm(wanted.items(), desc="generating", unit="mixture")):
        # Other seeds for every mixture, so that the pairs compared are independent.
        seeds = [seed + index * len(prompts) + i for i in range(len(prompts))]
        mixtures[identity] = engine.generate_batch(prompts, engine.mixture(weights), sampling, seeds)

    missing = missing_counts(made.missing_rewards for column in mixtures.values() for made in column)
    if missing:
        log.warning("rewards are missing, and left out: %s", missing_line(missing))

    def scored(weights: dict[str, float], objective: str) -> list[float]:
        """Return the reward of each prompt's response, NaN if missing."""
        return [completion.rewards.get(objective, math.nan) for completion in mixtures[key(weights)]]

    def rewards(weights: dict[str, float], objective: str) -> list[float]:
        return [value for value in scored(weights, objective) if not math.isnan(value)]

    def comparable(objective: str) -> bool:
        """Return whether each mixture has this reward for some prompt, and each policy for one of the reference's."""
        theirs = scored({REFERENCE: 1.0}, objective)
        return all(rewards(w, objective) for column in sweep.values() for w in column) and all(
            any(not math.isnan(one + other) for one, other in zip(scored({name: 1.0}, objective), theirs, strict=True))
            for name in names
        )

    objectives = [objective for objective in objectives if comparable(objective)]
    if not objectives:
        raise InputError(f"rewards: none is left to compare by: {missing_line(missing)}; mend them")
    reference = {objective: scored({REFERENCE: 1.0}, objective) for objective in objectives}
    result: dict[str, Any] = {
        "n_prompts": len(prompts),
        "sampling": sampling.as_dict(),
        "reference": {"rewards": {objective: mean(rewards({REFERENCE: 1.0}, objective)) for objective in objectives}},
        "policies": {},
        "sweep": {},
    }
    for name in names:
        own = {objective: scored({name: 1.0}, objective) for objective in objectives}
        result["policies"][name] = {
            "objective": engine.policy_set.by_name[name].objective,
            "win_rate_vs_reference": {o: win_rate(*pairs(own[o], reference[o])) for o in objectives},
            "rewards": {o: mean(rewards({name: 1.0}, o)) for o in objectives},
        }
        result["sweep"][name] = {
            "levels": list(FADER),
            "rewards": {o: [mean(rewards(w, o)) for w in sweep[name]] for o in objectives},
            "standard_errors": {o: [standard_error(rewards(w, o)) for w in sweep[name]] for o in objectives},
        }
    result["trade_offs"] = trade_offs(engine, result["sweep"])
    result["missing_rewards"] = missing
    return result


def pairs(ours: list[float], theirs: list[float]) -> tuple[list[float], list[float]]:
    """Return the elements of both lists at positions where neither is NaN."""
    both = [(one, other) for one, other in zip(ours, theirs, strict=True) if not math.isnan(one + other)]
    return [one for one, _ in both], [other for _, other in both]


def trade_offs(engine: Engine, sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cases where raising a fader from 0 to 1 lowers another objective by more than two standard errors."""
    found = []
    for name, column in sweep.items():
        for objective, means in column["rewards"].items():
            errors = column["standard_errors"][objective]
            change = means[-1] - means[0]
            if objective != engine.policy_set.by_name[name].objective and change < -2 * math.hypot(
                errors[0], errors[-1]
            ):
                found.append({"raising": name, "lowers": objective, "by": -change})
    return found
