"""HTML fragments of the page. All external text is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from app.format import how_made, in_short, signed
from engine import Completion

LONGEST_MIXTURE = 90  # characters: about two lines of a caption


def message(text: str, kind: str = "info") -> str:
    """Return one line for the status area; `kind` is info, good or bad."""
    return f'<span class="message {kind}">{escape(text)}</span>'


def expected_line(text: str, reliable: bool | None) -> str:
    """Return the line under the radar.

    Args:
        text: The line's text.
        reliable: Whether the polygon that it describes is reliable; None if there is no polygon.
    """
    swatch = "" if reliable is None else f'<span class="line expected{"" if reliable else " guess"}"></span>'
    return f"{swatch}{escape(text)}"


def fader_head(index: int, name: str, colour: str, share: float) -> str:
    """Return the head of a fader: its dot, its policy's name, and its weight `share` (0 to 1)."""
    return (
        f'<div class="fader-head" style="--accent:{colour}"><span class="dot"></span>'
        f'<span class="fader-name" title="{escape(name)}">{escape(name)}</span>'
        f'<output class="share" data-share="{index}" data-policy="{escape(name)}" data-exact="{share}" '
        f'aria-label="{escape(name)} weight">'
        f"{share:.0%}</output></div>"
    )


def mixture_bar(colours: Sequence[str]) -> str:
    """Return the bar that shows the faders' mixture, and the style sheet with each fader's accent colour."""
    parts = "".join(f'<i data-segment="{i}" style="background:{colour}"></i>' for i, colour in enumerate(colours))
    accents = "".join(f".accent-{i}{{--accent:{colour}}}" for i, colour in enumerate(colours))
    bar = f'<div class="mixture-bar" role="img" aria-label="the mixture of the faders">{parts}</div>'
    return f"<style>{accents}</style>{bar}"


def caption(completion: Completion) -> str:
    """Return the line that states how a completion was generated; a long mixture is folded."""
    how, mixture = how_made(completion), in_short(completion.mixture)
    if len(mixture) <= LONGEST_MIXTURE:
        return f'<p class="made">{escape(how)}</p>'
    count = sum(weight > 0 for weight in completion.mixture.weights.values())
    short = how.replace(mixture, f"{count} policies")
    return f'<details class="made"><summary>{escape(short)}</summary><p>{escape(mixture)}</p></details>'


def rewards_table(
    objectives: Sequence[str],
    colours: Mapping[str, str],
    sides: Mapping[str, Completion],
    columns: Sequence[str] = ("left", "right"),
) -> str:
    """Return the table of raw rewards, with one column per panel and the highest reward of each objective in bold.

    Args:
        objectives: The rows.
        colours: {objective: accent colour}.
        sides: {panel: its completion}, of the panels that have one.
        columns: The panels to show.
    """
    if not objectives:
        return '<p class="hint">This configuration has no reward models.</p>'
    rows = ""
    for name in objectives:
        values = {side: made.rewards[name] for side, made in sides.items() if name in made.rewards}
        best = max(values.values()) if len(set(values.values())) > 1 else None
        cells = ""
        for side in columns:
            value = values.get(side)
            shown = "–" if value is None else signed(value).removeprefix("+")
            cells += f"<td><b>{shown}</b></td>" if value is not None and value == best else f"<td>{shown}</td>"
        head = f'<th scope="row" style="--accent:{colours[name]}"><span class="dot"></span>{escape(name)}</th>'
        rows += f"<tr>{head}{cells}</tr>"
    heads = "".join(f'<th scope="col"><span class="line {side}"></span>{side.title()}</th>' for side in columns)
    lacking = "".join(
        f'<p class="hint">{escape(f"{side.title()} has no reward for {name}: {reason}")}</p>'
        for side in columns
        if side in sides
        for name, reason in sides[side].missing_rewards.items()
    )
    return (
        f'<table class="rewards"><thead><tr><th scope="col">Raw reward</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>{lacking}"
    )
