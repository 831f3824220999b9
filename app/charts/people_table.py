"""Tables of agreement: Krippendorff's alpha of each question, and one row for each annotator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from app.charts.whiskers import Axis, share, whisker
from app.services.results import Agreement, Person
from engine.votes.intervals import Interval

ALPHA = Axis(-0.25, 1.0, (0.0, 0.667, 0.8))
SHARE = Axis(-0.05, 1.05, (0.5,))
NONE = "–"


def alpha_table(agreements: Sequence[Agreement]) -> str:
    """Return alpha with its interval for each question."""
    rows = "".join(
        f'<tr><th scope="row">{escape(one.text)}</th>{alpha_cells(one.alpha)}'
        f'<td class="count">{one.alpha.number:,}</td></tr>'
        for one in agreements
    )
    return (
        '<h3>Do people agree?</h3><div class="scroll" tabindex="0" role="region" aria-label="Agreement by question">'
        f'<table class="figures-table" style="--grid:{ALPHA.grid}"><thead><tr><th scope="col">Question</th>'
        '<th scope="col">Krippendorff’s α</th>'
        f'<th scope="col" class="wide"><span class="unseen">95% interval</span>{ALPHA.head("{:g}")}</th>'
        f'<th scope="col">Pairs</th></tr></thead><tbody>{rows}</tbody></table></div><p class="hint">'
        "1 is perfect agreement and 0 what chance would give. For labels, 0.8 is usually asked for and 0.667 is the "
        "least; "
        "preferences between good responses are often below, and then need more votes a pair.</p>"
    )


def alpha_cells(alpha: Interval) -> str:
    """Return the cells of one question's alpha."""
    if not math.isfinite(alpha.value):
        return f'<td>{NONE}</td><td class="wide"><small>No pair was rated by two people.</small></td>'
    return (
        f'<td class="rating"><b>{signless(alpha.value)}</b>'
        f"<small>{signless(alpha.low)} to {signless(alpha.high)}</small></td>"
        f'<td class="wide">{whisker(ALPHA, alpha)}</td>'
    )


def signless(value: float) -> str:
    """Format a number with two decimals and, if it is negative, a true minus."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−") if math.isfinite(value) else NONE


def people_table(people: Sequence[Person], gold_share: float) -> str:
    """Return the table of annotators, the least reliable first."""
    rows = "".join(person_row(person) for person in people)
    return (
        '<h3>Annotators</h3><div class="scroll tall" tabindex="0" role="region" aria-label="Annotators">'
        f'<table class="figures-table people" style="--grid:{SHARE.grid}"><thead><tr><th scope="col">Person</th>'
        '<th scope="col">Votes</th><th scope="col" title="Median time of a vote">Time</th>'
        '<th scope="col" title="Right answers to pairs with known verdicts">Gold</th>'
        '<th scope="col" title="The same answer when a pair came again with its sides swapped">Consistent</th>'
        '<th scope="col" title="How often the left response won; 95% interval">Left wins</th>'
        '<th scope="col" title="With the other people’s votes on the same pairs">Agrees</th>'
        '<th scope="col" title="Share of votes that follow the responses, not chance; by EM">Reliability</th>'
        f'</tr></thead><tbody>{rows}</tbody></table></div><p class="hint">The least reliable come first. Left wins is '
        "marked where its interval leaves out 50%: such a person may look at one side only. Gold is failed below "
        f"{gold_share:.0%} of three answers or more.</p>"
    )


def person_row(person: Person) -> str:
    """Return one annotator's row."""
    gold, report = NONE, person.report
    if person.gold is not None:
        failed = '<small class="bad">failed</small>' if person.failed else ""
        gold = f"{share(person.gold.accuracy)}<small>of {person.gold.answers}</small>{failed}"
    return (
        f'<tr><th scope="row">{escape(person.name)}</th><td class="count">{report.votes:,}</td>'
        f"<td>{seconds(report.median_seconds)}</td><td>{gold}</td><td>{share_of(report.consistency)}</td>"
        f"<td>{left_wins(report.left)}</td><td>{share_of(report.agreement)}</td><td>{reliability(report.reliability)}</td>"
        "</tr>"
    )


def seconds(value: float) -> str:
    """Format a time in seconds."""
    if not math.isfinite(value):
        return NONE
    return f"{value:.0f} s" if value < 100 else f"{value / 60:.1f} min"


def share_of(value: Interval) -> str:
    """Return a share with the number of its cases; its interval is shown on hovering."""
    if not value.number or not math.isfinite(value.value):
        return NONE
    title = f"95% interval: {share(value.low)} to {share(value.high)}"
    return f'<span title="{title}">{share(value.value)}<small>of {value.number:,}</small></span>'


def left_wins(left: Interval) -> str:
    """Return how often the left response won, with its interval."""
    if not math.isfinite(left.value):
        return NONE
    odd = left.low > 0.5 or left.high < 0.5
    return f'<span class="{"bad" if odd else ""}">{share(left.value)}</span>{whisker(SHARE, left, "short")}'


def reliability(value: float) -> str:
    """Return a reliability with a bar."""
    return (
        f'{share(value)}<span class="stack short" aria-hidden="true"><i class="won" '
        f'style="width:{100 * value:.0f}%"></i></span>'
    )
