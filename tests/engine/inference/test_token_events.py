"""The lean bank's objective against policies whose responses are all written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from engine import Sampling
from engine.bank.collect_reference_free import (
    assemble_reference_free,
    collect_reference_free,
    draw_rounds,
    plan,
    reference_free_proposals,
)
from engine.bank.collection import UNIFORM
from engine.bank.objective import Objective
from engine.bank.storage import BankFile
from engine.inference.token_events import gather_steps
from engine.solvers.bank_request import BankRequest
from engine.solvers.mpo import mpo, solve_mpo
from tests.engine.conftest import LENGTH, PROMPTS, Small

SAMPLING = Sampling(max_new_tokens=LENGTH, temperature=1.0)


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (3, 1), (4, 0)])
def test_over_all_responses_nothing_is_left_to_chance(
    small: Callable[[int, int], Small], count: int, seed: int
) -> None:
    """Weighted by what they are drawn with, endings add up to Σ_y Π π_k^λ_k of those that end, departures to zero."""
    exact = small(count, seed).exact
    names = [f"p{i}" for i in range(count)]
    shares = dict.fromkeys(names, 0.5 / count) | {UNIFORM: 0.5}
    proposed = np.delete(exact.proposed(), -2, 0)  # [K + 1, P, Y]
    rows = [exact.row(3, y, [*names, UNIFORM]) for y in range(len(exact.lengths))]
    steps = gather_steps(rows, names, shares)
    drawn = np.exp(proposed[:, 3]).T @ list(shares.values())
    assert drawn.sum() == pytest.approx(1, abs=1e-5)
    for weights in (np.full(count, 1 / count), exact.best(), np.eye(count)[0]):
        at = steps.at(weights)
        every = np.exp(exact.log_probs[3, :, 1:] @ weights)
        assert drawn[steps.response] @ at.ending == pytest.approx(every[steps.ended].sum(), rel=2e-3)
        assert abs(drawn[steps.response] @ at.departure) < 2e-3
        assert np.abs(at.departure).max() > 0.01


def test_gradients_are_those_of_differences(small: Callable[[int, int], Small]) -> None:
    bank = small(3, 0).exact.lean([0, 1, 2, 3, 4, 5], 3, np.random.default_rng(0))
    for some in (bank, replace(bank, steps=None)):
        objective = Objective(some)
        assert 0 < objective.shrinkage <= 1
        for weights in np.random.default_rng(1).dirichlet(np.ones(3), 5):
            for prompts in (None, np.array([2.0, 0, 1, 1, 0, 2])):
                off = check_grad(lambda at: objective(at, prompts)[0], lambda at: objective(at, prompts)[1], weights)  # noqa: B023
                assert off < 1e-5


def test_policies_that_are_very_far_apart_are_counted_without_steps(small: Callable[[int, int], Small]) -> None:
    bank = small(2, 0).exact.lean([0, 1, 2], 4, np.random.default_rng(0))
    plain = Objective(replace(bank, steps=None))
    far = Objective(replace(bank, log_base=bank.log_base - 1000))  # below the smallest number
    weights = np.array([0.3, 0.7])
    assert far(weights)[0] == pytest.approx(plain(weights)[0] - 1000)
    assert far(weights)[1] == pytest.approx(plain(weights)[1])


def test_with_many_responses_it_is_the_bank_s_own(small: Callable[[int, int], Small]) -> None:
    exact = small(3, 1).exact
    bank = exact.lean(list(range(len(PROMPTS))), 600, np.random.default_rng(0))
    objective = Objective(bank)
    assert objective.shrinkage < 0.2
    for weights in (exact.best(), np.full(3, 1 / 3)):
        estimate = bank.estimate(weights)
        assert abs(estimate.objective - exact.objective(weights)) < 4 * estimate.error
        assert objective(weights)[0] == pytest.approx(exact.objective(weights), abs=0.02)


def test_of_few_responses_it_makes_more(small: Callable[[int, int], Small]) -> None:
    """The same 16 responses, with and without what they were drawn among: F at the weights found, over 40 banks."""
    exact, rng = small(4, 1).exact, np.random.default_rng(0)
    least, excess = exact.objective(exact.best()), {"whole": 0.0, "plain": 0.0}
    for _ in range(40):
        bank = exact.lean(list(range(len(PROMPTS))), 2, rng)
        for name, some in {"whole": bank, "plain": replace(bank, steps=None)}.items():
            found = np.array(list(solve_mpo(some, repeats=0).weights.values()))
            excess[name] += (exact.objective(found) - least) / 40
    assert excess["whole"] < 0.7 * excess["plain"]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_stated_error_holds_95_times_of_100(small: Callable[[int, int], Small], count: int) -> None:
    exact, rng = small(count, 1).exact, np.random.default_rng(count)
    least, held = exact.objective(exact.best()), 0
    for _ in range(100):
        found = solve_mpo(exact.lean(list(range(len(PROMPTS))), 24, rng), repeats=20)
        held += abs(found.objective - least) < 1.96 * found.objective_error
    assert held >= 88  # 95 are expected, 88 is three standard deviations below


def test_a_lean_bank_of_real_samples(small: Callable[[int, int], Small], tmp_path) -> None:
    """Drawn in the running batch: without the reference, resumed from its file, as the tables have them."""
    engine, exact = small(3, 0).engine, small(3, 0).exact
    file = BankFile(engine.config, SAMPLING, reference_free_proposals(engine), folder=tmp_path)
    bank = collect_reference_free(engine, PROMPTS, 60, SAMPLING, file=file)
    rows = [row for some in file.read().values() for row in some]
    assert bank.policy_tokens == sum(row["tokens"] for row in rows) * 3
    assert all(set(row["log_probs"]) == {"p0", "p1", "p2", UNIFORM} for row in rows)
    said = [row["proposal"] for row in rows]
    assert said.count(UNIFORM) == len(rows) / 2
    tokens = [sum(row["tokens"] for row in rows if row["proposal"] == name) for name in ("p0", "p1", "p2")]
    assert max(tokens) - min(tokens) < 0.1 * max(tokens)
    # A row's record is what the tables say of the same response.
    place = {text: i for i, text in enumerate(exact.texts)}
    for (prompt, _), (row,) in list(file.read().items())[:20]:
        steps = gather_steps([row], ["p0", "p1", "p2"], {"p0": 1.0, UNIFORM: 1.0})
        table = exact.row(PROMPTS.index(prompt), place[row["text"]], ["p0", "p1", "p2", UNIFORM])
        other = gather_steps([table], ["p0", "p1", "p2"], {"p0": 1.0, UNIFORM: 1.0})
        assert steps.before == pytest.approx(other.before, abs=1e-3)
        assert steps.log_drawn == pytest.approx(other.log_drawn, abs=0.02)
        assert np.sort(steps.events, 1)[:, -3:] == pytest.approx(np.sort(other.events, 1)[:, -3:], abs=0.02)
    weights = exact.best()
    assert Objective(bank)(weights)[0] == pytest.approx(exact.objective(weights), abs=0.1)
    seen: list[int] = []
    again = collect_reference_free(
        engine, PROMPTS, 60, SAMPLING, file=file, progress=lambda done, wanted: seen.append(done)
    )
    assert seen[0] > 0  # from the file
    assert len(file.read()) == len(rows)
    assert np.array_equal(again.log_ratios, bank.log_ratios)


def test_what_is_due_is_half_the_even_mixture_and_as_many_tokens_of_each_policy() -> None:
    said: dict[str, list[int]] = {"long": [], "short": [], UNIFORM: []}
    lengths = {"long": 90, "short": 30, UNIFORM: 60}
    for _ in range(20):
        for name in plan(said, 8):
            said[name].append(lengths[name])
    assert len(said[UNIFORM]) == 80
    assert len(said["short"]) == pytest.approx(60, abs=3)
    assert len(said["long"]) == pytest.approx(20, abs=3)


def test_each_prompt_meets_both_kinds_of_proposal() -> None:
    rows = draw_rounds(
        ["a", "b", UNIFORM], list("wxyz"), 4,
        lambda due: {unit: {"tokens": 5, "proposal": name} for unit, name in due.items()},
    )  # fmt: skip
    assert all(sum(row["proposal"] == UNIFORM for row in some) == 2 for some in rows)


def test_one_policy_alone_and_one_prompt(small: Callable[[int, int], Small]) -> None:
    alone = mpo(BankRequest(small(1, 0).engine, PROMPTS[:2], SAMPLING, responses=4))
    assert alone.weights == {"p0": 1.0}
    assert alone.objective == pytest.approx(0, abs=1e-3)
    exact = small(2, 0).exact
    bank = exact.lean([0], 2, np.random.default_rng(0))
    assert sum(solve_mpo(bank, repeats=5).weights.values()) == pytest.approx(1)
    engine = small(2, 0).engine
    solution = mpo(BankRequest(engine, PROMPTS[:1], SAMPLING, responses=4))
    assert sum(solution.weights.values()) == pytest.approx(1)
    rows = [{**exact.row(0, 5, ["p0", "p1", UNIFORM]), "proposal": "p0"}]
    assert assemble_reference_free(["p0", "p1"], ["short", "first"], ["a"], [rows]).steps is not None
