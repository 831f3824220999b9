"""The bank: responses sampled once, from which F, its gradient and the expected rewards follow for every λ.

Responses come from several proposals q_m in turn: every policy, the reference, and their even mixture token by token.
With the balance heuristic a response counts for π_λ by w_i(λ) = Π_k (π_k/π_ref)^{λ_k} π_ref / Σ_m α_m q_m, so that
F̂(λ) = mean over prompts of log mean_i w_i(λ) (F: MPO, arXiv 2502.18699; the heuristic: Veach and Guibas, 1995).

A policy here is what is drawn from at the bank's temperature, softmax(logits / T), with at most so many tokens. Mixing
such policies geometrically gives what mixing first and then taking the temperature gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from engine.bank_file import BankFile, Unit, whole_rounds
from engine.bank_rewards import (
    known_rewards,
    over_prompts,
    reward_prompts,
    rewards_of,
    score_again,
    tell_missing,
    weighted,
)
from engine.batch import Record
from engine.config import REFERENCE
from engine.engine import Engine
from engine.errors import InputError
from engine.local import LocalNormaliser, fit, midpoints
from engine.mixing import Mixture
from engine.requests import Request, wait
from engine.sampling import Sampling
from engine.steps import Steps

Array = NDArray[np.float64]

STOPPED = "bank: it was stopped; what was sampled is kept, start it again to go on"
EVEN = "even"  # the proposal that mixes all policies alike
# What a bank is made of unless told: so many of the configuration's prompts, responses of each, and how they are drawn.
PROMPTS = 24
RESPONSES = 12
SAMPLING = Sampling(max_new_tokens=160, temperature=0.7)
# Where the effective sample size is below this share of the responses, or this many of a prompt's (of a few responses
# one always counts, and is a large share), figures are not to be trusted.
LOW_SHARE = 0.1
LOW_COUNT = 2.0


@dataclass(frozen=True)
class Estimate:
    """What a bank says of π_λ. For L λs at once every field has a leading axis of L.

    error is the standard error for these very prompts (of the sampling alone), as are those of the rewards.
    share: effective sample size (Σw)²/Σw² of a prompt's responses, divided by their number; the mean over prompts.
    count: the same, not divided.
    """

    objective: Array  # F̂(λ), in nats
    error: Array
    gradient: Array  # [K]
    rewards: Array  # [R], expected, in each reward's own unit
    reward_errors: Array  # [R]
    share: Array
    count: Array

    @property
    def sound(self) -> NDArray[np.bool_]:
        return (self.share >= LOW_SHARE) & (self.count >= LOW_COUNT)


@dataclass(frozen=True)
class Bank:
    """Responses to P prompts, N each.

    log_ratios [P, N, K]: log π_k(y|x) - log π_ref(y|x); log_base [P, N]: log π_ref(y|x) - log Σ_m α_m q_m(y|x);
    rewards [P, N, R], NaN where one is missing, which leaves the response out of what is said of this reward, and of
    nothing else. policy_tokens is what it cost: tokens drawn times policies computed. sources: the proposals; a
    prompt's response i comes from number i modulo their count. steps: of every token, where they were kept. local: how
    q_λ, decoded token by token, differs from π_λ; token_level: whether weights are for q_λ, see `decoding`. F and its
    gradient are always of π_λ.

    One that was drawn without the reference has 1 for its probabilities: on the simplex, where the policies' weights
    are one together, it says the same.
    """

    policies: list[str]
    objectives: list[str]
    prompts: list[str]
    log_ratios: Array
    log_base: Array
    rewards: Array
    policy_tokens: int
    sources: tuple[str, ...] = ()
    steps: Steps | None = None
    local: LocalNormaliser | None = None
    token_level: bool = False

    @property
    def decoding(self) -> Bank:
        """The bank whose rewards, effective sample size and slopes are of q_λ, which is what is decoded token by token;
        the bank as it is, of π_λ, where that cannot be known."""
        return replace(self, token_level=True) if self.local is not None else self

    @property
    def reference_only(self) -> Bank | None:
        """The bank of the reference's responses in this one, as the paper's solver takes it; None if there are none."""
        if REFERENCE not in self.sources:
            return None
        rows = slice(self.sources.index(REFERENCE), None, len(self.sources))
        return replace(
            self,
            log_ratios=self.log_ratios[:, rows],
            log_base=np.zeros_like(self.log_base[:, rows]),
            rewards=self.rewards[:, rows],
            sources=(REFERENCE,),
            steps=None,
            local=None,
            token_level=False,
        )

    def of_prompts(self, chosen: NDArray[np.int64]) -> Bank:
        """The bank of these prompts, by number; one may come more than once, as in a bootstrap."""
        return replace(
            self,
            prompts=[self.prompts[i] for i in chosen],
            log_ratios=self.log_ratios[chosen],
            log_base=self.log_base[chosen],
            rewards=self.rewards[chosen],
            steps=None,
            local=self.local and self.local.of_prompts(chosen),
        )

    @property
    def missing(self) -> dict[str, int]:
        """{objective: responses without its reward}, of the objectives that lack some."""
        counts = dict(zip(self.objectives, np.isnan(self.rewards).sum((0, 1)).tolist(), strict=True))
        return {name: count for name, count in counts.items() if count}

    def of_objectives(self, names: list[str]) -> Bank:
        """Return the bank with these objectives alone."""
        columns = [self.objectives.index(name) for name in names]
        return replace(self, objectives=names, rewards=self.rewards[..., columns])

    def holding(self, fixed: Mapping[str, float], gain: float = 1.0) -> Bank:
        """The bank of the policies that are not fixed, for solvers: at μ on their simplex it says what this one says at
        gain · λ, where λ has the fixed weights, and (1 - Σ fixed) μ for the others. Raises InputError if these are
        fewer than two, or have no weight to share.
        """
        free = [i for i, name in enumerate(self.policies) if name not in fixed]
        left = 1 - sum(fixed.values())
        if fixed and (len(free) < 2 or left < 1e-6):
            raise InputError("weights: no two policies are free to share; release a Lock, Solo or Mute")
        kept = np.array([fixed.get(name, 0.0) for name in self.policies])
        return replace(
            self,
            policies=[self.policies[i] for i in free],
            log_ratios=gain * left * self.log_ratios[..., free],
            log_base=self.log_base + gain * self.log_ratios @ kept,
            steps=None,
            local=self.local and self.local.restricted(gain * kept, gain * left * np.eye(len(self.policies))[:, free]),
        )

    def log_weights(self, weights: ArrayLike) -> Array:
        """λ [..., K] -> log w_i(λ) [..., P, N], of π_λ"""
        return np.einsum("pnk,...k->...pn", self.log_ratios, np.asarray(weights, float)) + self.log_base

    def reward_weights(self, weights: ArrayLike, log_w: Array | None = None) -> Array:
        """The same of what rewards are expected of: π_λ, or q_λ at `token_level`."""
        log_w = self.log_weights(weights) if log_w is None else log_w
        if not self.token_level or self.local is None:
            return log_w
        return log_w - self.local(np.asarray(weights, float))

    def estimate(self, weights: ArrayLike, prompts: Array | None = None) -> Estimate:
        """λ [K], or [L, K] for L at once. prompts: [P], how much each counts; all alike unless told."""
        log_w = self.log_weights(weights)
        top, count = log_w.max(-1, keepdims=True), log_w.shape[-1]
        w = np.exp(log_w - top)
        total = w.sum(-1)  # [..., P]
        own = w / total[..., None]
        mean_log = np.log(total) + top[..., 0] - np.log(count)
        by_prompt = np.full(len(self.prompts), 1.0) if prompts is None else prompts
        by_prompt = by_prompt / by_prompt.sum()
        gradient = np.einsum("...pn,pnk->...pk", own, self.log_ratios)
        relative = (own**2).sum(-1) - 1 / count
        if self.token_level:
            own = softmax(self.reward_weights(weights, log_w), -1)
        shares, known = known_rewards(self.rewards, own)
        rewards = weighted(shares, known)
        # Delta method: of log mean w, and of a ratio of two means.
        spread = weighted(shares**2, known**2)
        spread -= 2 * rewards * weighted(shares**2, known)
        spread += rewards**2 * (shares**2).sum(-2)
        counted = reward_prompts(self.rewards, by_prompt)
        effective = (1 / (own**2).sum(-1)) @ by_prompt
        return Estimate(
            objective=mean_log @ by_prompt,
            error=np.sqrt(relative.clip(0) @ by_prompt**2),
            gradient=np.einsum("...pk,p->...k", gradient, by_prompt),
            rewards=(rewards * counted).sum(-2),
            reward_errors=np.sqrt((spread.clip(0) * counted**2).sum(-2)),
            share=effective / count,
            count=effective,
        )

    def change(self, before: Array, after: Array) -> tuple[Array, Array]:
        """How much each expected reward gains from one λ [K] to another, and its standard error for these very prompts
        -> [R], [R]. Smaller than the errors of both: the same responses stand behind them."""
        residuals = []
        for weights in (before, after):
            own = softmax(self.reward_weights(weights), -1)
            shares, known = known_rewards(self.rewards, own)
            mean = weighted(shares, known)
            residuals.append((mean, shares * (known - mean[:, None])))
        (mean_before, rest_before), (mean_after, rest_after) = residuals
        spread = ((rest_after - rest_before) ** 2).sum(1)  # delta method, [P, R]
        counted = reward_prompts(self.rewards, np.full(len(self.prompts), 1 / len(self.prompts)))
        return ((mean_after - mean_before) * counted).sum(0), np.sqrt((spread * counted**2).sum(0))

    def by_prompt(self, weights: ArrayLike) -> Array:
        """λ [K] -> the expected rewards of every prompt [P, R]; NaN where a prompt has none"""
        shares, known = known_rewards(self.rewards, softmax(self.reward_weights(weights), -1))
        return np.where(np.isfinite(self.rewards).any(1), weighted(shares, known), np.nan)

    def prompt_errors(self, weights: ArrayLike) -> Array:
        """λ [K] -> standard errors over prompts [R]: of the expected rewards as those of prompts like these. They
        include the sampling's, which is all that is known with one prompt."""
        if len(self.prompts) < 2:
            return self.estimate(weights).reward_errors
        return over_prompts(self.by_prompt(weights))[1]

    def prompt_change(self, before: Array, after: Array) -> tuple[Array, Array]:
        """As `change`, but with the standard error over prompts of the paired difference."""
        if len(self.prompts) < 2:
            return self.change(before, after)
        return over_prompts(self.by_prompt(after) - self.by_prompt(before))

    def reward_slopes(self, weights: ArrayLike) -> Array:
        """λ [K] -> [R, K]: how each expected reward changes with each weight, Cov_λ(r, log π_k/π_ref), over prompts."""
        own = softmax(self.reward_weights(weights), -1)
        log_slopes = self.log_ratios
        if self.token_level and self.local is not None:
            log_slopes = log_slopes - self.local.slopes(np.asarray(weights, float))
        shares, known = known_rewards(self.rewards, own)
        counted = reward_prompts(self.rewards, np.full(len(self.prompts), 1 / len(self.prompts)))
        # Of the responses with a reward: their own mean slope is taken off.
        slopes = np.einsum("pnr,pnk->prk", np.broadcast_to(shares, known.shape), log_slopes)
        both = np.einsum("pnr,pnk->prk", shares * known, log_slopes)
        return ((both - weighted(shares, known)[..., None] * slopes) * counted[..., None]).sum(0)


