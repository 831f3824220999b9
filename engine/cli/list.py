"""`python -m engine list`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from engine.cli.options import JsonOption, app
from engine.cli.runner import print_json


@app.command("list")
def list_methods(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print the tables of docs/rules_solvers_rewards.md")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the rules, the solvers and the kinds of reward, with their formulas and papers."""
    from engine.reward_kind import REWARD_KINDS
    from engine.rules.registry import RULES
    from engine.solvers import SOLVERS

    rules = [{"name": rule.name, "formula": rule.formula, "paper": rule.paper} for rule in RULES.values()]
    solvers = [
        {
            "name": solver.name,
            "weights": solver.summary,
            "options": list(solver.options.values()),
            "paper": solver.paper,
        }
        for solver in SOLVERS.values()
    ]
    rewards = [
        {"name": kind.name, "formula": kind.formula, "options": kind.options, "paper": kind.paper}
        for kind in REWARD_KINDS.values()
    ]
    if json:
        print_json({"rules": rules, "solvers": solvers, "rewards": rewards})
        return
    rule_rows = [(rule["name"], rule["formula"], rule["paper"]) for rule in rules]
    solver_rows = [
        (one.name, one.summary, ", ".join(f"--{flag}" for flag in one.options.values()), one.paper)
        for one in SOLVERS.values()
    ]
    reward_rows = [
        (kind.name, kind.formula, "; ".join(f"`{key}`: {text}" for key, text in kind.options.items()), kind.paper)
        for kind in REWARD_KINDS.values()
    ]
    if markdown:
        typer.echo(markdown_table("rule", ("mixture", "paper"), rule_rows))
        typer.echo(markdown_table("solver", ("weights", "options", "paper"), solver_rows))
        typer.echo(markdown_table("kind of reward", ("reward of y for x", "options", "paper"), reward_rows))
        return
    for row in [*rule_rows, *solver_rows, *reward_rows]:
        typer.echo(f"{row[0]:<12} {row[1]} ({row[-1]})")


def markdown_table(kind: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table whose first column is code."""
    rows = [tuple(cell.replace("|", r"\|") for cell in row) for row in rows]
    lines = [(kind, *columns), ("---",) * (len(columns) + 1), *((f"`{row[0]}`", *row[1:]) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
