"""Downloads that go on where they stopped, and say what is wrong in one line."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import httpx

CONNECT, READ = 8.0, 12.0  # seconds without an answer, or without another byte, until a try is given up
TRIES = 4  # in a row that bring nothing, where a server fails after it has begun to send
PAUSE = 1.0  # seconds before the second try; each further one waits twice as long
CHUNK = 1 << 17

Report = Callable[[int], None]


class StoppedError(Exception):
    """The fetch was cancelled."""


class SourceError(Exception):
    """A source does not have a file, or cannot be reached. unusable: it answered, with something else."""

    def __init__(self, reason: str, unusable: bool = False) -> None:
        super().__init__(reason)
        self.unusable = unusable


def size_of(path: Path) -> int:
    """Return a file's size in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def client(ca_file: str | None = None, headers: Mapping[str, str] | None = None) -> httpx.Client:
    """Return a client whose requests end soon where nobody answers. ca_file: certificates to trust."""
    verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if ca_file else True
    return httpx.Client(
        verify=verify, headers=headers, follow_redirects=True, timeout=httpx.Timeout(READ, connect=CONNECT)
    )


def download(
    http: httpx.Client, url: str, target: Path, report: Report, stop: threading.Event, size: int | None = None
) -> None:
    """Append to `target` what it lacks of the file at `url`.

    Args:
        http: The client that asks.
        url: An http or https address.
        target: A file that may hold the beginning already. Each chunk is in it at once, so that a process that is
            killed loses nothing but the chunk under way.
        report: Called with the size of `target` after each chunk.
        stop: Set to cancel.
        size: The file's size, where it is known: another one is refused before it is downloaded.

    Raises:
        SourceError: If the server cannot be reached, refuses, or has a file of another size.
        StoppedError: If `stop` was set.
    """
    failures = 0
    while True:
        before = size_of(target)
        if size is not None and before >= size:
            return
        try:
            if _once(http, url, target, report, stop, size):
                return
            reason = "the connection ended early"
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            reason = _reason(error)
            if size_of(target) == before and failures == 0:
                # It may hang or be unreachable: the next source is worth more than another try.
                raise SourceError(reason) from None
        failures = 1 if size_of(target) > before else failures + 1
        if failures > TRIES:
            raise SourceError(reason)
        if stop.wait(PAUSE * 2 ** (failures - 1)):
            raise StoppedError


def _once(http: httpx.Client, url: str, target: Path, report: Report, stop: threading.Event, size: int | None) -> bool:
    """Ask once. Return whether the file is whole, as far as the server says."""
    if stop.is_set():
        raise StoppedError
    start = size_of(target)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with http.stream("GET", url, headers=headers) as answer:
        if answer.status_code == 416:  # nothing after `start`; whether it is the right content, its SHA-256 will say
            return True
        if answer.status_code not in (200, 206):
            raise SourceError(f"it answers {answer.status_code} {answer.reason_phrase}".strip(), unusable=True)
        if start and answer.status_code == 206 and not _continues(answer, start):
            raise SourceError("it sends another part of the file than the one asked for", unusable=True)
        if answer.status_code == 200:
            start = 0  # it knows no ranges
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        if size is not None and total is not None and total != size:
            raise SourceError(f"its file has {total:,} bytes, not {size:,}", unusable=True)
        with target.open("r+b" if target.exists() else "wb", buffering=0) as file:
            file.truncate(start)
            file.seek(start)
            for chunk in answer.iter_raw():  # as it comes: what is collected first would be lost where it is cut off
                file.write(chunk)
                if size is not None and file.tell() > size:
                    file.truncate(0)
                    raise SourceError(f"its file has more than {size:,} bytes", unusable=True)
                report(file.tell())
                if stop.is_set():
                    raise StoppedError
        return size_of(target) == total if total is not None else True


def _continues(answer: httpx.Response, start: int) -> bool:
    return answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "it does not answer in time"
    if isinstance(error, httpx.ConnectError):
        return f"it cannot be reached ({' '.join(str(error).split()) or 'no connection'})"
    return " ".join(str(error).split()) or type(error).__name__


def copy(
    source: BinaryIO, target: Path, skip: int, report: Report, stop: threading.Event, most: int | None = None
) -> None:
    """Append a stream to `target`, but for its first `skip` bytes; at most `most` bytes. Raises StoppedError."""
    while skip > 0 and (passed := source.read(min(skip, CHUNK))):
        skip -= len(passed)
    with target.open("ab", buffering=0) as file:
        left = most
        while chunk := source.read(CHUNK if left is None else min(CHUNK, left)):
            file.write(chunk)
            left = None if left is None else left - len(chunk)
            report(file.tell())
            if stop.is_set():
                raise StoppedError
