"""What weights cost: error against policy tokens, for the bank's solver and the paper's. docs/mpo.json, docs/mpo.png.

    python -m tests.bench.solvers [--part tiny|bundled]

tiny: random policies whose responses can all be written out, so that F and its minimum are known. bundled: the policies
that ship; the truth is what all that was sampled says together. Policy tokens are tokens drawn times policies computed
(K, and the reference). Errors are root mean squares over repeats, in nats: of the objective that a solver states,
|F̂ - F(λ*)|, and the excess F(λ̂) - F(λ*) at the weights that it found. mpo draws a lean bank, as the command line does;
desk is the same solver on a bank of all proposals, as the desk has it, and reference on bsmd's responses. bsmd gets, at
every budget and for each error, the batch and the step size that turn out best; bsmd-set has those of the command line;
mpo has nothing to choose.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import plotly.graph_objects as go
import typer
from plotly.subplots import make_subplots

from engine import Engine, Sampling
from engine.bank.collect_reference_free import (
    Row,
    ask_reference_free,
    assemble_reference_free,
    draw_rounds,
    reference_free_proposals,
)
from engine.bank.collection import UNIFORM, Array, Asked, collect, proposals, sample
from engine.bank.estimate import Bank
from engine.bank.objective import Objective
from engine.bank.storage import BankFile, Unit
from engine.config import REFERENCE
from engine.prompts import read_prompts
from engine.solvers.bsmd import descend
from engine.solvers.mpo import minimise
from tests.bench.growth import screenshot
from tests.engine.conftest import Exact, enumerate_all, make

DOCS = Path(__file__).resolve().parents[2] / "docs"
GOALS = (0.1, 0.05, 0.02, 0.01, 0.005)  # nats
ERRORS = {"error": "error of the F that is stated", "excess": "excess of F at the weights found"}
SOLVERS = {  # colour, and what it is
    "mpo": ("#0072b2", "mpo: a lean bank"),
    "desk": ("#56b4e9", "the same solver on the desk's bank, of all proposals"),
    "reference": ("#009e73", "the same solver on the reference's responses"),
    "bsmd": ("#d55e00", "bsmd: the paper's, best batch and step size in hindsight"),
    "bsmd-set": ("#e69f00", "bsmd as it is set: batch 8, rate 1"),
}
ARRAYS = ("log_ratios", "log_base", "rewards")  # of a bank
BATCHES, RATES = (4, 16, 64, 256, 1024), (0.1, 0.3, 1.0, 3.0, 10.0)
AS_SET = (8, 1.0)  # batch and rate of `solve --method bsmd`
REPEATS = 40
MORE = 25  # times as many, of small bundled lean banks, which differ much; of the others a fifth of it

POLICIES, SEEDS = (2, 3, 4), (0, 1)
# Budgets: to how many prompts, chosen anew each time, and how many rounds, of a response of every proposal to each.
TINY_ROUNDS = [*((prompts, 1) for prompts in (1, 2, 4)), *((8, rounds) for rounds in (1, 2, 4, 8, 16, 32, 64, 128))]
TINY_LEAN = [(2, 1), (4, 1), *((8, rounds) for rounds in (1, 2, 4, 8, 16, 32, 64, 128, 256))]
TINY_REFERENCE = [(8, responses) for responses in (1, 4, 16, 64, 256, 1024, 4096, 16384)]

PROMPTS, SAMPLING = 24, Sampling(max_new_tokens=160, temperature=0.7)
POOL, REFERENCE_POOL = 96, 96  # responses to every prompt
LEAN_POOL = {"even": 32, "alone": 20}  # and for lean banks, of the even mixture and of every policy
BUNDLED_LEAN = [(8, 1), (10, 1), (12, 1), (16, 1), *((PROMPTS, rounds) for rounds in (1, 2, 4, 8, 16, 24))]
# Being part of the truth, subsets of these have errors that look too small, by 13% for the largest: a fourth of all.
BUNDLED_ROUNDS = [*((prompts, 1) for prompts in (2, 4, 8, 16)), *((PROMPTS, rounds) for rounds in (1, 2, 4, 8))]
# The last three are more than there are: drawn with replacement, from the pool as if it were all that the reference can
# say.
BUNDLED_REFERENCE = [(PROMPTS, responses) for responses in (2, 4, 8, 16, 32, 48, 192, 768, 1536)]


Budget = tuple[int, int]


@dataclass(frozen=True)
class Problem:
    """draw(lean, usual or reference, budget, rng): a bank; objective(λ): the true F; least: its minimum."""

    draw: Callable[[str, Budget, np.random.Generator], Bank]
    objective: Callable[[Array], float]
    least: float


def found_by(solver: str, bank: Bank, rng: np.random.Generator) -> dict[str, Array]:
    """{setting: weights}; one who has nothing to choose has one setting."""
    prompts = np.arange(len(bank.prompts))
    if solver == "bsmd-set":
        return {"": descend(bank, prompts, *AS_SET, np.random.default_rng(0))[0]}
    if solver != "bsmd":
        return {"": minimise(Objective(bank))[0]}
    settings = [(batch, rate) for batch in BATCHES for rate in RATES]
    return {f"batch {b}, rate {r:g}": descend(bank, prompts, b, r, rng)[0] for b, r in settings}


def compare(
    problem: Problem, budgets: dict[str, list[Budget]], rng: np.random.Generator, more: int = 1
) -> list[dict[str, Any]]:
    """A row for each solver, setting and budget: mean policy tokens, mean squares of both errors."""
    rows: dict[tuple[str, str, Budget], list[tuple[float, float, float]]] = {}
    every = {"lean": ["mpo"], "usual": ["desk"], "reference": ["reference", "bsmd", "bsmd-set"]}
    for source, solvers in every.items():
        for budget in budgets[source]:
            times = 1 if source != "lean" else more if budget[1] == 1 else max(1, more // 5)
            for _ in range(REPEATS * times):
                bank = problem.draw(source, budget, rng)
                objective = Objective(bank)
                for solver in solvers:
                    for setting, weights in found_by(solver, bank, rng).items():
                        stated = -problem.least
                        stated += float(bank.estimate(weights).objective) if "bsmd" in solver else objective(weights)[0]
                        excess = problem.objective(weights) - problem.least
                        rows.setdefault((solver, setting, budget), []).append(
                            (bank.policy_tokens, stated**2, excess**2)
                        )
    return [
        {"solver": solver, "setting": setting, "prompts": prompts, "rounds": rounds}
        | dict(zip(("policy_tokens", *ERRORS), np.mean(some, 0).tolist(), strict=True))
        for (solver, setting, (prompts, rounds)), some in rows.items()
    ]


def best_settings(problems: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Root mean squares over problems; of every solver and budget the best setting of each error, in hindsight."""
    pooled = []
    for same in zip(*problems, strict=True):
        means = {key: float(np.mean([row[key] for row in same])) for key in ("policy_tokens", *ERRORS)}
        pooled.append({**same[0], **means})
    rows = []
    same_line = ("solver", "prompts", "rounds")
    for values in dict.fromkeys(tuple(row[key] for key in same_line) for row in pooled):
        some = [row for row in pooled if tuple(row[key] for key in same_line) == values]
        line: dict[str, Any] = {**dict(zip(same_line, values, strict=True)), "policy_tokens": some[0]["policy_tokens"]}
        for key in ERRORS:
            best = min(some, key=lambda row, key=key: row[key])
            line |= {key: best[key] ** 0.5, f"{key}_setting": best["setting"]}
        rows.append(line)
    return rows


