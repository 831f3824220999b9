"""What people's ratings say of the mixtures that they rated: who wins how often against whom, and the lottery over them
that no mixture beats (engine/weights/nash.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from app.expected import faders_of, in_words
from app.parts import in_short, message
from app.store import Store
from engine import InputError, Mixture
from engine.config import REFERENCE
from engine.ratings import LEFT_WINS, Rating, mixture_of
from engine.weights.nash import ENOUGH, group, nash, tally, too_few
from engine.weights.solution import Solution

SHOWN = 12  # mixtures in the table, the likeliest first
WIN, LOSS = "#0072b2", "#d55e00"
# As read_ratings has it: overall, and of responses that are each of one mixture.
QUERY = """
select r.choice, l.model as model,
    lm.weights as left_weights, lm.rule as left_rule, lm.gain as left_gain, lm.exponent as left_exponent,
    rm.weights as right_weights, rm.rule as right_rule, rm.gain as right_gain, rm.exponent as right_exponent
from ratings r
join completions l on l.id = r.left_id join mixtures lm on lm.id = l.mixture_id
join completions c on c.id = r.right_id join mixtures rm on rm.id = c.mixture_id
where r.objective is null and l.steered = '{}' and c.steered = '{}'
order by r.created_at, r.rowid
"""


@dataclass(frozen=True)
class Standing:
    """ratings: that count; others: of another configuration, which do not. mixtures, wins [M, M]: who won how often
    against whom, ties as halves. solution: None where there is too little to solve."""

    ratings: int
    others: int
    mixtures: list[Mixture]
    wins: np.ndarray
    solution: Solution | None

    @property
    def met(self) -> np.ndarray:
        """[M, M]: how often two were rated against each other."""
        return self.wins + self.wins.T

    def rarest(self) -> tuple[int, int] | None:
        """Two that were rated least often against each other, the likeliest such; None where all were often enough."""
        if self.solution is None:
            return None
        chance = [one["probability"] for one in self.solution.lottery]
        pairs = [(i, j) for i in range(len(chance)) for j in range(i)]
        i, j = min(pairs, key=lambda pair: (self.met[pair], -chance[pair[0]] - chance[pair[1]]))
        return (j, i) if self.met[i, j] < ENOUGH else None


def standing(store: Store, model: str, policies: list[str]) -> Standing:
    """Of the ratings of the configuration `model`, as they are in the store now."""
    with store.reading() as db:
        rows = list(db.query(QUERY))
    ratings, others = [], 0
    for row in rows:
        try:
            if row["model"] != model:
                raise InputError("ratings: of another configuration")
            sides = [mixture_of(stored(row, side), policies) for side in ("left", "right")]
        except InputError:  # or of policies that this one had once
            others += 1
            continue
        ratings.append(Rating(sides[0], sides[1], LEFT_WINS[row["choice"]]))
    mixtures, pairs = group(ratings)
    wins = tally(pairs, np.array([rating.left_wins for rating in ratings]), len(mixtures))
    return Standing(len(ratings), others, mixtures, wins, nash(policies, ratings) if len(mixtures) > 1 else None)


def stored(row: Mapping[str, Any], side: str) -> dict[str, Any]:
    rest = {key: row[f"{side}_{key}"] for key in ("rule", "gain", "exponent")}
    return {"weights": json.loads(row[f"{side}_weights"]), **rest}


def on_desk(mixture: Mixture, policies: Sequence[str]) -> dict[str, Any] | None:
    """{positions, rule, gain, exponent} with which the desk has this mixture; None where it cannot have it.

    The reference has no fader. A share of it in a geometric mixture is a lower gain: Π π_k^{λ_k} π_ref^{1 - s} is
    π_ref Π (π_k/π_ref)^{λ_k}, with s the sum of the λ_k.
    """
    weights = {name: mixture.weights.get(name, 0.0) for name in policies}
    heard = sum(weights.values())
    if heard < 1e-9:
        return {"positions": [0.5] * len(weights), "rule": "geometric", "gain": 0, "exponent": 1}
    if heard < 0.995 and mixture.rule != "geometric":
        return None
    gain = round(mixture.gain * heard, 1)  # as fine as the desk's own
    positions = list(faders_of(weights).values())
    return {"positions": positions, "rule": mixture.rule, "gain": gain, "exponent": mixture.exponent}


# --------------------------------------------------------------------------------------------------- what is shown


def about(found: Standing) -> str:
    """How many ratings it stands on, first of all whether they are too few, and how near it is to what it should be."""
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


def table(found: Standing, policies: Sequence[str], colours: Mapping[str, str]) -> str:
    """The mixtures, the likeliest first: probability, wins against each other, and a way to the desk."""
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
    """Its weights as one bar; what is missing is the reference's."""
    parts = "".join(
        f'<i style="width:{mixture.weights.get(name, 0.0):.1%};background:{colours[name]}"></i>' for name in policies
    )
    return f'<span class="weights" aria-hidden="true">{parts}</span>'


