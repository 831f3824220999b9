"""The leaderboard: systems by rating, with 95% intervals as whiskers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from app.charts.standings_table import bar
from app.charts.whiskers import Axis, axis_of, share, whisker
from app.services.results import LeaderGroup, LeaderRow
from app.services.standings import send
from engine.votes.leaderboard import SystemRating

KEY = (
    "Rating: 0 is the average system, and 100 points more win 64% of the votes that decide. Whiskers are 95% "
    "intervals, by "
    "bootstrap over prompts and people. A grey rank is provisional: beside it are the ranks that it may have. "
    "P(best): how "
    "often the system comes first when the votes are drawn again."
)
TO_DESK = '<th scope="col"><span class="unseen">To the desk</span></th>'
LEAST = 100.0  # points on the axis: of less, small differences would look large


def leaderboard_html(
    groups: Sequence[LeaderGroup], unvoted: Sequence[str], policies: Sequence[str], colours: Mapping[str, str]
) -> str:
    """Return one table for each group of systems that votes connect, and the systems without votes.

    Args:
        groups: The groups, the largest first.
        unvoted: Names of the systems without votes.
        policies: Names of the desk's policies.
        colours: {policy: accent colour}.
    """
    several = len(groups) > 1
    tables = [
        (group_head(group, number) if several else "") + group_table(group, number, policies, colours)
        for number, group in enumerate(groups, 1)
    ]
    note = (
        f'<p class="note">No vote connects these {len(groups)} groups: each has a scale of its own, and a rating in '
        f"one "
        "says nothing about a rating in another. Votes on pairs between the groups would connect them.</p>"
        if several
        else ""
    )
    missing = f'<p class="hint">Without votes: {escape(", ".join(unvoted))}.</p>' if unvoted else ""
    return note + "".join(tables) + missing + f'<p class="hint">{KEY}</p>'


def group_head(group: LeaderGroup, number: int) -> str:
    """Return the heading of one of several groups."""
    return f"<h3>Group {number}: {len(group.rows)} systems, {group.votes:,} votes</h3>"


def group_table(group: LeaderGroup, number: int, policies: Sequence[str], colours: Mapping[str, str]) -> str:
    """Return the table of one group."""
    shown = [row.shown for row in group.rows]
    axis = axis_of([one.value for one in shown], [end for one in shown for end in (one.low, one.high)], LEAST)
    buttons = any(row.mixture is not None for row in group.rows)
    rows = "".join(leader_row(row, axis, policies, colours, buttons) for row in group.rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Leaderboard{f", group {number}"}">'
        f'<table class="leaders" style="--grid:{axis.grid}"><thead><tr>'
        '<th scope="col">Rank</th><th scope="col">System</th><th scope="col">Rating</th>'
        f'<th scope="col" class="wide"><span class="unseen">95% interval</span>{axis.head("{:+.0f}")}</th>'
        '<th scope="col">P(best)</th><th scope="col">Wins · ties · losses</th><th scope="col" class="count">Votes</th>'
        f"{TO_DESK if buttons else ''}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def leader_row(row: LeaderRow, axis: Axis, policies: Sequence[str], colours: Mapping[str, str], buttons: bool) -> str:
    """Return one row of a group's table."""
    system, shown, name = row.system, row.shown, escape(row.system.system)
    own = shown is not system.adjusted
    mark = bar(row.mixture, policies, colours) if row.mixture is not None else ""
    why = f'<small class="why">Provisional: {escape(system.mark)}</small>' if system.mark else ""
    to_desk = send(row.mixture, policies, system.system) if row.mixture is not None else ""
    return (
        f"<tr>{rank_cell(row, own)}"
        f'<th scope="row">{mark}{name}{why}</th>'
        f'<td class="rating"><b>{points(shown.value)}</b>'
        f"<small>{points(shown.low)} to {points(shown.high)}</small></td>"
        f'<td class="wide">{whisker(axis, shown, "provisional" if system.mark else "")}</td>'
        f"<td>{share(system.best) if own else '–'}</td>"
        f'<td class="record">{record(system)}</td><td class="count">{system.votes:,}</td>'
        f"{f'<td>{to_desk}</td>' if buttons else ''}</tr>"
    )


def rank_cell(row: LeaderRow, own: bool) -> str:
    """Return the rank: grey with the ranks that are possible while it is provisional; `own` is false if adjusted."""
    system = row.system
    if not own:
        return f'<td class="rank">{row.rank}<small>was {system.rank}</small></td>'
    if not system.provisional:
        return f'<td class="rank">{row.rank}</td>'
    if system.rank_low == system.rank_high:
        return f'<td class="rank provisional">{row.rank}</td>'
    ranks = f"{system.rank_low}–{system.rank_high}"
    title = f"Provisional: any rank from {system.rank_low} to {system.rank_high} is within its 95% interval"
    return f'<td class="rank provisional" title="{title}">{row.rank}<small>{ranks}</small></td>'


def points(value: float) -> str:
    """Format a rating in points."""
    return f"{round(value) + 0:+d}".replace("-", "−")


def record(system: SystemRating) -> str:
    """Return wins, ties and losses as numbers and as shares of one bar."""
    parts = (("won", system.wins), ("tied", system.ties), ("lost", system.losses))
    bars = "".join(f'<i class="{kind}" style="width:{100 * number / system.votes:.1f}%"></i>' for kind, number in parts)
    numbers = " · ".join(f"{number:,}" for _, number in parts)
    return f'{numbers}<span class="stack" aria-hidden="true">{bars}</span>'
