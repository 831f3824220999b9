"""Plain-text formatting of numbers and mixtures."""

from __future__ import annotations

from engine import Completion, Mixture
from engine.inference.finish_reason import FinishReason
from engine.rules.registry import DEFAULT_RULE

ENDINGS = {
    FinishReason.END: "ended by itself",
    FinishReason.STOP_STRING: "reached a stop string",
    FinishReason.LENGTH: "reached the length limit",
    FinishReason.STOPPED: "stopped",
    FinishReason.TIME: "reached the time limit",
}


def signed(value: float) -> str:
    """Format a number with two decimals and a sign, the minus as wide as the plus; "+0.00" if it rounds to zero."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def in_short(mixture: Mixture) -> str:
    """Return a mixture on one line: its weights, and its rule and gain where they matter."""
    weights = [(name, weight) for name, weight in mixture.weights.items() if weight > 0]
    said = weights[0][0] if len(weights) == 1 else ", ".join(f"{name} {weight:.0%}" for name, weight in weights)
    if len(weights) > 1:
        said += f" · {rule_in_short(mixture)}"
    if mixture.gain != 1:
        said += f" · gain {mixture.gain:g}"
    return said


def rule_in_short(mixture: Mixture) -> str:
    """Return a mixture's rule, with its exponent where that matters."""
    return mixture.rule + (f" {mixture.exponent:g}" if mixture.takes_exponent else "")


def settings_in_short(mixture: Mixture) -> str:
    """Return a mixture's rule and gain on one line where they are not the usual ones, else ""."""
    parts = [rule_in_short(mixture)] if mixture.rule != DEFAULT_RULE else []
    return ", ".join([*parts, f"gain {mixture.gain:g}"] if mixture.gain != 1 else parts)


def how_made(completion: Completion) -> str:
    """Return a completion's mixture, length, finish reason and seed as text."""
    made, times = in_short(completion.mixture), len(completion.steered) - 1
    if times > 0:
        made = f"steered {'once' if times == 1 else f'{times} times'}, at last {made}"
    if completion.sampling.particles > 1:
        made += f" · exact, {completion.sampling.particles} particles"
    if completion.prefix_length:
        made += f" · from token {completion.prefix_length + 1} on"
    return made + f" · {len(completion.tokens)} tokens, {ENDINGS[completion.finish_reason]} · seed {completion.seed}"
