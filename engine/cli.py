"""`python -m engine`: generate, score, solve, evaluate, bench, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.config import DEMO
from engine.console import print_json
from engine.errors import InputError
from engine.messages import Prompt, check_messages, read_messages
from engine.numbers import parse_numbers

if TYPE_CHECKING:
    from engine.weights import Solution

app = typer.Typer(
    help="Mix language-model policies.", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)

ConfigOption = Annotated[Path, typer.Option("--config", help="YAML configuration; the bundled policies unless told")]
MessagesOption = Annotated[
    str | None, typer.Option(help="instead: a JSON file, a conversation's messages (role, content); - is stdin")
]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
MaxNewTokens = Annotated[int, typer.Option(help="the most tokens of a response")]
MinP = Annotated[float, typer.Option(help="only tokens of at least p times the likeliest; 0 is off")]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token")]
Prompts = Annotated[
    Path | None,
    typer.Option(help="JSON, JSON lines, CSV, TSV, Parquet or one a line, also .gz; the configuration's unless told"),
]
Column = Annotated[
    str | None, typer.Option(help="with --prompts: the column or key that the prompts are in; prompt unless told")
]
Seed = Annotated[int, typer.Option(help="the same seed gives the same response")]


def asked(prompt: str | None, messages: str | None) -> Prompt:
    """What one of --prompt and --messages gives. Raises InputError."""
    if (prompt is None) == (messages is None):
        raise InputError("give either --prompt TEXT or --messages FILE, a JSON list of messages (- is stdin)")
    return check_messages(prompt) if messages is None else read_messages(messages)


def check_column(prompts: Path | None, column: str | None) -> None:
    if column is not None and prompts is None:
        raise InputError("--column is for --prompts; add a file of prompts, or leave it out")


@app.command()
def generate(
    prompt: Annotated[str | None, typer.Option(help="what to ask")] = None,
    messages: MessagesOption = None,
    weights: Annotated[str | None, typer.Option(help="name=number,...; all policies alike unless told")] = None,
    rule: Annotated[str, typer.Option(help="how the policies are combined")] = "geometric",
    gain: Annotated[float, typer.Option(help="0 the reference, 1 the mixture, above 1 beyond it")] = 1.0,
    exponent: Annotated[float, typer.Option(help="the power rule's p")] = 1.0,
    max_new_tokens: MaxNewTokens = 160,
    temperature: Temperature = 0.7,
    top_k: Annotated[int, typer.Option(help="only the k likeliest tokens; 0 is off")] = 0,
    top_p: Annotated[float, typer.Option(help="only the likeliest tokens that sum to p; 1 is off")] = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="above 1 makes words of the response rarer")] = 1.0,
    particles: Annotated[
        int, typer.Option(help="above 1: from the exact mixture of whole responses, by so many at once")
    ] = 1,
    seed: Seed = 0,
    date: Annotated[str, typer.Option(help="a completion's, to generate it again; now unless told")] = "",
    config: ConfigOption = DEMO,
    json: JsonOption = False,
) -> None:
    """Generate a response from a mixture of the policies, and score it."""
    chosen, said = parse_numbers(weights, "weights") if weights is not None else None, asked(prompt, messages)
    from engine.engine import Engine
    from engine.sampling import Sampling

    sampling = Sampling(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty, particles)
    with Engine.from_config(config) as engine:
        request = engine.submit(said, engine.mixture(chosen, rule, gain, exponent), sampling, seed, date=date)
        if not json:
            for token in request:
                typer.echo(token.text, nl=False)
            typer.echo()
        completion = request.completion()
        warning = engine.prompt_warning(said)
    if json:
        print_json({**completion.as_dict(), "prompt_warning": warning or None})
    else:
        if warning:
            typer.echo(f"\n{warning}", err=True)
        scores = "  ".join(f"{objective} {reward:+.2f}" for objective, reward in completion.rewards.items())
        typer.echo(f"\nrewards: {scores}", err=True)
        for objective, reason in completion.missing_rewards.items():
            typer.echo(f"no reward for {objective}: {reason}", err=True)


@app.command()
def score(
    response: Annotated[str, typer.Option(help="what was answered")],
    prompt: Annotated[str | None, typer.Option(help="what was asked")] = None,
    messages: MessagesOption = None,
    config: ConfigOption = DEMO,
    json: JsonOption = False,
) -> None:
    """Score a given response: its log-probability under every policy, and its rewards."""
    said = asked(prompt, messages)
    from engine.calibration import Calibration
    from engine.engine import Engine

    with Engine.from_config(config) as engine:
        log_probs = engine.token_log_probs(said, response)
        rewards = engine.rewards([(said, response, None)])[0]
        Calibration(engine).load()
        standard = engine.reward_set.standard(rewards)
    totals = {name: sum(values) for name, values in log_probs.items()}
    if json:
        print_json(
            {
                "log_probs": totals,
                "token_log_probs": log_probs,
                "rewards": rewards,
                "standard_rewards": standard,
                "missing_rewards": rewards.missing,
            }
        )
        return
    for name, total in totals.items():
        typer.echo(f"log-probability under {name:<12} {total:9.2f}")
    for objective, reward in rewards.items():
        z = f"{standard[objective]:+.2f} standard deviations" if objective in standard else "not calibrated"
        typer.echo(f"reward for {objective:<23} {reward:+9.2f}  ({z})")
    for objective, reason in rewards.missing.items():
        typer.echo(f"no reward for {objective}: {reason}")


@app.command()
def solve(
    method: Annotated[
        str,
        typer.Option(help="mpo: from a bank; bsmd: the paper's own; maxmin: by rewards; target, nash: see there"),
    ] = "mpo",
    prompts: Prompts = None,
    column: Column = None,
    target: Annotated[
        str | None, typer.Option(help="with method target: objective=number,...; standard deviations, as on the radar")
    ] = None,
    floor: Annotated[str | None, typer.Option(help="with method target: no less than objective=number,...")] = None,
    worth: Annotated[
        str | None,
        typer.Option(help="with method target: how much objective=number,... count, 1 unless told"),
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
    json: JsonOption = False,
) -> None:
    """Find weights that are fair to all objectives (Mixing Preference Optimization), or what people prefer (nash)."""
    import time

    from engine.weights import FROM_RATINGS, SOLVERS

    if method not in SOLVERS:
        raise InputError(f"method: no method is called '{method}'; there are {', '.join(SOLVERS)}")
    if limit < 1 or responses < 1:
        raise InputError(f"limit and responses must be 1 or more; found {limit} and {responses}")
    wanted = {"goal": ("target", target), "floors": ("floor", floor), "worth": ("worth", worth)}
    extra = {name: parse_numbers(text, what) for name, (what, text) in wanted.items() if text is not None}
    if method != "target" and extra:
        raise InputError("--target, --floor and --worth are for --method target; add it, or leave them out")
    if method in FROM_RATINGS and ratings is None:
        raise InputError(f"--method {method} needs --ratings; `python -m app export --format jsonl` writes them")
    if method not in FROM_RATINGS and ratings is not None:
        raise InputError(f"--ratings is for --method {', '.join(sorted(FROM_RATINGS))}; add it, or leave them out")
    check_column(prompts, column)
    began = time.perf_counter()
    if ratings is not None:
        solution, found = solve_ratings(method, ratings, seed, config)
    else:
        settings = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        solution, found = solve_bank(method, prompts, column, limit, responses, settings, seed, config, extra, ship)
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
            f"F {solution.objective:.3f} ± {solution.objective_error:.3f}; effective sample size {solution.share:.0%}; "
            f"{solution.policy_tokens:,} policy tokens; {seconds} s"
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


def solve_ratings(method: str, file: Path, seed: int, config: Path) -> tuple[Solution, dict[str, Any]]:
    """No model is loaded: the configuration has the policies' names."""
    from engine.config import load_config
    from engine.ratings import read_ratings
    from engine.weights import SOLVERS

    names = [policy.name for policy in load_config(config).policies]
    rated = read_ratings(file, names)
    return SOLVERS[method](names, rated, seed), {"n_ratings": len(rated)}


