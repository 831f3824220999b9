"""Baselines for several objectives: single policies, mixtures, and the methods that the literature compares MPO with.

Each is one function, in METHODS under its name; `compare` gives their win rates against the reference. Reweighting
methods choose among samples of π_ref; their rewards are in standard deviations of the reference's, so that the scale of
an objective has no influence.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from tqdm import tqdm

from engine.bank.calibration import calibrated
from engine.bank.collection import Array
from engine.bank.estimate import Bank
from engine.bank.objective import Objective
from engine.config import REFERENCE
from engine.errors import InputError
from engine.evaluation.paper import PAPER
from engine.evaluation.response_log import Memo
from engine.evaluation.statistics import minimum_above, rates
from engine.evaluation.sweep import wins
from engine.inference.engine import Completion, Engine
from engine.inference.finish_reason import FinishReason
from engine.models.config_fingerprint import config_fingerprint
from engine.rewards.missing import missing_counts, missing_line
from engine.rewards.reward_set import RewardSet
from engine.rules.mixture import Mixture
from engine.rules.soup import SOUP
from engine.sampling import Sampling
from engine.seeding import seed_of
from engine.solvers import bsmd, mpo
from engine.solvers import maxmin as maxmin_solver
from engine.solvers.bank_request import BankRequest
from engine.solvers.mpo import minimise
from engine.solvers.solver import Solver

log = logging.getLogger("mixdesk")

BETA = 0.5  # KL strength of the reweighting methods, in standard deviations of a reward
CHOICES = 16  # responses that the reweighting methods and best-of-n choose from; particles of the exact mixture
OPPONENTS = 4  # responses of the reference that every response meets
AT_ONCE = 32  # responses, after which they are kept in the memo


@dataclass(frozen=True)
class Answers:
    """A method's response to every prompt, and its cost in policy tokens: tokens drawn times policies computed."""

    completions: list[Completion]
    policy_tokens: int  # for all responses
    solve_tokens: int = 0  # for finding the weights
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """The inputs of all methods.

    Attributes:
        engine: the policies and rewards.
        prompts: the prompts to compare on.
        solve_prompts: the prompts to find weights with, none of which is in `prompts`.
        sampling: the sampling settings of all responses.
        seed: the seed of the comparison.
        responses: the number of responses to each solve prompt.
        memo: stores responses and judges' scores.
        judges: held-out reward models, which no policy was trained on and no method may use.
    """

    engine: Engine
    prompts: list[str]
    solve_prompts: list[str]
    sampling: Sampling
    seed: int
    responses: int
    memo: Memo = field(default_factory=Memo)
    judges: RewardSet | None = None

    def generate(self, what: str, prompts: list[str], mixture: Mixture, particles: int = 1) -> list[Completion]:
        """Return a response to each prompt, from the memo if it has them. The seeds are derived from `what`."""
        sampling = replace(self.sampling, particles=particles)
        seeds = [seed_of(self.seed, what, i, prompt) for i, prompt in enumerate(prompts)]
        settings = [self.kept_for, mixture.as_dict(), sampling.as_dict()]
        keys = [Memo.key(*settings, prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        missing = [i for i, key in enumerate(keys) if key not in self.memo]
        for start in tqdm(range(0, len(missing), AT_ONCE), desc=what, unit="batch", leave=False):
            some = missing[start : start + AT_ONCE]
            made = self.engine.generate_batch([prompts[i] for i in some], mixture, sampling, [seeds[i] for i in some])
            for i, completion in zip(some, made, strict=True):
                self.memo[keys[i]] = {"what": what, **completion.as_dict()}
        return [
            Completion(
                *(prompt, kept["text"], kept["tokens"], mixture, sampling, seed),
                finish_reason=FinishReason(kept["finish_reason"]),
                trace=[],
                rewards=kept["rewards"],
                missing_rewards=kept["missing_rewards"],
                date=kept["date"],
            )
            for prompt, seed, kept in zip(prompts, seeds, (self.memo[key] for key in keys), strict=True)
        ]

    @cached_property
    def kept_for(self) -> str:
        """A key of the configuration's fingerprint, on which the memo's responses and rewards depend."""
        return Memo.key(config_fingerprint(self.engine.config))

    def drawn(self, what: str, prompts: list[str], count: int) -> list[list[Completion]]:
        """Return `count` responses of the reference to each prompt."""
        alone = self.engine.mixture({REFERENCE: 1.0})
        every = self.generate(what, [prompt for prompt in prompts for _ in range(count)], alone)
        return [every[i : i + count] for i in range(0, len(every), count)]

    @cached_property
    def opponents(self) -> list[list[Completion]]:
        """The OPPONENTS responses of the reference to each prompt that methods are compared with."""
        return self.drawn("opponents", self.prompts, OPPONENTS)

    @cached_property
    def choices(self) -> list[list[Completion]]:
        """The CHOICES responses of the reference to each prompt that reweighting methods and best-of-n choose from."""
        return self.drawn("choices", self.prompts, CHOICES)

    def standard(self, rows: list[list[Completion]]) -> Array:
        """Return rewards [prompts, responses, R] in standard deviations from the reference's mean; NaN if missing.

        Raises:
            InputError: a reward is not calibrated.
        """
        objectives = self.engine.reward_set.objectives
        self.engine.reward_set.scale.require(objectives)
        of = self.engine.reward_set.standard

        def row_of(completion: Completion) -> list[float]:
            known = of(completion.rewards)
            return [known.get(name, np.nan) for name in objectives]

        return np.array([[row_of(completion) for completion in row] for row in rows])

    def judged(self, rows: list[list[Completion]]) -> Array:
        """Return the judges' scores [prompts, responses, J], from the memo if it has them; NaN if missing."""
        assert self.judges is not None
        every = [completion for row in rows for completion in row]
        of_judges = [self.kept_for, [settings.model_dump() for settings in self.judges.settings.values()]]
        keys = [Memo.key("judges", *of_judges, completion.prompt, completion.text) for completion in every]
        missing = [i for i, key in enumerate(keys) if key not in self.memo]
        for start in tqdm(range(0, len(missing), AT_ONCE), desc="judges", unit="batch", leave=False):
            some = missing[start : start + AT_ONCE]
            found = self.judges.score([(every[i].prompt, every[i].text, every[i].tokens) for i in some])
            for i, scores in zip(some, found, strict=True):
                self.memo[keys[i]] = dict(scores)
        objectives = self.judges.objectives
        values = np.array([[self.memo[key].get(name, np.nan) for name in objectives] for key in keys])
        return values.reshape(len(rows), -1, len(objectives))


Method = Callable[[Setting], Answers]


def mix(setting: Setting, what: str, mixture: Mixture, particles: int = 1, solve_tokens: int = 0) -> Answers:
    """Return a mixture's responses to the prompts; see `Setting.generate`. solve_tokens: cost of the weights."""
    made = setting.generate(what, setting.prompts, mixture, particles)
    # Particles differ in length: counted as if all were as long as the chosen one.
    cost = sum(len(completion.tokens) for completion in made) * len(mixture.needs) * particles
    return Answers(made, cost, solve_tokens, dict(mixture.weights))


def single(name: str) -> Method:
    """Return the method that decodes from one policy."""
    return lambda setting: mix(setting, name, setting.engine.mixture({name: 1.0}))


def uniform(setting: Setting) -> Answers:
    """Decode from the uniform mixture, token by token."""
    return mix(setting, "uniform", setting.engine.mixture())


def soup(setting: Setting) -> Answers:
    """Decode from the average of all adapters (Rewarded Soups, arXiv 2306.04488)."""
    return mix(setting, SOUP, setting.engine.mixture(rule=SOUP))


def choose(setting: Setting, what: str, weights: Array, solve_tokens: int = 0) -> Answers:
    """Draw one of the reference's responses with weights exp(Σ λ_k r_k / β), for the optimum of Σ λ_k r_k - β KL."""
    choices = setting.choices
    scores = setting.standard(choices) @ weights / BETA  # [prompts, CHOICES]
    scores = unchosen(scores)
    share = np.exp(scores - np.logaddexp.reduce(scores, -1)[:, None])
    rng = np.random.default_rng(seed_of(setting.seed, what))
    made = [row[rng.choice(len(row), p=p)] for row, p in zip(choices, share, strict=True)]
    named = dict(zip(setting.engine.reward_set.objectives, weights.tolist(), strict=True))
    return Answers(made, tokens_of(choices), solve_tokens, named)


def unchosen(scores: Array) -> Array:
    """Replace NaN in scores [prompts, responses] by -inf, or all of a prompt's scores by 0 if none is finite."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    return np.where(np.isfinite(scores).any(-1, keepdims=True), scores, 0.0)


def tokens_of(rows: list[list[Completion]]) -> int:
    """Return the total number of tokens of all responses."""
    return sum(len(completion.tokens) for row in rows for completion in row)


def morlhf(setting: Setting) -> Answers:
    """Reweight the reference's responses to the optimum of the mean reward (MORLHF, arXiv 2310.11564)."""
    size = len(setting.engine.reward_set.objectives)
    return choose(setting, "morlhf", np.full(size, 1 / size))


def maxmin_rlhf(setting: Setting) -> Answers:
    """Reweight the reference's responses to the optimum of the smallest reward (MaxMin-RLHF, arXiv 2402.08925).

    λ minimises E_x log E_{y~π_ref} exp(Σ λ_k r_k / β), the objective of a bank with rewards in place of log-ratios.
    """
    rows = setting.drawn("maxmin's weights", setting.solve_prompts, setting.responses)
    # Of a reward that is missing nothing is known: it counts as the reference's mean.
    ratios = np.nan_to_num(setting.standard(rows)) / BETA
    objectives = setting.engine.reward_set.objectives
    bank = Bank(objectives, objectives, setting.solve_prompts, ratios, np.zeros(ratios.shape[:2]), ratios, 0)
    weights, _, _ = minimise(Objective(bank))
    return choose(setting, maxmin_solver.SOLVER.name, weights, tokens_of(rows))


def best_of_n(setting: Setting) -> Answers:
    """Choose the reference's response with the highest mean of all rewards."""
    choices = setting.choices
    best = unchosen(setting.standard(choices).mean(-1)).argmax(-1)
    return Answers([row[i] for row, i in zip(choices, best, strict=True)], tokens_of(choices))


def solved(solver: Solver, particles: int = 1) -> Method:
    """Return the method that decodes with a solver's weights (MPO, arXiv 2502.18699), exactly if particles > 1."""

    def method(setting: Setting) -> Answers:
        plain = Sampling(setting.sampling.max_new_tokens, setting.sampling.temperature)
        request = BankRequest(setting.engine, setting.solve_prompts, plain, setting.seed, setting.responses)
        found = solver.find(solver.with_file(request, plain) if setting.memo.path else request)
        mixture = setting.engine.mixture(found.weights)
        return mix(setting, f"{solver.name} {particles}", mixture, particles, found.policy_tokens)

    return method


SOLVED: dict[str, Method] = {  # by weights that are fair to all objectives
    "mpo-bsmd": solved(bsmd.SOLVER),
    mpo.SOLVER.name: solved(mpo.SOLVER),
    "mpo-exact": solved(mpo.SOLVER, CHOICES),
}
METHODS: dict[str, Method] = {
    "uniform": uniform,
    SOUP: soup,
    "morlhf": morlhf,
    maxmin_solver.SOLVER.name: maxmin_rlhf,
    f"best-of-{CHOICES}": best_of_n,
    **SOLVED,
}


def chosen_methods(engine: Engine, names: str) -> dict[str, Method]:
    """Return the methods named in a comma-separated list, or all methods for 'all'. Raises InputError."""
    every = {**{name: single(name) for name in engine.policy_set.names}, **METHODS}
    wanted = list(every) if names.strip() == "all" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in every:
            raise InputError(f"methods: none is called '{name}'; there are all, {', '.join(every)}")
    return {name: every[name] for name in wanted}


def compare(
    engine: Engine,
    prompts: list[str],
    solve_prompts: list[str],
    sampling: Sampling,
    names: str = "all",
    seed: int = 0,
    responses: int = 12,
    judges: RewardSet | None = None,
    memo: Memo | None = None,
) -> dict[str, Any]:
    """Return win rates of methods against the reference on `prompts`, with 95% intervals by bootstrap over prompts.

    Every response is compared with OPPONENTS responses of the reference by the reward models.

    Args:
        engine: the policies and rewards.
        prompts: the prompts to compare on.
        solve_prompts: other prompts, to find weights with.
        sampling: the sampling settings of all responses.
        names: see `chosen_methods`.
        seed: the seed of the comparison.
        responses: the number of responses to each solve prompt.
        judges: a second set of reward models, with separate win rates.
        memo: stores every response, so that an interrupted comparison resumes.

    Returns:
        {"methods": {name: {"win_rates": {objective: [rate, low, high]}, "minimum": the same for the lowest rate,
        "judges": {"win_rates", "minimum"} if there are judges, "above": {method: [difference, low, high]} of the
        minimum, paired by prompt, for methods with solved weights, "rewards" in standard deviations, "words": mean
        length of a response, "weights", "solve_tokens", "policy_tokens", "seconds"}}, "paper", ...}.

    Raises:
        InputError: there are no rewards, a method is unknown, or a reward is missing for every prompt.
    """
    objectives = engine.reward_set.objectives
    if not objectives:
        raise InputError(f"{engine.config.file}: rewards: found none, expected at least one to evaluate with")
    methods = chosen_methods(engine, names)  # first: a mistake in the names is found before anything is sampled
    calibrated(engine, prompts=solve_prompts)
    setting = Setting(engine, prompts, solve_prompts, sampling, seed, responses, memo or Memo(), judges)
    theirs = setting.standard(setting.opponents)  # [prompts, OPPONENTS, R]
    judged_theirs = setting.judged(setting.opponents) if judges else np.zeros(0)
    found: dict[str, dict[str, Any]] = {}
    won: dict[str, Array] = {}
    for name, method in (bar := tqdm(methods.items(), unit="method")):
        bar.set_postfix_str(name)
        began = time.perf_counter()
        answers = method(setting)
        seconds = time.perf_counter() - began
        rows = [[completion] for completion in answers.completions]
        ours = setting.standard(rows)  # [prompts, 1, R]
        known = np.asarray(np.isfinite(ours).all((1, 2)) & np.isfinite(theirs).all((1, 2)))
        if not known.any():
            made = [*answers.completions, *(one for row in setting.opponents for one in row)]
            counts = missing_counts(completion.missing_rewards for completion in made)
            raise InputError(
                f"rewards: every prompt lacks one: {missing_line(counts)}; mend that reward or leave it out"
            )
        if not known.all():
            log.warning("%s: %d of %d prompts lack a reward and are left out", name, (~known).sum(), len(known))
        won[name] = np.where(known[:, None], wins(ours, theirs).mean(1), np.nan)  # [prompts, R]
        found[name] = {
            **rates(objectives, won[name][known], seed),
            "rewards": dict(zip(objectives, ours[known].mean((0, 1)).tolist(), strict=True)),
            "words": float(np.mean([len(completion.text.split()) for completion in answers.completions])),
            "weights": answers.weights,
            "solve_tokens": answers.solve_tokens,
            "policy_tokens": answers.policy_tokens,
            "seconds": round(seconds, 1),
            "n_scored": int(known.sum()),
        }
        if judges:
            judged = setting.judged(rows)
            both = np.isfinite(judged).all((1, 2)) & np.isfinite(judged_theirs).all((1, 2))
            found[name]["judges"] = rates(judges.objectives, wins(judged[both], judged_theirs[both]).mean(1), seed)
    for name in found:
        others = [other for other in found if other not in engine.policy_set.names and other not in SOLVED]
        if name in SOLVED:
            found[name]["above"] = {other: minimum_above(won[name], won[other], seed) for other in others}
    return {
        "n_prompts": len(prompts),
        "n_solve_prompts": len(solve_prompts),
        "reference": {
            "words": float(np.mean([len(one.text.split()) for row in setting.opponents for one in row])),
        },
        "sampling": sampling.as_dict(),
        "methods": found,
        "paper": PAPER,
    }


def win_rate_table(result: dict[str, Any]) -> str:
    """Return a result of `compare` as a Markdown table in percent, with a second table for judges, if any."""
    first = next(iter(result["methods"].values()))
    head = ["method", *first["win_rates"], "minimum", "policy tokens: weights", "responses", "seconds"]
    lines = [head, ["---"] * len(head)]
    for name, row in result["methods"].items():
        costs = [f"{row['solve_tokens']:,}", f"{row['policy_tokens']:,}", f"{row['seconds']:.0f}"]
        lines.append([name, *cells_of(row), *costs])
    tables = [lines]
    if "judges" in first:
        head = ["by the judges", *first["judges"]["win_rates"], "minimum"]
        rows = [[name, *cells_of(row["judges"])] for name, row in result["methods"].items()]
        tables.append([head, ["---"] * len(head), *rows])
    return "\n\n".join("\n".join("| " + " | ".join(cells) + " |" for cells in lines) for lines in tables)


def cells_of(row: dict[str, Any]) -> list[str]:
    """Return the win rates of a method and its minimum as table cells such as "53 (47 to 59)"."""
    every = [*row["win_rates"].values(), row["minimum"]]
    return [f"{100 * rate:.0f} ({100 * low:.0f} to {100 * high:.0f})" for rate, low, high in every]
