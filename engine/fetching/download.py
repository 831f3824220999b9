"""Resumable downloads with one-line error messages."""

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
    """A source does not have a file, or cannot be reached.

    Attributes:
        unusable: the source responded, but not with the file.
    """

    def __init__(self, reason: str, unusable: bool = False) -> None:
        super().__init__(reason)
        self.unusable = unusable


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def client(ca_file: str | None = None, headers: Mapping[str, str] | None = None) -> httpx.Client:
    """Return an HTTP client with short timeouts.

    Args:
        ca_file: a file of certificates to trust instead of the default ones.
        headers: headers of every request.
    """
    verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if ca_file else True
    return httpx.Client(
        verify=verify, headers=headers, follow_redirects=True, timeout=httpx.Timeout(READ, connect=CONNECT)
    )


def download(
    http: httpx.Client, url: str, target: Path, report: Report, stop: threading.Event, size: int | None = None
) -> None:
    """Download the rest of the file at `url` and append it to `target`.

    Args:
        http: The HTTP client.
        url: An http or https address.
        target: The file, which may hold a beginning already. Chunks are written unbuffered, so that a killed process
            loses at most one chunk.
        report: Called with the size of `target` after each chunk.
        stop: Set to cancel.
        size: The expected size in bytes, if known; a file of another size is refused before it is downloaded.

    Raises:
        SourceError: The server cannot be reached, refuses, or has a file of another size.
        StoppedError: `stop` was set.
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
    """Send one request. Return whether the file is complete according to the server."""
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
    """Append a stream to `target` without its first `skip` bytes, and at most `most` bytes. Raises StoppedError."""
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
