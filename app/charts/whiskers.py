"""Values with intervals on a shared axis, as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.votes.intervals import Interval

WIDEST = 6  # an axis is at most so many times as long as the values' span: longer whiskers are cut, with an arrow
STEPS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Axis:
    """A horizontal axis from `low` to `high`, with grid lines at `ticks`."""

    low: float
    high: float
    ticks: tuple[float, ...] = ()

    def place(self, value: float) -> float:
        """Return where a value is, from 0 to 100 percent; values beyond an end are at the end."""
        return 100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    @property
    def grid(self) -> str:
        """The grid lines, as a value of CSS's `background`."""
        line = "linear-gradient(var(--line), var(--line))"
        return ", ".join(f"{line} {self.place(tick):.2f}% 0 / 1px 100% no-repeat" for tick in self.ticks) or "none"

    def head(self, spell: str = "{:.0f}") -> str:
        """Return the labels of the ticks, for a column's head."""
        labels = "".join(
            f'<i style="left:{self.place(tick):.2f}%">{spell.format(tick).replace("-", "−") if tick else "0"}</i>'
            for tick in self.ticks
        )
        return f'<span class="ticks" aria-hidden="true">{labels}</span>'


def axis_of(values: Sequence[float], ends: Iterable[float], least: float = 1.0, ticks: int = 5) -> Axis:
    """Return an axis for values with intervals.

    Args:
        values: The values, all of which are on the axis.
        ends: The intervals' ends, which are on it as far as it does not become too long.
        least: The axis's least length.
        ticks: About so many ticks.
    """
    low, high = min(values), max(values)
    room = max(high - low, least) * (WIDEST - 1) / 2
    known = [end for end in ends if math.isfinite(end)]
    low, high = max(min([low, *known]), low - room), min(max([high, *known]), high + room)
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    pad = 0.04 * (high - low)
    low, high = low - pad, high + pad
    raw = (high - low) / ticks
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * step for step in STEPS if unit * step >= raw)
    first = math.ceil(low / step)
    return Axis(low, high, tuple(step * i for i in range(first, math.floor(high / step) + 1)))


def whisker(axis: Axis, value: Interval, kind: str = "") -> str:
    """Return a value's dot with its interval as a line; its numbers are to be written beside it.

    Args:
        axis: The axis; where the interval goes beyond it, an arrow says so.
        value: The value and its interval, which may be infinite.
        kind: Class names of the mark.
    """
    left, right = axis.place(value.low), axis.place(value.high)
    cut = ("" if value.low >= axis.low else " cut-low") + ("" if value.high <= axis.high else " cut-high")
    return (
        f'<span class="axis {kind}" aria-hidden="true">'
        f'<i class="{cut.strip()}" style="left:{left:.2f}%;width:{max(right - left, 0.4):.2f}%"></i>'
        f'<b style="left:{axis.place(value.value):.2f}%"></b></span>'
    )


def share(value: float) -> str:
    """Format a fraction as whole percents; what is not nothing and not all does not read so."""
    if 0 < value < 0.005:
        return "&lt;1%"
    return "&gt;99%" if 0.995 < value < 1 else f"{value:.0%}"