def cell(found: Standing, row: int, column: int) -> str:
    """How often the row won against the column, and of how many; bluer the more, redder the less."""
    times = found.met[row, column]
    if row == column or not times:
        return f'<td class="win">{"" if row == column else "–"}</td>'
    rate = found.wins[row, column] / times
    shade = f"color-mix(in srgb, {WIN if rate > 0.5 else LOSS} {abs(rate - 0.5) * 110:.0f}%, transparent)"
    return f'<td class="win" style="background:{shade}">{rate:.0%}<small>of {times:.0f}</small></td>'


def means(found: Standing, policies: list[str]) -> str:
    """The mean weights, how sure they are, and their way to the desk."""
    made = found.solution
    assert made is not None
    ordered = sorted(made.weights.items(), key=lambda item: -item[1])
    said = ", ".join(f"{escape(name)} {weight:.0%} ± {made.weight_errors[name]:.0%}" for name, weight in ordered)
    odd = ""
    if len({(mixture.rule, mixture.gain) for mixture in found.mixtures}) > 1:
        odd = " The mixtures differ in rule or gain, which the mean leaves out: rather send one of them."
    mean = Mixture({name: made.weights.get(name, 0.0) for name in (*policies, REFERENCE)})
    return f'<p class="means"><b>Mean weights</b> {said}.{odd} {send(mean, policies, "the mean weights")}</p>'


def send(mixture: Mixture, policies: Sequence[str], what: str) -> str:
    """A button; what it sends is in static/js/ratings.js."""
    to = on_desk(mixture, policies)
    if to is None:
        return '<span class="hint" title="The reference has no fader, and this rule no gain for it.">–</span>'
    heard = {name: mixture.weights.get(name, 0.0) for name in policies if mixture.weights.get(name, 0.0) > 0.005}
    words = in_words(heard) if heard else "the reference alone"
    if to["gain"] != 1:
        words += f", gain {to['gain']:g}"
    said = message(f"The faders have {what}: {words}. Press Generate to try it.")
    return (
        f'<button type="button" class="send" data-send="{escape(json.dumps({**to, "said": said}))}" '
        f'aria-label="Send {escape(what)} to the desk">Send to desk</button>'
    )


def empty(found: Standing) -> str:
    """What is missing, and how it comes."""
    have = "No ratings yet."
    if found.ratings:
        one = in_short(found.mixtures[0])
        have = f"{found.ratings} rating{'' if found.ratings == 1 else 's'} so far, all of one mixture, “{one}”."
    if found.others:
        have += f" {found.others} more are of other policies, and do not count here."
    return f"""<h2>Which mixture do people prefer?</h2>
<p><b>{escape(have)}</b> This page needs ratings of two mixtures or more against each other.</p>
<p>On the <b>Desk</b>, choose what Left and Right play, such as Faders and Reference, press <b>Generate</b>, and say
which is better. Some {ENOUGH} ratings of a pair tell a clear preference from chance; three mixtures have three pairs,
four have six. Responses that were steered while they were written do not count: they are of no one mixture.</p>
<p>Then this page shows who wins against whom, and finds the <b>lottery</b> over them that no mixture beats, also where
preferences go in a circle. A button sends its weights to the faders.</p>"""