def solve_bank(
    method: str,
    prompts: Path | None,
    column: str | None,
    limit: int,
    responses: int,
    settings: dict[str, Any],
    seed: int,
    config: Path,
    extra: dict[str, Any],
    ship: bool,
) -> tuple[Solution, dict[str, Any]]:
    """From responses of the policies, which are sampled, or found from before."""
    from tqdm import tqdm

    from engine.bank import collect
    from engine.config import REFERENCE
    from engine.engine import Engine
    from engine.lean_bank import collect_lean
    from engine.prompts import read_prompts
    from engine.sampling import Sampling
    from engine.weights import SOLVERS
    from engine.weights.bank_files import solver_file, solver_sources
    from engine.weights.outcome import expect

    sampling = Sampling(**settings)
    asked = read_prompts(prompts, column) if prompts else None
    with Engine.from_config(config) as engine, tqdm(desc="sampling", unit="response") as bar:
        if asked is None and not engine.config.prompts:
            raise InputError(f"{config}: prompts: found nothing, expected a file; or give --prompts")
        asked = (asked or read_prompts(engine.config.prompts or ""))[:limit]
        file = solver_file(method, engine, asked, sampling, seed, responses, lean=not ship)

        def progress(done: int, wanted: int) -> None:
            bar.total = wanted
            bar.update(done - bar.n)

        solution = SOLVERS[method](engine, asked, sampling, seed, responses, file=file, progress=progress, **extra)
        if ship:
            file.ship(asked)
        found: dict[str, Any] = {"n_prompts": len(asked), "bank": str(file.path)}
        if engine.reward_set.objectives:
            # From the file, where the solver has put them: nothing is sampled again.
            if REFERENCE in file.proposals:
                bank = collect(engine, asked, responses, sampling, seed, solver_sources(method, engine), file)
            else:
                bank = collect_lean(engine, asked, responses, sampling, seed, file)
            expected = expect(engine, bank, solution.weights)
            found |= expected.as_dict() if expected else {}
    return solution, found


