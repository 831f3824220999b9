"""The command `python -m engine fetch`."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.options import JsonOption, app
from engine.cli.runner import print_json

if TYPE_CHECKING:
    from engine.fetching.fetch import Progress
    from engine.fetching.manifest import Manifest


def list_all(json: bool) -> None:
    """Print all manifests with the number of bytes that are in the cache."""
    from engine.fetching.fetch import megabytes
    from engine.fetching.manifest import manifests

    rows = [status(manifest) for manifest in manifests()]
    if json:
        print_json({"manifests": rows})
        return
    for row in rows:
        got = f"{megabytes(row['received'])} of {megabytes(row['size'])} there"
        state = "fetched" if row["fetched"] else got if row["received"] else "not fetched"
        typer.echo(f"{row['name']:<12} {megabytes(row['size']):>8}  {row['licence']:<12} {row['title']}: {state}")
        if row["fetched"]:
            typer.echo(f"{'':<12} {row['path']}")


def status(manifest: Manifest) -> dict[str, Any]:
    """Return the state of a manifest for JSON, with sizes in bytes."""
    return {
        "name": manifest.name,
        "title": manifest.title,
        "licence": manifest.licence,
        "size": manifest.size,
        "received": manifest.received(),
        "fetched": manifest.is_fetched(),
        "path": str(manifest.path),
    }


def fetch_and_report(name: str, json: bool) -> int:
    """Fetch the files of a manifest with a progress bar on stderr, and return the exit status."""
    from tqdm import tqdm

    from engine.fetching.download import StoppedError
    from engine.fetching.fetch import fetch, megabytes
    from engine.fetching.manifest import find_manifest

    manifest = find_manifest(name)
    stop = threading.Event()
    # A first Ctrl+C ends the fetch between two chunks; signals come to the main thread, which may wait for the network.
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    bar = tqdm(
        total=manifest.size,
        initial=manifest.received(),
        unit="B",
        unit_scale=True,
        desc=manifest.name,
        file=sys.stderr,
        mininterval=0.3,
    )

    def show(progress: Progress) -> None:
        if progress.source:
            bar.set_postfix_str(progress.source, refresh=False)
        bar.update(progress.done - bar.n)

    try:
        with bar:
            path = fetch(manifest, show, stop)
    except StoppedError:
        got = f"{megabytes(manifest.received())} of {megabytes(manifest.size)}"
        print(f"stopped at {got}; the same command continues from there", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGINT, before)
    if json:
        print_json(status(manifest))
    else:
        typer.echo(f"{manifest.name}: {path}")
    return 0


@app.command("fetch")
def fetch_command(
    name: Annotated[str | None, typer.Argument(help="what to fetch, or a configuration's path; a list if none")] = None,
    json: JsonOption = False,
) -> int:
    """Fetch the files of a configuration that do not ship with it into the user's cache."""
    if name is None:
        list_all(json)
        return 0
    return fetch_and_report(name, json)
