"""The command `python -m engine solve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.runner import print_json
from engine.config import DEMO
from engine.errors import InputError
from engine.parsing import parse_numbers

if TYPE_CHECKING:
    from engine.solvers import Solution, Solver
from engine.cli.options import (
    Column,
    ConfigOption,
    EngineOption,
    JsonOption,
    MaxNewTokens,
    Prompts,
    Seed,
    app,
    check_column,
    open_engine,
)


@app.command("solve")
def solve_command(
    method: Annotated[str | None, typer.Option(help="the solver; `list` lists them, the first unless given")] = None,
    prompts: Prompts = None,
    column: Column = None,
    target: Annotated[
        str | None, typer.Option(help="with method target: objective=number,...; standard deviations, as on the radar")
    ] = None,
    floor: Annotated[str | None, typer.Option(help="with method target: no less than objective=number,...")] = None,
    worth: Annotated[
        str | None,
        typer.Option(help="with method target: how much objective=number,... count, 1 by default"),
    ] = None,
    ratings: Annotated[
        Path | None, typer.Option(help="with method nash: what `python -m app export --format jsonl` wrote")
    ] = None,
    limit: Annotated[int, typer.Option(help="the most prompts that are used, from the first on")] = 24,
    responses: Annotated[int, typer.Option(help="of each prompt")] = 12,
    max_new_tokens: MaxNewTokens = 160,
    temperature: Annotated[float, typer.Option(help="that responses are drawn at")] = 0.7,
    seed: Seed = 0,
    ship: Annotated[bool, typer.Option("--ship", help="keep the bank beside the configuration too, in banks/")] = False,
    config: ConfigOption = DEMO,
    remote: EngineOption = "",
    json: JsonOption = False,
) -> None:
    """Find weights that are fair to all objectives (Mixing Preference Optimization), or what people prefer (nash)."""
    import time

    from engine.solvers import DEFAULT_SOLVER, SOLVERS

    method = method or DEFAULT_SOLVER
    if method not in SOLVERS:
        raise InputError(f"method: no method is called '{method}'; there are {', '.join(SOLVERS)}")
    if limit < 1 or responses < 1:
        raise InputError(f"limit and responses must be 1 or more; found {limit} and {responses}")
    solver = SOLVERS[method]
    flags = {"target": target, "floor": floor, "worth": worth}
    if given := [flag for flag, text in flags.items() if text is not None and flag not in solver.options.values()]:
        takers = ", ".join(one.name for one in SOLVERS.values() if given[0] in one.options.values())
        raise InputError(f"--{given[0]} is for --method {takers}; add it, or leave it out")
    extra = {
        keyword: parse_numbers(text, flag)
        for keyword, flag in solver.options.items()
        if (text := flags.get(flag)) is not None
    }
    if solver.from_ratings and ratings is None:
        raise InputError(f"--method {method} needs --ratings; `python -m app export --format jsonl` writes them")
    if not solver.from_ratings and ratings is not None:
        takers = ", ".join(one.name for one in SOLVERS.values() if one.from_ratings)
        raise InputError(f"--ratings is for --method {takers}; add it, or leave them out")
    if remote and (ratings is not None or ship):
        raise InputError(f"--{'ship' if ship else 'ratings'} is for a configuration's files; leave it or --engine out")
    check_column(prompts, column)
    began = time.perf_counter()
    if ratings is not None:
        solution, found = solve_ratings(solver, ratings, seed, config)
    else:
        settings = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        solution, found = solve_bank(
            solver, prompts, column, limit, responses, settings, seed, config, remote, extra, ship
        )
    seconds = round(time.perf_counter() - began, 1)
    if json:
        print_json({**solution.as_dict(), **found, "seconds": seconds})
        return
    for name, weight in solution.weights.items():
        typer.echo(f"{name:<12} {weight:.3f} ± {solution.weight_errors[name]:.3f}")
    if solution.lottery:
        typer.echo(f"the mean of a lottery over {len(solution.lottery)} mixtures, within {solution.gap:.1g} of optimal")
    else:
        typer.echo(
            f"F {solution.objective:.3f} ± {solution.objective_error:.3f}; "
            f"effective sample size {solution.ess_fraction:.0%}; {solution.policy_tokens:,} policy tokens; {seconds} s"
        )
    if solution.note:
        typer.echo(solution.note, err=True)
    if "expected" in found:
        echo_expected(found)


def echo_expected(found: dict[str, Any]) -> None:
    """Print the expected reward of every objective, and the point that is better in all of them if there is one."""
    for objective, value in found["expected"].items():
        error = found["expected_errors"][objective]
        typer.echo(f"expected {objective:<12} {value:+.2f} ± {error:.2f} standard deviations from the reference")
    if (better := found["better"]) is None:
        typer.echo("no other weights are expected to be better in all objectives")
        return
    gains = ", ".join(
        f"{objective} {gain:+.2f} ± {better['errors'][objective]:.2f}" for objective, gain in better["gains"].items()
    )
    sure = "by more than twice the error" if better["significant"] else "within twice the error"
    weights = ",".join(f"{name}={weight:.3f}" for name, weight in better["weights"].items())
    typer.echo(f"expected to be better in all objectives, {sure}: {weights} ({gains})")


def solve_ratings(solver: Solver, file: Path, seed: int, config: Path) -> tuple[Solution, dict[str, Any]]:
    """Solve from a file of ratings, and return the solution and further results for JSON.

    No model is loaded; the names of the policies are read from the configuration.
    """
    from engine.config import load_config
    from engine.solvers.ratings import read_ratings

    names = [policy.name for policy in load_config(config).policies]
    rated = read_ratings(file, names)
    return solver.find(names, rated, seed), {"n_ratings": len(rated)}


def solve_bank(
    solver: Solver,
    prompts: Path | None,
    column: str | None,
    limit: int,
    responses: int,
    settings: dict[str, Any],
    seed: int,
    config: Path,
    remote: str,
    extra: dict[str, Any],
    ship: bool,
) -> tuple[Solution, dict[str, Any]]:
    """Solve from a bank, which is sampled or read from its file, and return the solution and further results for JSON.

    Args:
        solver: The solver.
        prompts: A file of prompts; the configuration's if None.
        column: The column of the prompts.
        limit: The largest number of prompts.
        responses: The number of responses to each prompt.
        settings: Fields of `Sampling`.
        seed: The seed.
        config: The configuration file.
        remote: The address of an engine, instead of a configuration; or "".
        extra: Further arguments of the solver.
        ship: Write the bank beside the configuration too.
    """
    from tqdm import tqdm

    from engine.config import REFERENCE
    from engine.prompts import read_prompts
    from engine.sampling import Sampling
    from engine.solvers.bank_request import BankRequest
    from engine.solvers.outcome import expect

    sampling = Sampling(**settings)
    asked = read_prompts(prompts, column) if prompts else None
    with open_engine(config, remote) as engine, tqdm(desc="sampling", unit="response", delay=1) as bar:
        if asked is None and not engine.config.prompts:
            raise InputError(f"{config}: prompts: found nothing, expected a file; or give --prompts")
        asked = (asked or read_prompts(engine.config.prompts or ""))[:limit]

        def progress(done: int, wanted: int) -> None:
            bar.total = wanted
            bar.update(done - bar.n)

        request = BankRequest(engine, asked, sampling, seed, responses, progress=progress)
        request = solver.with_file(request, sampling, lean=not ship)
        file = request.file
        assert file is not None
        solution = solver.find(request, **extra)
        if ship:
            file.ship(asked)
        found: dict[str, Any] = {"n_prompts": len(asked), "bank": str(file.path)}
        if engine.reward_set.objectives:
            # From the file, where the solver has put them: nothing is sampled again.
            if REFERENCE in file.proposals:
                bank = request.collect(solver.proposals(engine))
            else:
                bank = request.collect_reference_free()
            expected = expect(engine, bank, solution.weights)
            found |= expected.as_dict() if expected else {}
    return solution, found
