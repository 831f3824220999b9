"""The command `python -m engine score`."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.options import ConfigOption, EngineOption, JsonOption, MessagesOption, app, open_engine, prompt_of
from engine.cli.runner import print_json
from engine.config import DEMO


@app.command()
def score(
    response: Annotated[str, typer.Option(help="what was answered")],
    prompt: Annotated[str | None, typer.Option(help="what was asked")] = None,
    messages: MessagesOption = None,
    config: ConfigOption = DEMO,
    remote: EngineOption = "",
    json: JsonOption = False,
) -> None:
    """Score a given response: its log-probability under every policy, and its rewards."""
    said = prompt_of(prompt, messages)
    from engine.bank.calibration import Calibration

    with open_engine(config, remote) as engine:
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
