"""Run hostile clients against the real app, and print what came of it.

    python -m tests.hostile [SCENARIO ...] [--scale 1.0]

Every scenario has an app of its own, on the bundled configuration, in a temporary folder; all listens on 127.0.0.1. The
scenario of the API has an engine in this process instead. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from tests.hostile.process import AppProcess
from tests.hostile.result import Result, table
from tests.hostile.scenarios import annotate, api, bodies, cross_site, flood, full_disk, kills, sessions, slow_readers

SCENARIOS: dict[str, Callable[[AppProcess, float], Awaitable[Result]]] = {
    "kills": kills.run,
    "flood": flood.run,
    "slow-readers": slow_readers.run,
    "sessions": sessions.run,
    "bodies": bodies.run,
    "cross-site": cross_site.run,
    "full-disk": full_disk.run,
    "annotate": annotate.run,
}
# Those that need no app: they are given the folder.
IN_PROCESS: dict[str, Callable[[Path, float], Awaitable[Result]]] = {"api": api.run}
NAMES = [*SCENARIOS, *IN_PROCESS]
LIMIT = 1200.0  # seconds of a scenario at scale 1, beside the starts of the app
STARTS = 30  # times the first start, for those that are ended and started again
STOP = 5.0  # seconds that the app may take to end


async def play(name: str, scale: float) -> Result:
    """Run a scenario against an app of its own."""
    with tempfile.TemporaryDirectory(prefix="mixdesk-hostile-") as folder:
        if name in IN_PROCESS:
            return await IN_PROCESS[name](Path(folder), scale)
        app = AppProcess(Path(folder))
        result = Result()
        try:
            await app.start()
            limit = (LIMIT + STARTS * app.longest_start) * max(scale, 1)
            result = await asyncio.wait_for(SCENARIOS[name](app, scale), limit)
        except Exception as error:
            result.check(False, f"{type(error).__name__}: {error}")
        finally:
            if app.running:
                status, seconds = app.stop()
                result.check(status in (0, 143), f"the app ended with {status}")
                result.check(seconds < STOP, f"the app took {seconds:.1f} s to end")
        return result


def main(
    scenarios: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(NAMES)}; all if none")] = None,
    scale: Annotated[float, typer.Option(min=0.01, max=100, help="how many times as many clients, kills, ...")] = 1.0,
) -> None:
    """Run hostile clients against the real app."""
    chosen = scenarios or NAMES
    if unknown := [name for name in chosen if name not in NAMES]:
        raise typer.BadParameter(f"no scenario is called '{unknown[0]}'; there are {', '.join(NAMES)}")
    results: list[tuple[str, Result]] = []
    for name in chosen:
        typer.echo(f"{name} ...", err=True)
        results.append((name, asyncio.run(play(name, scale))))
    typer.echo(table(results))
    for name, result in results:
        for line in [*result.notes, *([result.skipped] if result.skipped else [])]:
            typer.echo(f"{name}: {line}")
        for failure in result.failures[:20]:
            typer.echo(f"{name}: FAILED: {failure}")
        if len(result.failures) > 20:
            typer.echo(f"{name}: {len(result.failures) - 20} further failures")
    raise typer.Exit(any(result.failures for _, result in results))


if __name__ == "__main__":
    typer.run(main)
