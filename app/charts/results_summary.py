"""The lines above the results, the empty states, and the values of the matrix's script."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from app.charts.people_table import signless
from app.html import message
from app.services.results import Results
from app.services.standings import LOSS, WIN, empty
from app.services.vote_sources import DESK, VoteSource

ROOMY = 12  # systems in a matrix whose cells have room for the number of votes
NOT_BLIND = (
    "Not blind: whoever rated at the desk saw which side was which, and chose the mixtures. Take these ratings as a "
    "first "
    "impression; a study on the tab Annotate is the proof."
)
NO_LOTTERY = (
    "The lottery is over mixtures of this configuration’s policies. These systems are others’, so there is nothing "
    "to send "
    "to the desk: see Ranking and Wins."
)
NO_REWARDS = (
    '<p class="hint">No reward model has scored both responses of any pair. Responses that are generated here are '
    "scored "
    "by the configuration’s reward models.</p>"
)
NO_IMPLIED = (
    '<p class="hint">The implied reward of a policy is log π_k/π_ref of a response: how much likelier the policy '
    "makes it "
    "than the reference does. It needs responses that this configuration generated.</p>"
)


def plural(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def summary_html(results: Results) -> str:
    """Return how many votes there are, by whom, about what, and whether they can be trusted, as HTML."""
    source = results.source
    systems = sum(len(group.rows) for group in results.groups)
    parts = [
        f"<b>{plural(results.votes, 'vote')}</b>",
        plural(systems, "system"),
        plural(len(results.people), "person", "people"),
        plural(results.prompts, "prompt"),
    ]
    alpha = next((one for one in results.agreements if one.key == source.question), None)
    if alpha is not None and math.isfinite(alpha.alpha.value):
        shown = (signless(value) for value in (alpha.alpha.value, alpha.alpha.low, alpha.alpha.high))
        parts.append("agreement α {} ({} to {})".format(*shown))
    left_out = len([vote for vote in source.votes if vote.kind != "repeat"]) - results.votes
    if left_out:
        parts.append(f"{plural(left_out, 'vote')} left out by the filters")
    if source.others:
        parts.append(f"{source.others:,} of other policies do not count")
    badge = "" if source.blind else f'<p class="not-blind"><b>Not blind</b>{escape(NOT_BLIND.partition(":")[2])}</p>'
    return f'<p class="facts">{"<span aria-hidden=true> · </span>".join(parts)}</p>{badge}'


def empty_html(source: VoteSource, results: Results) -> str:
    """Return what is shown where no two systems were voted on: what is missing, and how to get it."""
    if source.votes and not results.votes:
        return (
            "<h2>No votes are left</h2><p>The filters leave out all "
            f"{plural(len(source.votes), 'vote')} of this study. Open <b>Filters</b> and let some back in.</p>"
        )
    if source.id == DESK and results.standing is not None:
        return empty(results.standing)
    steps = {
        "draft": "This study is a draft. On the tab <b>Annotate</b>, read its responses and open it, then invite "
        "people.",
        "open": "This study is open, and nobody has answered yet. On the tab <b>Annotate</b>, copy an invitation "
        "link and "
        "send it to those who rate.",
        "paused": "This study is paused before its first answer. On the tab <b>Annotate</b>, open it again.",
        "closed": "This study was closed before its first answer. On the tab <b>Annotate</b>, duplicate it to ask "
        "again.",
    }
    return (
        f"<h2>No votes in “{escape(source.name)}” yet</h2><p>{steps.get(source.state, steps['open'])}</p>"
        "<p>With the first votes this page ranks the systems, says how sure each rank is and how well people agree, "
        "and "
        "names the annotators whose votes look careless.</p>"
    )


def matrix_value(results: Results, opens: bool) -> dict[str, Any]:
    """Return the values of the matrix for its script, systems in the order of the leaderboard.

    Args:
        results: The results.
        opens: Whether a cell opens its pairs.
    """
    rows = [row for group in results.groups for row in group.rows]
    place = {row.number: i for i, row in enumerate(rows)}
    cells = []
    for first, second, wins, ties, losses in results.cells:
        if first not in place or second not in place:
            continue
        i, j = place[first], place[second]
        cells.append([i, j, wins, ties, losses] if i < j else [j, i, losses, ties, wins])
    return {
        "names": [row.system.system for row in rows],
        "systems": [row.number for row in rows],
        "cells": cells,
        "colours": [WIN, LOSS],
        "roomy": ROOMY,
        "opens": opens,
    }


def matrix_hint(opens: bool) -> str:
    """Return the line under the matrix."""
    text = "The row’s share of wins against the column, in percent; a tie is half a win. Blue wins, red loses."
    if opens:
        text += " Press a cell to read its pairs and their votes; arrow keys go from cell to cell."
    return f'<p class="hint">{text}</p>'


def lottery_missing(results: Results) -> str:
    """Return why there is no lottery."""
    return message(
        NO_LOTTERY if results.standing is None else "The lottery needs overall votes on two mixtures or more."
    )
