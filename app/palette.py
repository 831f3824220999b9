"""The colours of policies and lines."""

from __future__ import annotations

from dataclasses import dataclass

# Okabe and Ito's palette in the order in which its colours are easiest to tell apart, then Paul Tol's "muted".
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#999933", "#44aa99", "#aa4499")
GRID = "rgba(128,128,128,0.28)"
# Neutral text: the page's style sheet overrides it with the theme's colour, which the server does not know.
TEXT = "#71717a"


@dataclass(frozen=True)
class Line:
    """A panel's line style, shared by the radar and its legend."""

    colour: str
    fill: str
    dash: str
    symbol: str


LINES = {
    "Left": Line("#7c5cf5", "rgba(124,92,245,0.16)", "solid", "circle"),
    "Right": Line("#8b8b96", "rgba(139,139,150,0.12)", "dash", "diamond"),
    "Third": Line("#0f8b8d", "rgba(15,139,141,0.12)", "dashdot", "square"),
    "Fourth": Line("#b8488f", "rgba(184,72,143,0.12)", "longdash", "triangle-up"),
}
# The faders' mixture, as a bank expects it: under the sides, and grey where the bank can only guess.
EXPECTED = Line("#c2850c", "rgba(230,159,0,0.10)", "dot", "circle-open")
GUESS = Line("#a1a1aa", "rgba(161,161,170,0.08)", "dot", "circle-open")


def colour(index: int) -> str:
    """Return the accent colour of the objective at this index of the configuration."""
    return COLOURS[index % len(COLOURS)]
