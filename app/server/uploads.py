"""The folder of uploaded files: one of this process's own, with a limit on its size."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradio.utils import get_upload_folder

from app.services.rate_limit import RateLimit

FOLDER = "GRADIO_TEMP_DIR"  # the environment variable that Gradio reads
MAX_UPLOADS = 500_000_000  # bytes; app/ui/page.py says when uploaded files are deleted
UNFINISHED = 900.0  # seconds after which what came of an upload that was broken off is deleted
PER_MINUTE = 20  # uploads from a network address


@contextmanager
def own_folder() -> Iterator[None]:
    """Have Gradio keep its files in a folder that is deleted when the block is left, unless one is set."""
    if os.environ.get(FOLDER):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="mixdesk-", ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER]


class UploadRoom:
    """The limits on uploads."""

    def __init__(self) -> None:
        self.uploads = RateLimit(PER_MINUTE)

    def refusal(self, address: str) -> tuple[str, int] | None:
        """Return the message and status of a refused upload from a network address, or None if it may come."""
        if not self.uploads.allow(address):
            return f"More than {PER_MINUTE} files came from your address within a minute: try again in a minute.\n", 429
        if make_room(Path(get_upload_folder())) >= MAX_UPLOADS:
            return "The desk has no room for another file until older ones are deleted: try again in an hour.\n", 507
        return None


def make_room(folder: Path) -> int:
    """Delete what is left of uploads that were broken off, and return the bytes of all files in the folder.

    Gradio deletes the files that arrived; of one that did not, it leaves a temporary file behind.
    """
    size, oldest = 0, time.time() - UNFINISHED
    for path in folder.rglob("*"):
        try:
            status = path.stat()
            if not path.is_file():
                continue
            if path.parent == folder and path.name.startswith("tmp") and status.st_mtime < oldest:
                path.unlink()
            else:
                size += status.st_size
        except OSError:  # deleted meanwhile
            continue
    return size
