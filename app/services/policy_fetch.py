"""Downloads started from the page: one at a time, in the background, shared by all sessions."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from app.services.offer import Offer
from engine import InputError
from engine.config import DEMO
from engine.fetching.download import StoppedError
from engine.fetching.fetch import Progress, fetch, megabytes
from engine.fetching.manifest import Manifest, manifest_of, manifests
from engine.memory import available_memory

log = logging.getLogger("mixdesk")

WANTED = ".wanted"  # in the folder of a fetch that was started and not cancelled


class Fetchable:
    """A configuration whose files can be downloaded, and the state of the download."""

    def __init__(self, slug: str, manifest: Manifest) -> None:
        self.slug, self.manifest = slug, manifest
        self.state: Literal["absent", "fetching", "stopping", "failed", "fetched"] = (
            "fetched" if manifest.is_fetched() else "absent"
        )
        self.progress = Progress(manifest.received(), manifest.size)
        self.says = ""  # why it failed
        self.stop = threading.Event()

    @property
    def offer(self) -> Offer:
        """The download as the header offers it."""
        return Offer(self.slug, self.manifest.title, megabytes(self.manifest.size), self.manifest.licence)

    def described(self) -> dict[str, Any]:
        """Return the state of the download for the browser."""
        progress = self.progress
        return {
            "slug": self.slug,
            "state": self.state,
            "done": progress.done,
            "total": progress.total,
            "rate": round(progress.rate),
            "source": progress.source,
            "says": self.says,
            "memory": memory_warning(self.manifest) if self.state != "fetched" else "",
        }


class Fetching:
    """All downloads, by the slug of their configuration.

    Browsers never supply addresses: files and sources come from the manifests beside the configurations.
    """

    def __init__(self, configurations: Iterable[tuple[str, Path]]) -> None:
        """Read the manifests of configurations given as (slug, file); invalid manifests are logged and skipped."""
        self.all: dict[str, Fetchable] = {}
        self.done: Callable[[str], None] = lambda slug: None  # called on the fetch's thread
        self._lock = threading.Lock()
        for slug, file in configurations:
            try:
                if manifest := manifest_of(file):
                    self.all[slug] = Fetchable(slug, manifest)
            except InputError as error:
                log.warning("%s", error)

    def missing(self, slug: str) -> str:
        """Return why a configuration cannot be loaded yet, or "" if nothing is missing."""
        fetchable = self.all.get(slug)
        if fetchable is None or fetchable.state == "fetched":
            return ""
        return f"its files ({megabytes(fetchable.manifest.size)}) are not fetched yet"

    def go_on(self) -> None:
        """Resume downloads that the app's end interrupted."""
        for slug, fetchable in self.all.items():
            if fetchable.state == "absent" and (fetchable.manifest.partial / WANTED).exists():
                self.start(slug)

    def start(self, slug: str) -> None:
        """Start a download unless it is running or complete.

        Raises:
            InputError: if another download is running.
        """
        fetchable = self.all[slug]
        with self._lock:
            if fetchable.state in ("fetching", "fetched"):
                return
            if any(other.state in ("fetching", "stopping") for other in self.all.values()):
                raise InputError("another fetch is under way; try again when it has ended")
            fetchable.state, fetchable.says, fetchable.stop = "fetching", "", threading.Event()
        threading.Thread(target=self._fetch, args=(fetchable,), name="mixdesk-fetch", daemon=True).start()

    def cancel(self, slug: str) -> None:
        """Stop a download; the received bytes are kept."""
        fetchable = self.all[slug]
        with self._lock:
            if fetchable.state == "fetching":
                fetchable.state = "stopping"
                fetchable.stop.set()
                (fetchable.manifest.partial / WANTED).unlink(missing_ok=True)

    def _fetch(self, fetchable: Fetchable) -> None:
        manifest = fetchable.manifest
        state: Literal["absent", "failed", "fetched"] = "failed"
        try:
            manifest.partial.mkdir(parents=True, exist_ok=True)
            if not fetchable.stop.is_set():
                (manifest.partial / WANTED).touch()

            def watch(progress: Progress) -> None:
                fetchable.progress = progress

            fetch(manifest, watch, fetchable.stop)
            state = "fetched"
            shutil.rmtree(manifest.partial, ignore_errors=True)  # where another process has fetched it
        except StoppedError:
            state = "absent"
        except InputError as error:
            log.warning("%s", error)
            fetchable.says = str(error)
        except OSError as error:
            log.warning("%s could not be fetched: %s", manifest.name, error)
            fetchable.says = f"{manifest.name}: cannot write to the cache: {error.strerror or error}"
        except Exception as error:
            log.exception("%s could not be fetched", manifest.name)
            fetchable.says = f"{manifest.name}: {type(error).__name__}; the app's log says more"
        if state != "fetched":
            (manifest.partial / WANTED).unlink(missing_ok=True)
            fetchable.progress = Progress(manifest.received(), manifest.size)
        fetchable.state = state
        if state == "fetched":
            self.done(fetchable.slug)


def memory_warning(manifest: Manifest) -> str:
    """Return a warning if there is too little free memory to load the manifest's models, else ""."""
    free = available_memory()
    if free >= manifest.memory:
        return ""
    return f"Loading them needs about {megabytes(manifest.memory)} of free memory; {megabytes(free)} are free here."


def check_memory(manifest: Manifest) -> None:
    """Raise InputError if there is too little free memory to load the manifest's models.

    The operating system kills a process that exceeds the memory, with all its desks.
    """
    if warning := memory_warning(manifest):
        raise InputError(f"{warning} Close other programs, or start the app on a larger machine")


def fetch_first(manifest: Manifest, report: Callable[[str], None]) -> None:
    """Download the files of the configuration that the app starts with.

    Args:
        manifest: The configuration's manifest.
        report: Receives a line of progress at each update; the log gets one every 10 seconds.

    Raises:
        InputError: if the download fails.
    """
    logged_at = 0.0

    def watch(progress: Progress) -> None:
        nonlocal logged_at
        line = f"fetching {manifest.name}, {megabytes(progress.done)} of {megabytes(progress.total)}"
        report(line + (f", from {progress.source}" if progress.source else ""))
        if time.monotonic() - logged_at > 10:  # seconds between lines of the log
            logged_at = time.monotonic()
            log.info("%s", line)

    fetch(manifest, watch)


def choose_first() -> Path:
    """Return the default configuration: a downloaded one that fits in memory, else the bundled demo."""
    for manifest in manifests():
        if manifest.config.is_file() and manifest.is_fetched():
            if not (warning := memory_warning(manifest)):
                return manifest.config
            log.warning("%s is not loaded at the start. %s", manifest.name, warning)
    return DEMO
