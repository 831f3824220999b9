"""Tables of the mixtures' standings by ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from app.format import in_short
from app.html import message
from app.services.standings import LOSS, WIN, Standing, send
from engine import Mixture
from engine.config import REFERENCE
from engine.solvers.nash import too_few

SHOWN = 12  # mixtures in the table, the likeliest first


# --------------------------------------------------------------------------------------------------- what is shown


def standings_caption(found: Standing) -> str:
    """Return the summary above the table as HTML.

    It gives the number of ratings, a warning first if they are too few, the best win rate against the lottery, and the
    duality gap. Requires a solution.
    """
    made = found.solution
    assert made is not None and made.gap is not None
    size = len(found.mixtures)
    pairs = size * (size - 1) // 2
    met = int((found.met[np.triu_indices(size, 1)] > 0).sum())
    said = f"{found.ratings} ratings of {size} mixtures; {met} of {pairs} pairs met. "
    said += (
        "The lottery draws a mixture for each response, so that none wins more than half of the comparisons with it: "
        f"the best wins {0.5 + made.objective:.0%}, give or take {made.objective_error:.0%} "
        f"(duality gap {max(made.gap, 0.0):.4f})."
    )
    if (pair := found.rarest()) is not None:
        left, right = (in_short(found.mixtures[i]) for i in pair)
        times = int(found.met[pair])
        ever = {0: "never met", 1: "met once"}.get(times, f"met {times} times")
        said += f" Surer still: rate “{left}” against “{right}”, which {ever}."
    if few := too_few(found.wins):
        return f"{message(f'{few.capitalize()}.', 'bad')}<br>{message(said)}"
    return message(said)


def standings_table(found: Standing, policies: Sequence[str], colours: Mapping[str, str]) -> str:
    """Return the table of mixtures, the most probable first: probability, pairwise wins, and a button to the desk."""
    made = found.solution
    assert made is not None
    order = sorted(range(len(found.mixtures)), key=lambda i: (-made.lottery[i]["probability"], -found.met[i].sum()))
    rest, order = order[SHOWN:], order[:SHOWN]
    heads = "".join(
        f'<th scope="col" title="{escape(in_short(found.mixtures[i]))}">{n}</th>' for n, i in enumerate(order, 1)
    )
    rows = ""
    for n, i in enumerate(order, 1):
        mixture, one = found.mixtures[i], made.lottery[i]
        chance = (
            f"<b>{one['probability']:.0%}</b> <small>± {one['error']:.0%}</small>"
            f'<span class="chance"><i style="width:{one["probability"]:.1%}"></i></span>'
        )
        rows += (
            f'<tr><td class="number">{n}</td><th scope="row">{bar(mixture, policies, colours)}'
            f"{escape(in_short(mixture))}</th><td>{chance}</td>"
            + f"<td>{send(mixture, policies, f'mixture {n} of the lottery')}</td>"
            + "".join(cell(found, i, j) for j in order)
            + "</tr>"
        )
    more = f'<p class="hint">{len(rest)} more, less likely, are not shown.</p>' if rest else ""
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="The lottery and the wins">'
        '<table class="lottery"><thead>'
        '<tr><td></td><th scope="col" rowspan="2">Mixture</th><th scope="col" rowspan="2">Drawn</th>'
        f'<td></td><th scope="colgroup" colspan="{len(order)}">Wins against</th></tr>'
        f"<tr><td></td><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{more}"
    )


def bar(mixture: Mixture, policies: Sequence[str], colours: Mapping[str, str]) -> str:
    """Return a mixture's weights as one bar; the empty rest is the reference's weight."""
    parts = "".join(
        f'<i style="width:{mixture.weights.get(name, 0.0):.1%};background:{colours[name]}"></i>' for name in policies
    )
    return f'<span class="weights" aria-hidden="true">{parts}</span>'


def cell(found: Standing, row: int, column: int) -> str:
    """Return one cell: the row's win rate against the column and the number of ratings; blue wins, red losses."""
    times = found.met[row, column]
    if row == column or not times:
        return f'<td class="win">{"" if row == column else "–"}</td>'
    rate = found.wins[row, column] / times
    shade = f"color-mix(in srgb, {WIN if rate > 0.5 else LOSS} {abs(rate - 0.5) * 110:.0f}%, transparent)"
    return f'<td class="win" style="background:{shade}">{rate:.0%}<small>of {times:.0f}</small></td>'


def means(found: Standing, policies: list[str]) -> str:
    """Return the mean weights with their standard errors, and a button that sends them to the desk."""
    made = found.solution
    assert made is not None
    ordered = sorted(made.weights.items(), key=lambda item: -item[1])
    said = ", ".join(f"{escape(name)} {weight:.0%} ± {made.weight_errors[name]:.0%}" for name, weight in ordered)
    odd = ""
    if len({(mixture.rule, mixture.gain) for mixture in found.mixtures}) > 1:
        odd = " The mixtures differ in rule or gain, which the mean leaves out: rather send one of them."
    mean = Mixture({name: made.weights.get(name, 0.0) for name in (*policies, REFERENCE)})
    return f'<p class="means"><b>Mean weights</b> {said}.{odd} {send(mean, policies, "the mean weights")}</p>'
