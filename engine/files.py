"""Write files that survive a process being killed at any time."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty hidden file beside `path` that replaces it when the block ends.

    If the block fails, or the process is interrupted or terminated in it, the hidden file is removed and `path` is left
    as it was. A symbolic link stays one: the file that it points to is replaced.

    Raises:
        OSError: if `path` is no regular file or cannot be written; its `filename` is `path`.
    """
    with naming(path):
        target = Path(os.path.realpath(path))
        check_target(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(hidden_name())
        with exiting_on_sigterm():
            try:
                os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
                if target.exists():
                    shutil.copymode(target, partial)
                yield partial
                flush_to_disk(partial)
                os.replace(partial, target)
            except BaseException:
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
                raise


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder within `folder`; when the block ends its files are moved to the same places in `folder`.

    If the block fails, or the process is interrupted or terminated in it, `folder` is left as it was.

    Raises:
        OSError: if a file cannot be written.
    """
    made = not folder.exists()
    partial = folder / hidden_name()
    with naming(folder), exiting_on_sigterm():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            yield partial
            files = sorted(file for file in partial.rglob("*") if file.is_file())
            for file in files:
                flush_to_disk(file)
            for file in files:
                target = folder / file.relative_to(partial)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            if made:
                with suppress(OSError):  # not empty, or not made
                    folder.rmdir()
            raise
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically: other processes see either the old file or the new one. Raises OSError."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically. Raises OSError."""
    write_text(path, json.dumps(value))


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, after a line break if the file ends within a line that was not written completely.

    Raises:
        OSError: if the file cannot be written; its `filename` is `path`.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(line.encode() + b"\n")


def check_target(path: Path) -> None:
    """Raise OSError if a file cannot be replaced because it is a folder, a device or a pipe, or may not be written."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "It is a device or a pipe, not a file", str(path))
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def hidden_name() -> str:
    """Return a new name for a file that is not written completely."""
    return f".mixdesk-{secrets.token_hex(16)}.partial"


def flush_to_disk(path: Path) -> None:
    """Wait until a file's content is on the disk, so that no power cut leaves an empty file under its final name."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a path in the errors of the system that do not name a file, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit in the block; by default it ends the process before partial files are removed.

    Does nothing outside the main thread, or where the program handles the signal itself.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