def proposals(engine: Engine) -> dict[str, Mixture]:
    """What the responses are drawn from, in turn."""
    names = engine.policy_set.names
    alone = {name: engine.mixture({name: 1.0}) for name in (*names, REFERENCE)}
    return {**alone, EVEN: engine.mixture()}


def check_asked(
    engine: Engine, prompts: list[str], responses: int, sampling: Sampling | None
) -> tuple[list[str], Sampling]:
    """The prompts, each once, and the sampling, temperature 1 unless told. Raises InputError, also where the
    probabilities of what would be drawn are not those of the policies."""
    sampling = sampling or Sampling(temperature=1.0)
    if sampling.temperature == 0:
        raise InputError("temperature: found 0; a bank needs responses that differ, give more than 0, such as 1")
    if sampling != Sampling(sampling.max_new_tokens, sampling.temperature):
        raise InputError("sampling: a bank takes temperature and length alone; leave the other settings off")
    if not prompts or responses < 1:
        raise InputError("bank: it needs a prompt and a response or more")
    for prompt in prompts:
        engine.check_prompt(prompt, sampling.max_new_tokens)
    return list(dict.fromkeys(prompts)), sampling


def collect(
    engine: Engine,
    prompts: list[str],
    responses: int = 24,
    sampling: Sampling | None = None,
    seed: int = 0,
    sources: dict[str, Mixture] | None = None,
    file: BankFile | None = None,
    progress: Callable[[int, int], None] = lambda done, wanted: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Bank:
    """Sample a bank through the running batch; what `file` has of it is not sampled again.

    responses: of each prompt, rounded up to a multiple of the proposals. sources: other proposals than the usual,
    policies alone by their names or mixtures under other names; `file` must be for the same. progress(done, wanted)
    counts responses; when stopped() is true, what is finished is kept in the file, and InputError is raised.
    Raises InputError.
    """
    prompts, sampling = check_asked(engine, prompts, responses, sampling)
    sources = sources or proposals(engine)
    mixed = {name: mixture for name, mixture in sources.items() if name not in engine.policy_set.by_name}
    mixed |= {name: engine.mixture(at) for name, at in midpoints([*engine.policy_set.names, REFERENCE]).items()}
    wanted = [(prompt, number) for number in range(-(-responses // len(sources))) for prompt in prompts]

    def ask(unit: Unit, client: object) -> Asked:
        asked: Asked = {}
        for name, mixture in sources.items():
            record = Record(mixed)
            own = seed_of(seed, *unit, name)
            request = engine.submit(*(unit[0], mixture, sampling, own), rewards=False, client=client, record=record)
            asked[name] = request, record
        return asked

    # So many at once keep the batch full.
    window = max(1, 2 * engine.max_rows // (len(sources) * len(engine.policy_set.policies)))
    size = len(sources)
    found = sample(engine, wanted, ask, window, file, lambda n: progress(n * size, len(wanted) * size), stopped)
    return assemble(engine, prompts, list(sources), found)


Asked = dict[str, tuple[Request, Record]]  # {source: a response that is under way, and what is kept of it}


def sample(
    engine: Engine,
    wanted: list[Unit],
    ask: Callable[[Unit, object], Asked],
    window: int,
    file: BankFile | None,
    progress: Callable[[int], None],
    stopped: Callable[[], bool],
) -> dict[Unit, list[dict[str, Any]]]:
    """The rows of all these units, `window` of them under way together; what the file has is not sampled again.

    progress(finished units). Raises InputError when stopped() is true; what is finished is in the file.
    """
    kept = file.read() if file else {}
    found = {unit: kept[unit] for unit in wanted if unit in kept}
    score_again(engine, found, file)
    missing = [unit for unit in wanted if unit not in found]
    progress(len(found))
    client, under_way = object(), []
    try:
        for i in range(len(missing) + window):
            if i < len(missing):
                under_way.append((missing[i], ask(missing[i], client)))
            if i >= window:
                if any(wait(request, stopped) is None for request, _ in under_way[0][1].values()):
                    raise InputError(STOPPED)
                unit, asked = under_way.pop(0)
                found[unit] = finish(engine, asked)
                if file:
                    file.add(unit, found[unit])
                progress(len(found))
            if stopped():
                raise InputError(STOPPED)
    finally:
        for _, asked in under_way:
            for request, _ in asked.values():
                request.cancel()
    return {unit: found[unit] for unit in wanted}


def kept(engine: Engine, prompts: list[str], file: BankFile) -> Bank | None:
    """The bank of all rounds that the file has of every one of these prompts; None if it has no whole round."""
    prompts, sources = list(dict.fromkeys(prompts)), list(proposals(engine))
    found = file.read()
    rounds = range(whole_rounds(found, prompts))
    wanted = {(prompt, number): found[prompt, number] for number in rounds for prompt in prompts}
    return assemble(engine, prompts, sources, wanted) if wanted else None


def seed_of(*what: object) -> int:
    """A seed of its own for each response, whichever others are asked for."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:8], "big") >> 1


def finish(engine: Engine, asked: Asked) -> list[dict[str, Any]]:
    """Wait for a prompt's responses, and score them."""
    rows = []
    completions = [request.completion() for request, _ in asked.values()]
    rewards = engine.rewards([(c.prompt, c.text, c.tokens) for c in completions])
    for (name, (_, record)), c, reward in zip(asked.items(), completions, rewards, strict=True):
        row = {"proposal": name, "text": c.text, "tokens": len(c.tokens), "log_probs": record.log_probs}
        scored = {"rewards": reward, **({"missing_rewards": reward.missing} if reward.missing else {})}
        rows.append({**row, **scored, **({"steps": record.steps.as_dict()} if record.steps else {})})
    return rows


def assemble(engine: Engine, prompts: list[str], sources: list[str], found: dict[Unit, list[dict[str, Any]]]) -> Bank:
    """The arrays from the rows, as many of each source for every prompt."""
    names, objectives = engine.policy_set.names, engine.reward_set.objectives
    rows: dict[str, list[dict[str, Any]]] = {prompt: [] for prompt in prompts}
    for (prompt, _), more in found.items():
        rows[prompt] += more
    every = [rows[prompt] for prompt in prompts]

    def column(what: str, wanted: list[str]) -> Array:
        return np.array([[[row[what][name] for name in wanted] for row in some] for some in every], dtype=float)

    tell_missing(row for some in every for row in some)
    reference = column("log_probs", [REFERENCE])[..., 0]
    proposed = np.logaddexp.reduce(column("log_probs", sources), axis=-1) - np.log(len(sources))
    return Bank(
        policies=names,
        objectives=objectives,
        prompts=prompts,
        log_ratios=column("log_probs", names) - reference[..., None],
        log_base=reference - proposed,
        rewards=np.array([[rewards_of(row, objectives) for row in some] for some in every], dtype=float),
        policy_tokens=sum(row["tokens"] for some in every for row in some) * len(engine.policy_set.policies),
        sources=tuple(sources),
        local=fit(every, names, REFERENCE, EVEN),
    )
