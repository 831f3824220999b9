"""The command `python -m engine evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.options import (
    Column,
    ConfigOption,
    EngineOption,
    JsonOption,
    MaxNewTokens,
    MinP,
    Prompts,
    Seed,
    Temperature,
    app,
    check_column,
    open_engine,
)
from engine.cli.runner import print_json
from engine.config import DEMO
from engine.errors import InputError


@app.command("evaluate")
def evaluate_command(
    prompts: Prompts = None,
    column: Column = None,
    methods: Annotated[
        str | None, typer.Option(help="instead: a table of methods; all, or names of policies and methods,...")
    ] = None,
    solve_with: Annotated[int, typer.Option(help="with --methods: so many prompts, the first, find weights only")] = 24,
    limit: Annotated[int, typer.Option(help="with --methods: the most prompts after those; 0 is all")] = 0,
    judges: Annotated[
        Path | None, typer.Option(help="with --methods: a configuration whose rewards judge the responses as well")
    ] = None,
    responses: Annotated[
        Path | None, typer.Option(help="with --methods: a file that keeps every response, to resume from")
    ] = None,
    max_new_tokens: MaxNewTokens = 160,
    temperature: Temperature = 0.7,
    min_p: MinP = 0.0,
    seed: Seed = 0,
    config: ConfigOption = DEMO,
    remote: EngineOption = "",
    json: JsonOption = False,
) -> None:
    """Measure win rates of every policy against the reference, and rewards along the sweep of every fader."""
    from engine.config import load_config
    from engine.evaluation import baselines
    from engine.evaluation.response_log import Memo
    from engine.evaluation.sweep import evaluate as run
    from engine.prompts import read_prompts
    from engine.reward_kind import REWARD_KINDS
    from engine.rewards.missing import missing_line
    from engine.rewards.reward_set import RewardSet
    from engine.sampling import Sampling

    check_column(prompts, column)
    sampling = Sampling(max_new_tokens, temperature, min_p=min_p)
    if methods is None and (judges or responses):
        raise InputError("--judges and --responses are for --methods; add it, or leave them out")
    if solve_with < 1 or limit < 0:
        raise InputError(f"--solve-with must be 1 or more, and --limit 0 or more; found {solve_with} and {limit}")
    kept = Memo(responses)
    asked = read_prompts(prompts, column) if prompts else None
    second = load_config(judges).rewards if judges else []
    own = [reward.kind for reward in second if REWARD_KINDS[reward.kind].of_policy]
    if judges and (not second or own):
        found = f"one of kind '{own[0]}', which is a policy's own" if own else "none"
        raise InputError(f"{judges}: rewards: expected at least one to judge with; found {found}")
    if judges and remote:
        raise InputError("--judges needs the models on this machine; leave it or --engine out")
    kept = Memo(responses)
    with open_engine(config, remote) as engine:
        if asked is None and not engine.config.prompts:
            raise InputError(f"{config}: prompts: found nothing, expected a file; or give --prompts")
        asked = asked or read_prompts(engine.config.prompts or "")
        if methods is not None:
            first, rest = asked[:solve_with], asked[solve_with:][: limit or None]
            if not first or not rest:
                raise InputError(
                    f"--methods: {len(asked)} prompts are too few for {solve_with} to find weights with, and others "
                    "to compare on; give more prompts, or another --solve-with"
                )
            judge = RewardSet(second, engine.policy_set) if second else None
            result: Any = baselines.compare(engine, rest, first, sampling, methods, seed, judges=judge, memo=kept)
        else:
            result = run(engine, asked, sampling, seed)
    if json:
        print_json(result)
        return
    if methods is not None:
        typer.echo(baselines.win_rate_table(result))
        return
    typer.echo(f"{result['n_prompts']} prompts at temperature {temperature:g}")
    for name, policy in result["policies"].items():
        rates = "  ".join(f"{o} {rate:.0%}" for o, rate in policy["win_rate_vs_reference"].items())
        typer.echo(f"{name:<12} wins against the reference: {rates}")
    for name, sweep in result["sweep"].items():
        for objective, means in sweep["rewards"].items():
            levels = "  ".join(f"{value:+.2f}" for value in means)
            typer.echo(f"{name:<12} fader 0 to 1: {objective:<12} {levels}")
    if result["missing_rewards"]:
        typer.echo(f"rewards that are missing, and left out: {missing_line(result['missing_rewards'])}")