@app.command()
def evaluate(
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
    json: JsonOption = False,
) -> None:
    """Win rates of every policy against the reference, and the rewards along the sweep of every fader."""
    from engine import methods as table_of
    from engine.config import load_config
    from engine.engine import Engine
    from engine.evaluate import evaluate as run
    from engine.memo import Memo
    from engine.missing_rewards import missing_line
    from engine.prompts import read_prompts
    from engine.rewards import RewardSet
    from engine.sampling import Sampling

    check_column(prompts, column)
    sampling = Sampling(max_new_tokens, temperature, min_p=min_p)
    if not methods and (judges or responses):
        raise InputError("--judges and --responses are for --methods; add it, or leave them out")
    asked = read_prompts(prompts, column) if prompts else None
    second = load_config(judges).rewards if judges else []
    if judges and (not second or any(reward.kind == "implicit" for reward in second)):
        raise InputError(f"{judges}: rewards: expected at least one to judge with, and none of kind 'implicit'")
    with Engine.from_config(config) as engine:
        if asked is None and not engine.config.prompts:
            raise InputError(f"{config}: prompts: found nothing, expected a file; or give --prompts")
        asked = asked or read_prompts(engine.config.prompts or "")
        if methods:
            first, rest = asked[:solve_with], asked[solve_with:][: limit or None]
            if not first or not rest:
                raise InputError(
                    f"--methods: {len(asked)} prompts are too few for {solve_with} to find weights with, and others "
                    "to compare on; give more prompts, or another --solve-with"
                )
            judge = RewardSet(second, engine.policy_set) if second else None
            kept = Memo(responses)
            result: Any = table_of.compare(engine, rest, first, sampling, methods, seed, judges=judge, memo=kept)
        else:
            result = run(engine, asked, sampling, seed)
    if json:
        print_json(result)
        return
    if methods:
        typer.echo(table_of.table(result))
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


@app.command()
def bench(
    shape: Annotated[str, typer.Option(help="tiny, 135m or 360m: random weights of that shape")] = "135m",
    k: Annotated[int, typer.Option(help="how many policies")] = 4,
    prompt_length: Annotated[int, typer.Option(help="tokens")] = 64,
    steps: Annotated[int, typer.Option(help="of each way of decoding, after warm-up")] = 30,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "bfloat16",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")] = "auto",
    bank: Annotated[bool, typer.Option("--bank", help="instead: from a fader moved to its expected rewards")] = False,
    json: JsonOption = False,
) -> None:
    """What decoding a mixture costs beside one merged model, K forward passes, and peft's mixed batch."""
    if dtype not in ("float32", "bfloat16", "float16"):
        raise InputError(f"dtype: found '{dtype}'; give float32, bfloat16 or float16")
    from engine.bench import bench as run
    from engine.bench import bench_bank

    result = bench_bank() if bank else run(shape, k, prompt_length, steps, dtype, device)
    if json:
        print_json(result)
        return
    for name, value in result.items():
        typer.echo(f"{name:<22} {value}")


@app.command()
def fetch(
    name: Annotated[str | None, typer.Argument(help="what to fetch, or a configuration's path; a list if none")] = None,
    json: JsonOption = False,
) -> int:
    """Fetch the files of a configuration that do not ship with it into the user's cache."""
    from engine import fetch_command

    if name is None:
        fetch_command.list_all(json)
        return 0
    return fetch_command.run(name, json)
