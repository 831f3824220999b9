"""What a scenario found, and the table of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Result:
    """What a scenario found.

    Attributes:
        count: How many things were tried, such as requests.
        failures: What went wrong, each in one line.
        latencies: Seconds that honest clients waited.
        before, after: The app's resident memory in bytes.
        notes: Further lines for the report.
        skipped: Why it did not run; "" if it did.
    """

    count: int = 0
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    before: int = 0
    after: int = 0
    notes: list[str] = field(default_factory=list)
    skipped: str = ""

    def check(self, holds: bool, failure: str) -> None:
        """Count something that was tried, and note the failure if it does not hold."""
        self.count += 1
        if not holds:
            self.failures.append(" ".join(failure.split())[:300])


HEADS = ("scenario", "count", "failures", "worst latency", "memory before", "memory after")


def row(name: str, result: Result) -> tuple[str, ...]:
    """Return a scenario's row of the table."""
    if result.skipped:
        return name, "skipped", "", "", "", ""
    worst = f"{max(result.latencies):.2f} s" if result.latencies else "-"
    memory = (f"{size / 2**20:.0f} MiB" if size else "-" for size in (result.before, result.after))
    return name, str(result.count), str(len(result.failures)), worst, *memory


def table(results: Iterable[tuple[str, Result]]) -> str:
    """Return the table of all scenarios as text."""
    rows = [HEADS, *(row(name, result) for name, result in results)]
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows
    )
