"""Reference-free banks, which find weights with few policy tokens: F needs no reference, so none is computed.

Half of the responses are drawn from the uniform mixture of the policies token by token, the other half from single
policies, balanced by tokens: a policy with short responses gets more of them. A round has one response to each prompt,
from the proposal that is due; under the balance heuristic over all proposals any assignment is unbiased. The next-token
events of every step are recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.bank.collection import UNIFORM, Array, Asked, check_asked, proposals, sample
from engine.bank.estimate import Bank
from engine.bank.missing_rewards import rewards_of, tell_missing
from engine.bank.storage import BankFile, Unit
from engine.config import REFERENCE
from engine.inference.engine import Engine
from engine.inference.request import Request
from engine.inference.sequence import Record
from engine.inference.token_events import StepRecord, gather_steps
from engine.rules.mixture import Mixture
from engine.sampling import Sampling
from engine.seeding import seed_of

Row = dict[str, Any]  # a response, as the file has it

FIRST = 2  # responses of each policy, half of them the even mixture's, before the first look at their lengths


def reference_free_proposals(engine: Engine) -> dict[str, Mixture]:
    """Return the proposals of a bank without the reference."""
    return {name: mixture for name, mixture in proposals(engine).items() if name != REFERENCE}


def plan(said: dict[str, list[int]], count: int) -> list[str]:
    """Return the proposals of the next `count` responses.

    Args:
        said: {proposal: the number of tokens of each of its responses so far}.
        count: the number of responses to plan.
    """
    alone = [name for name in said if name != UNIFORM]
    tokens = {name: float(sum(said[name])) for name in alone}
    every = [length for lengths in said.values() for length in lengths] or [1]
    means = {name: float(np.mean(said[name] or every)) for name in alone}
    done, due = sum(map(len, said.values())), []
    for number in range(done, done + count):
        name = UNIFORM if number % 2 == 0 else min(alone, key=lambda name: tokens[name])
        if name != UNIFORM:
            tokens[name] += means[name]
        due.append(name)
    return due


def collect_reference_free(
    engine: Engine,
    prompts: list[str],
    responses: int,
    sampling: Sampling | None = None,
    seed: int = 0,
    file: BankFile | None = None,
    progress: Callable[[int, int], None] = lambda done, wanted: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Bank:
    """Sample a reference-free bank with `responses` responses to each prompt.

    `file` must be for `reference_free_proposals`; the other arguments are those of `collect`. Raises InputError.
    """
    prompts, sampling = check_asked(engine, prompts, responses, sampling)
    sources = reference_free_proposals(engine)
    window = max(1, 2 * engine.max_rows // len(engine.policy_set.names))
    done = 0

    def get(due: dict[Unit, str]) -> dict[Unit, Row]:
        nonlocal done

        def ask(unit: Unit, client: object) -> Asked:
            name = due[unit]
            return {name: ask_reference_free(engine, sources, name, unit, sampling, seed, client)}

        before, wanted = done, len(prompts) * responses
        rows = sample(engine, list(due), ask, window, file, lambda n: progress(before + n, wanted), stopped)
        done += len(due)
        return {unit: row for unit, (row,) in rows.items()}

    rows = draw_rounds(list(sources), prompts, responses, get)
    return assemble_reference_free(engine.policy_set.names, engine.reward_set.objectives, prompts, rows)


def ask_reference_free(
    engine: Engine,
    sources: dict[str, Mixture],
    name: str,
    unit: Unit,
    sampling: Sampling,
    seed: int,
    client: object,
) -> tuple[Request, Record]:
    """Submit a response of a proposal, computing only the policies that the uniform mixture needs."""
    record = Record({UNIFORM: sources[UNIFORM]}, steps=StepRecord())
    own = seed_of(seed, *unit, name)
    request = engine.submit(
        *(unit[0], sources[name], sampling, own), trace=False, rewards=False, client=client, record=record
    )
    return request, record


def draw_rounds(
    sources: list[str], prompts: list[str], rounds: int, get: Callable[[dict[Unit, str]], dict[Unit, Row]]
) -> list[list[Row]]:
    """Plan and sample all rounds.

    Proposals are planned each time the number of responses has doubled. The plan depends on the responses' lengths
    alone, so that a run that resumes from a file samples the same responses.

    Args:
        sources: the names of the proposals.
        prompts: the P prompts.
        rounds: N, the number of responses to each prompt.
        get: a function that samples responses, given {unit: proposal}.

    Returns:
        The responses [P][N].
    """
    units = [unit for number in range(rounds) for unit in in_order(prompts, number)]
    found: dict[Unit, Row] = {}
    said: dict[str, list[int]] = {name: [] for name in sources}
    while len(found) < len(units):
        next_up = units[len(found) : max(2 * len(found), FIRST * (len(sources) - 1))]
        due = dict(zip(next_up, plan(said, len(next_up)), strict=True))
        found |= get(due)
        for unit, name in due.items():
            said[name].append(found[unit]["tokens"])
    return [[found[prompt, number] for number in range(rounds)] for prompt in prompts]


def in_order(prompts: list[str], number: int) -> list[Unit]:
    """Return the units of a round in order.

    With an even number of prompts every other round begins with the second prompt; otherwise each prompt would always
    get the same kind of proposal.
    """
    turned = prompts[1:] + prompts[:1] if number % 2 and len(prompts) % 2 == 0 else prompts
    return [(prompt, number) for prompt in turned]


def assemble_reference_free(names: list[str], objectives: list[str], prompts: list[str], rows: list[list[Row]]) -> Bank:
    """Return the bank of rows [P][N] of any proposals; a proposal's share is its fraction of the rows.

    Args:
        names: the K policies.
        objectives: the R rewards.
        prompts: the P prompts.
        rows: [P][N].
    """
    every = [row for some in rows for row in some]
    said = [row["proposal"] for row in every]
    shares = {name: said.count(name) / len(said) for name in (*names, UNIFORM)}
    tell_missing(every)
    shape = len(prompts), -1
    log_probs = np.array([[row["log_probs"][name] for name in (*names, UNIFORM)] for row in every])
    with np.errstate(divide="ignore"):
        proposed = np.logaddexp.reduce(log_probs + np.log(list(shares.values())), -1)

    def shaped(array: Array) -> Array:
        return array.reshape(*shape, *array.shape[1:])

    return Bank(
        policies=names,
        objectives=objectives,
        prompts=prompts,
        log_ratios=shaped(log_probs[:, :-1]),
        log_base=shaped(-proposed),
        rewards=shaped(np.array([rewards_of(row, objectives) for row in every], dtype=float)),
        policy_tokens=sum(row["tokens"] for row in every) * len(names),
        sources=tuple(shares),
        steps=gather_steps(every, names, shares),
    )