def needed(rows: list[dict[str, Any]], solver: str, key: str, goal: float) -> tuple[str, float]:
    """Policy tokens until the error falls to the goal, by a line between the points in logarithms: ("", tokens).
    ("≤", the smallest budget) where that does it; (">", the largest) where none does."""
    points = [(row["policy_tokens"], row[key]) for row in rows if row["solver"] == solver]
    if points[0][1] <= goal:
        return "≤", points[0][0]
    for (tokens, error), (more, less) in pairwise(points):
        if less <= goal:
            share = np.log(error / goal) / np.log(error / less)
            return "", float(np.exp(np.log(tokens) + share * np.log(more / tokens)))
    return ">", points[-1][0]


def ratio(cheap: tuple[str, float], dear: tuple[str, float]) -> str | None:
    """dear ÷ cheap, with the bound that it is; None where the bounds say nothing."""
    bounds = {
        ("", ""): "",
        ("≤", ""): "≥",
        ("", ">"): ">",
        ("≤", ">"): ">",
        ("", "≤"): "≤",
        (">", ""): "<",
        (">", "≤"): "<",
    }
    bound = bounds.get((cheap[0], dear[0]))
    return None if bound is None else f"{bound} {float(f'{dear[1] / cheap[1]:.2g}'):g}".strip()


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Policy tokens that every solver needs for every goal, and bsmd's ÷ mpo's, at its best and as it is set."""
    lines = []
    for key in ERRORS:
        for goal in GOALS:
            tokens = {solver: needed(rows, solver, key, goal) for solver in SOLVERS}
            said = {
                solver: f"{bound} {float(f'{value:.3g}'):,.0f}".strip() for solver, (bound, value) in tokens.items()
            }
            ratios = {f"{name} ÷ mpo": ratio(tokens["mpo"], tokens[name]) for name in ("bsmd", "bsmd-set")}
            lines.append({"what": key, "goal": goal, **said, **ratios})
    return lines


def tiny(policies: int) -> dict[str, Any]:
    problems, even = [], []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder, Engine.from_config(make(Path(folder), policies, seed)) as engine:
            exact = enumerate_all(engine)
        problem = of_tables(exact)
        even.append(problem.objective(np.full(policies, 1 / policies)) - problem.least)
        budgets = {"lean": TINY_LEAN, "usual": TINY_ROUNDS, "reference": TINY_REFERENCE}
        problems.append(compare(problem, budgets, np.random.default_rng(seed)))
    rows = best_settings(problems)
    return {
        "name": f"{policies} random policies",
        "seeds": len(SEEDS),
        "repeats": REPEATS,
        "even_excess": float(np.sqrt(np.mean(np.square(even)))),
        "rows": rows,
    }


def of_tables(exact: Exact) -> Problem:
    proposed = exact.proposed()
    sources = {"usual": proposed, "reference": proposed[-2:-1]}

    def draw(source: str, budget: Budget, rng: np.random.Generator) -> Bank:
        if source == "lean":
            return exact.lean(rng.permutation(len(exact.log_probs))[: budget[0]].tolist(), budget[1], rng)
        return part(exact.draw(sources[source], budget[1], rng), budget[0], rng)

    return Problem(
        draw,
        exact.objective,
        exact.objective(exact.best()),
    )


def part(bank: Bank, prompts: int, rng: np.random.Generator) -> Bank:
    """The bank of so many of its prompts, and what they cost on average."""
    every = len(bank.prompts)
    chosen = rng.permutation(every)[:prompts]
    return replace(bank.of_prompts(chosen), policy_tokens=round(bank.policy_tokens * prompts / every))


def bundled() -> dict[str, Any]:
    """On the bundled policies: both pools are sampled once, and found again."""
    with Engine.from_config() as engine:
        asked = read_prompts(engine.config.prompts or "")[:PROMPTS]
        usual = proposals(engine)
        sources = {"usual": usual, "reference": {REFERENCE: usual[REFERENCE]}}
        pools = {}
        for name, count in (("usual", POOL), ("reference", REFERENCE_POOL)):
            file = BankFile(engine.config, SAMPLING, sources[name])
            pools[name] = collect(engine, asked, count, SAMPLING, sources=sources[name], file=file)
        names, objectives = engine.policy_set.names, engine.reward_set.objectives
        lean = lean_pool(engine, asked)
    # A prompt's mean weight is an unbiased estimate of its normaliser in either pool, and so in both together.
    pool = replace(
        pools["usual"],
        **{key: np.concatenate([getattr(one, key) for one in pools.values()], 1) for key in ARRAYS},
        policy_tokens=sum(one.policy_tokens for one in pools.values()),
    )
    # The lean pool is no part of the truth.
    best, gap, _ = minimise(Objective(pool))
    truth = pool.estimate(best)

    def draw(name: str, budget: Budget, rng: np.random.Generator) -> Bank:
        """So many rounds of each prompt's, others for each prompt, none twice where there are enough."""
        prompts, rounds = budget
        if name == "lean":
            return lean_part(
                lean, names, objectives, [asked[i] for i in rng.permutation(PROMPTS)[:prompts]], rounds, rng
            )
        size, turn = pools[name].log_base.shape[1], len(sources[name])
        order = rng.permuted(np.tile(np.arange(size // turn), (PROMPTS, 1)), axis=1)[:, :rounds]
        if rounds > order.shape[1]:
            order = rng.integers(size // turn, size=(PROMPTS, rounds))
        at = (order[..., None] * turn + np.arange(turn)).reshape(PROMPTS, -1)
        rows = np.arange(PROMPTS)[:, None]
        some = {key: getattr(pools[name], key)[rows, at] for key in ARRAYS}
        bank = replace(pools[name], **some, policy_tokens=round(pools[name].policy_tokens * at.shape[1] / size))
        return part(bank, prompts, rng)

    problem = Problem(draw, lambda weights: float(pool.estimate(weights).objective), float(truth.objective))
    budgets = {"lean": BUNDLED_LEAN, "usual": BUNDLED_ROUNDS, "reference": BUNDLED_REFERENCE}
    rows = best_settings([compare(problem, budgets, np.random.default_rng(0), MORE)])
    even = np.full(len(best), 1 / len(best))
    return {
        "name": "the bundled policies",
        "prompts": PROMPTS,
        "repeats": REPEATS,
        "truth": {
            "objective": problem.least,
            "standard_error": float(truth.error),
            "shares": {name: float(one.estimate(best).ess_fraction) for name, one in pools.items()},
            "stated_by_each": {name: float(one.estimate(best).objective) for name, one in pools.items()},
            "gap": gap,
            "weights": dict(zip(pool.policies, best.tolist(), strict=True)),
            "responses": pool.log_base.shape[1],
            "policy_tokens": pool.policy_tokens,
        },
        "even_excess": problem.objective(even) - problem.least,
        "rows": rows,
    }


def lean_pool(engine: Engine, asked: list[str]) -> dict[str, dict[str, list[Row]]]:
    """{proposal: {prompt: responses}}, for lean banks to be drawn from."""
    sources, pool = reference_free_proposals(engine), {}
    for name, mixture in sources.items():
        count = LEAN_POOL["even" if name == UNIFORM else "alone"]
        wanted = [(prompt, number) for number in range(count) for prompt in asked]

        def ask(unit: Unit, client: object, name: str = name) -> Asked:
            return {name: ask_reference_free(engine, sources, name, unit, SAMPLING, 0, client)}

        rows = sample(
            *(engine, wanted, ask, 64, BankFile(engine.config, SAMPLING, {name: mixture})),
            progress=lambda done: None,
            stopped=lambda: False,
        )
        pool[name] = {prompt: [rows[prompt, number][0] for number in range(count)] for prompt in asked}
    return pool


def lean_part(
    pool: dict[str, dict[str, list[Row]]],
    names: list[str],
    objectives: list[str],
    prompts: list[str],
    rounds: int,
    rng: np.random.Generator,
) -> Bank:
    """The lean bank of these prompts, none of a pool's responses twice."""
    order = {(name, p): rng.permutation(len(rows)).tolist() for name, of in pool.items() for p, rows in of.items()}

    def get(due: dict[Unit, str]) -> dict[Unit, Row]:
        return {unit: pool[name][unit[0]][order[name, unit[0]].pop()] for unit, name in due.items()}

    return assemble_reference_free(names, objectives, prompts, draw_rounds(list(pool), prompts, rounds, get))


def draw_figure(results: list[dict[str, Any]], path: Path) -> None:
    """A column for each result, a row for each error."""
    titles = [f"{result['name']}: {meaning}" for meaning in ERRORS.values() for result in results]
    figure = make_subplots(rows=2, cols=len(results), subplot_titles=titles, vertical_spacing=0.12)
    for column, result in enumerate(results, 1):
        for row, key in enumerate(ERRORS, 1):
            for solver, (colour, meaning) in SOLVERS.items():
                some = [line for line in result["rows"] if line["solver"] == solver]
                trace = go.Scatter(
                    x=[line["policy_tokens"] for line in some],
                    y=[line[key] for line in some],
                    name=meaning,
                    mode="lines+markers",
                    line={"color": colour, "width": 3},
                    showlegend=row == column == 1,
                )
                figure.add_trace(trace, row, column)
    # One tick a power of ten, and more where there are few of them.
    figure.update_xaxes(type="log", title="policy tokens", dtick=1, tickformat="~s")
    figure.update_yaxes(type="log", title="root mean square, nats", dtick=1, tickformat="~g")
    figure.update_xaxes(dtick="D2", col=len(results))
    figure.update_yaxes(dtick="D2", row=1, col=len(results))
    figure.update_annotations(font={"size": 13})
    figure.update_layout(
        template="plotly_white", width=560 * len(results), height=860, margin={"l": 70, "r": 20, "t": 50, "b": 60},
        legend={"orientation": "h", "y": -0.09},
    )  # fmt: skip
    screenshot(figure, path, ".scatter")


def print_table(result: dict[str, Any]) -> None:
    print(f"\n{result['name']}; even weights: an excess of {result['even_excess']:.4f}\n")
    print("| " + " | ".join(["", *list(result["needed"][0])[1:]]) + " |")
    print("| " + " | ".join(["---"] * len(result["needed"][0])) + " |")
    for line in result["needed"]:
        print("| " + " | ".join("-" if value is None else str(value) for value in line.values()) + " |")


def main(part: Annotated[str | None, typer.Option(help="tiny or bundled; both by default")] = None) -> None:
    made: dict[str, Any] = {}
    if part in (None, "tiny"):
        made["tiny"] = [tiny(policies) for policies in POLICIES]
    if part in (None, "bundled"):
        made["bundled"] = bundled()
    if not made:
        raise typer.BadParameter("give tiny or bundled", param_hint="--part")
    file = DOCS / "mpo.json"
    found = {**(json.loads(file.read_text()) if file.is_file() else {}), **made}
    results = [*found.get("tiny", []), *([found["bundled"]] if "bundled" in found else [])]
    for result in results:
        result["needed"] = table(result["rows"])
        print_table(result)
    file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    shown = [result for result in results if result["name"] in ("3 random policies", "the bundled policies")]
    draw_figure(shown, DOCS / "mpo.png")


if __name__ == "__main__":
    typer.run(main)
