"""The bank: responses sampled once, from which F, its gradient and the expected rewards are estimated at any λ.

Responses are drawn from several proposals q_m in turn: every policy, the reference, and the policies' uniform mixture
token by token. With the balance heuristic, the importance weight of a response for π_λ is
w_i(λ) = Π_k (π_k/π_ref)^{λ_k} π_ref / Σ_m α_m q_m, and F̂(λ) = mean over prompts of log mean_i w_i(λ)
(F: MPO, arXiv 2502.18699; the heuristic: Veach and Guibas, 1995).

A policy here means its distribution at the bank's temperature, softmax(logits / T), cut off at the maximum length.
Mixing such policies geometrically is the same as mixing first and then applying the temperature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bank.estimate import Bank
from engine.bank.local_normaliser import fit_normaliser, midpoints
from engine.bank.missing_rewards import (
    rewards_of,
    score_again,
    tell_missing,
)
from engine.bank.storage import BankFile, Unit, whole_rounds
from engine.config import REFERENCE
from engine.errors import InputError
from engine.inference.engine import Engine
from engine.inference.request import Request, wait
from engine.inference.sequence import Record
from engine.rules.mixture import Mixture
from engine.sampling import Sampling
from engine.seeding import seed_of

Array = NDArray[np.float64]

STOPPED = "bank: stopped; the sampled responses are kept, start it again to continue"
UNIFORM = "even"  # the proposal that mixes all policies alike
# What a bank is made of by default: so many of the configuration's prompts, responses of each, and how they are drawn.
PROMPTS = 24
RESPONSES = 12
SAMPLING = Sampling(max_new_tokens=160, temperature=0.7)


def proposals(engine: Engine) -> dict[str, Mixture]:
    """Return the proposals that responses are drawn from: every policy, the reference, and their uniform mixture.

    The uniform mixture is of the policies without the reference.
    """
    names = engine.policy_set.names
    alone = {name: engine.mixture({name: 1.0}) for name in (*names, REFERENCE)}
    return {**alone, UNIFORM: engine.mixture()}


def check_asked(
    engine: Engine, prompts: list[str], responses: int, sampling: Sampling | None
) -> tuple[list[str], Sampling]:
    """Return the distinct prompts and the sampling, with temperature 1 if it is None.

    Raises:
        InputError: there is no prompt or no response to sample, a prompt does not fit the models, the temperature is
            0, or the sampling has settings besides length and temperature, under which draws would not follow the
            policies' probabilities.
    """
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
    """Sample a bank through the running batch, reusing the responses that `file` has.

    Args:
        engine: the policies and rewards.
        prompts: the prompts; duplicates are dropped.
        responses: the number of responses to each prompt, rounded up to a multiple of the number of proposals.
        sampling: length and temperature; temperature 1 if None.
        seed: of the responses.
        sources: the proposals, those of `proposals` if None: single policies by their names, or mixtures under other
            names. `file` must be for the same.
        file: the bank file to read and extend.
        progress: called with the number of responses so far and in total.
        stopped: sampling is aborted when it returns true; finished responses are kept in the file.

    Raises:
        InputError: the arguments are not valid, or sampling was stopped.
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
    """Return the rows of all wanted units, sampling those that the file lacks.

    Args:
        engine: the engine.
        wanted: the units, in the order in which to sample them.
        ask: a function (unit, client) that submits the responses of a unit.
        window: the number of units to sample concurrently.
        file: the bank file to read and extend.
        progress: called with the number of finished units.
        stopped: sampling is aborted when it returns true; finished units are kept in the file.

    Raises:
        InputError: sampling was stopped.
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
    """Return the bank of the rounds that a file has for all of these prompts; None if it has no whole round."""
    prompts, sources = list(dict.fromkeys(prompts)), list(proposals(engine))
    found = file.read()
    rounds = range(whole_rounds(found, prompts))
    wanted = {(prompt, number): found[prompt, number] for number in rounds for prompt in prompts}
    return assemble(engine, prompts, sources, wanted) if wanted else None


def finish(engine: Engine, asked: Asked) -> list[dict[str, Any]]:
    """Wait for the responses of a unit, compute their rewards, and return them as rows for the file."""
    rows = []
    completions = [request.completion() for request, _ in asked.values()]
    rewards = engine.rewards([(c.prompt, c.text, c.tokens) for c in completions])
    for (name, (_, record)), c, reward in zip(asked.items(), completions, rewards, strict=True):
        row = {"proposal": name, "text": c.text, "tokens": len(c.tokens), "log_probs": record.log_probs}
        scored = {"rewards": reward, **({"missing_rewards": reward.missing} if reward.missing else {})}
        rows.append({**row, **scored, **({"steps": record.steps.as_dict()} if record.steps else {})})
    return rows


def assemble(engine: Engine, prompts: list[str], sources: list[str], found: dict[Unit, list[dict[str, Any]]]) -> Bank:
    """Return the bank of rows with equally many responses of each proposal for every prompt.

    Args:
        engine: the engine.
        prompts: the prompts.
        sources: the names of the proposals.
        found: {unit: its rows}.
    """
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
        local=fit_normaliser(every, names, REFERENCE, UNIFORM),
    )
