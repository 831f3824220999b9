"""Balance, then Compare: whether the rewards that Balance states are those that held-out prompts get.

The weights come from the desk's bank, of the configuration's first prompts. The found mixture and the reference then
answer other prompts, as Compare asks them, with the bank's sampling. An objective agrees if expected and measured
differ by no more than twice the standard error of their difference.

    python -m tests.bench.balance [--config FILE] [--method maxmin|mpo] [--prompts FILE] [--limit 100] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from app.services.bank_service import Expected, in_words
from engine import Engine, InputError
from engine.bank import collection
from engine.bank.calibration import calibrated
from engine.bank.collection import RESPONSES, SAMPLING
from engine.config import DEMO, REFERENCE
from engine.evaluation.comparison import answers, summarise
from engine.prompts import read_prompts

AGREE = 2.0  # standard errors of the difference


def measure(engine: Engine, method: str, held_out: list[str], seed: int) -> dict[str, Any]:
    """Return the weights, and for every objective what is expected and what is measured."""
    expected = Expected(engine)
    if expected.missing:
        raise InputError(expected.missing)
    expected.load()
    if expected.bank is None:
        print("sampling a bank", file=sys.stderr)
        expected.bank = collection.collect(engine, expected.prompts, RESPONSES, SAMPLING, file=expected.file).decoding
    calibrated(engine, expected.bank)
    known = set(expected.prompts)
    held_out = [prompt for prompt in dict.fromkeys(held_out) if prompt not in known]
    if len(held_out) < 2:
        raise InputError("prompts: fewer than two are held out of the bank; give others with --prompts")
    solution = expected.balanced(method=method)
    outcome = expected.outcome(solution.weights)
    mixtures = [engine.mixture({REFERENCE: 1.0}), engine.mixture(solution.weights)]
    objectives = engine.reward_set.objectives
    rewards = np.full((len(held_out), 2, len(objectives)), np.nan)
    for place, completions in answers(engine, dict(enumerate(held_out)), mixtures, SAMPLING, seed):
        rewards[place] = [[made.rewards[name] for name in objectives] for made in completions]
    summary = summarise((rewards - expected.centre) / expected.scale, seed)
    rows = {}
    for i, name in enumerate(objectives):
        if name not in outcome.rewards:  # constant for the reference
            continue
        measured, error = float(summary.means[1, i]), float(summary.errors[1, i])
        z = (outcome.rewards[name] - measured) / math.hypot(outcome.errors[name], error)
        rows[name] = {
            "expected": outcome.rewards[name], "expected_error": outcome.errors[name],
            "measured": measured, "measured_error": error, "reference": float(summary.means[0, i]),
            "wins": float(summary.wins[0, i, 0]), "z": z, "agrees": abs(z) <= AGREE,
        }  # fmt: skip
    return {
        "config": engine.config.name, "method": method, "weights": solution.weights,
        "weight_errors": solution.weight_errors, "bank_prompts": len(expected.prompts), "held_out": summary.prompts,
        "better": outcome.as_dict()["better"], "objectives": rows,
        "agrees": all(row["agrees"] for row in rows.values()),
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """Return the result as text."""
    lines = [
        f"{found['config']}, {found['method']}: {in_words(found['weights'])}",
        f"expected over {found['bank_prompts']} prompts of the bank, measured on {found['held_out']} held-out prompts; "
        "standard deviations from the reference",
        f"{'objective':<12} {'expected':>15} {'measured':>15} {'reference':>9} {'wins':>5} {'z':>6}",
    ]
    for name, row in found["objectives"].items():
        expected = f"{row['expected']:+.2f} ± {row['expected_error']:.2f}"
        measured = f"{row['measured']:+.2f} ± {row['measured_error']:.2f}"
        said = "agrees" if row["agrees"] else "DIFFERS"
        lines.append(
            f"{name:<12} {expected:>15} {measured:>15} {row['reference']:>+9.2f} {row['wins']:>5.0%} {row['z']:>+6.1f} "
            f"{said}"
        )
    better = found["better"]
    lines.append(
        "nothing is expected to be better in all objectives"
        if better is None
        else f"expected to be better in all objectives: {in_words(better['weights'])}"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=DEMO)
    parser.add_argument("--method", choices=["maxmin", "mpo"], default="maxmin")
    parser.add_argument("--prompts", type=Path, help="held-out ones; else the configuration's that the bank has not")
    parser.add_argument("--limit", type=int, default=100, help="the most held-out prompts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        with Engine.from_config(options.config) as engine:
            file = options.prompts or engine.config.prompts
            prompts = read_prompts(file) if file else []
            known = set(Expected(engine).prompts)
            held_out = [prompt for prompt in prompts if prompt not in known][: options.limit]
            found = measure(engine, options.method, held_out, options.seed)
    except InputError as error:
        sys.exit(f"{error}")
    print(json.dumps(found, indent=1) if options.json else table(found))


if __name__ == "__main__":
    main()
