"""The command `python -m engine generate`."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.options import (
    ConfigOption,
    EngineOption,
    JsonOption,
    MaxNewTokens,
    MessagesOption,
    MinP,
    Seed,
    Temperature,
    app,
    open_engine,
    prompt_of,
)
from engine.cli.runner import print_json
from engine.config import DEMO
from engine.parsing import parse_numbers


@app.command()
def generate(
    prompt: Annotated[str | None, typer.Option(help="what to ask")] = None,
    messages: MessagesOption = None,
    weights: Annotated[str | None, typer.Option(help="name=number,...; all policies alike by default")] = None,
    rule: Annotated[
        str | None, typer.Option(help="how the policies are combined; `list` lists the rules, the first unless given")
    ] = None,
    gain: Annotated[float, typer.Option(help="0 the reference, 1 the mixture, above 1 beyond it")] = 1.0,
    exponent: Annotated[float, typer.Option(help="the power rule's p")] = 1.0,
    max_new_tokens: MaxNewTokens = 160,
    temperature: Temperature = 0.7,
    top_k: Annotated[int, typer.Option(help="only the k likeliest tokens; 0 is off")] = 0,
    top_p: Annotated[float, typer.Option(help="only the likeliest tokens that sum to p; 1 is off")] = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="above 1 makes words of the response rarer")] = 1.0,
    stop: Annotated[
        list[str] | None, typer.Option(help="end the response before this text; may be given several times")
    ] = None,
    particles: Annotated[
        int, typer.Option(help="above 1: from the exact mixture of whole responses, by so many at once")
    ] = 1,
    seed: Seed = 0,
    date: Annotated[str, typer.Option(help="the date of a completion to generate again; today by default")] = "",
    config: ConfigOption = DEMO,
    remote: EngineOption = "",
    json: JsonOption = False,
) -> None:
    """Generate a response from a mixture of the policies, and score it."""
    chosen, said = parse_numbers(weights, "weights") if weights is not None else None, prompt_of(prompt, messages)
    from engine.rules.registry import DEFAULT_RULE
    from engine.sampling import Sampling

    sampling = Sampling(
        max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty, particles, tuple(stop or ())
    )
    with open_engine(config, remote) as engine:
        request = engine.submit(
            said, engine.mixture(chosen, rule or DEFAULT_RULE, gain, exponent), sampling, seed, date=date
        )
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
