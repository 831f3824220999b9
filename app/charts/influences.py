"""Tables of what goes with people's votes: length and style, reward models, and implied rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from app.charts.whiskers import Axis, axis_of, share, whisker
from engine.votes.intervals import Interval

RATE = Axis(-0.08, 1.08, (0.0, 0.25, 0.5, 0.75, 1.0))


def controls_table(controls: Mapping[str, Interval]) -> str:
    """Return the coefficients of length and style, with intervals."""
    head = "<h3>Length and style</h3>"
    if not controls:
        return (
            f'{head}<p class="hint">The responses’ texts are needed to tell how much length and style sway people; '
            f"these "
            "votes come without them, or the responses do not differ.</p>"
        )
    axis = axis_of(
        [0.0, *(one.value for one in controls.values())],
        [end for one in controls.values() for end in (one.low, one.high)],
        0.2,
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f'<td class="rating"><b class="{"sure" if one.low > 0 or one.high < 0 else ""}">{plus(one.value)}</b>'
        f"<small>{plus(one.low)} to {plus(one.high)}</small></td>"
        f'<td class="wide">{whisker(axis, one)}</td><td>{odds(one.value)}</td></tr>'
        for name, one in controls.items()
    )
    return (
        f'{head}<div class="scroll" tabindex="0" role="region" aria-label="Length and style">'
        f'<table class="figures-table" style="--grid:{axis.grid}"><thead><tr><th scope="col">More of</th>'
        '<th scope="col">Coefficient</th>'
        f'<th scope="col" class="wide"><span class="unseen">95% interval</span>{axis.head("{:g}")}</th>'
        f'<th scope="col">Odds of winning</th></tr></thead><tbody>{rows}</tbody></table></div><p class="hint">'
        "Differences of the two responses, in standard deviations, beside the systems’ strengths in one model: what "
        "people "
        "prefer between responses of equally good systems. Bold where the interval leaves out zero.</p>"
    )


def plus(value: float) -> str:
    """Format a coefficient with its sign."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def odds(value: float) -> str:
    """Return how one more standard deviation changes the odds."""
    return f"× {math.exp(value):.2f}"


def agreeing_table(title: str, scores: Mapping[str, Interval], colours: Mapping[str, str], empty: str) -> str:
    """Return how often scores agree with people, with intervals.

    Args:
        title: The table's heading.
        scores: One interval for each score.
        colours: {name: accent colour}.
        empty: What is said if there are none, as HTML.
    """
    if not scores:
        return f"<h3>{escape(title)}</h3>{empty}"
    body = "".join(
        f'<tr><th scope="row" style="--accent:{colours.get(name, "var(--color-accent)")}"><span class="dot"></span>'
        f'{escape(name)}</th><td class="rating"><b class="{"sure" if one.low > 0.5 or one.high < 0.5 else ""}">'
        f"{share(one.value)}</b><small>{share(one.low)} to {share(one.high)}</small></td>"
        f'<td class="wide">{whisker(RATE, one)}</td><td class="count">{one.number:,}</td></tr>'
        for name, one in scores.items()
        if math.isfinite(one.value)
    )
    ticks = RATE.head("{:.0%}").replace(">0<", ">0%<")
    return (
        f'<h3>{escape(title)}</h3><div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
        f'<table class="figures-table" style="--grid:{RATE.grid}"><thead><tr><th scope="col">Score</th>'
        '<th scope="col">Agrees</th>'
        f'<th scope="col" class="wide"><span class="unseen">95% interval</span>{ticks}</th>'
        f'<th scope="col">Votes</th></tr></thead><tbody>{body}</tbody></table></div>'
    )
