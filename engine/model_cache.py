"""The folder of fetched models in the user's cache, and the digests of its files."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path

import platformdirs

from engine.files import write_json

log = logging.getLogger("mixdesk")


def models_folder() -> Path:
    """Return the folder of fetched models; a model is at `<organisation>/<repository>` in it, as on the hub."""
    return platformdirs.user_cache_path("mixdesk") / "models"


def fetched(source: str) -> Path | None:
    """Return the path of a fetched model, `org/repo` or `org/repo/file.gguf`; None if it is not in the cache.

    A model in the cache is complete: `engine.fetching.fetch` moves it there after checking its SHA-256.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)+", source):
        return None
    path = models_folder() / source
    return path if path.exists() else None


def digest(file: Path) -> str:
    """Return the SHA-256 of a file as hex digits, cached until its size or modification time changes."""
    known = models_folder() / "digests.json"
    path, status = str(file.resolve()), file.stat()
    try:
        digests = json.loads(known.read_text(encoding="utf-8"))
        size, changed, sha256 = digests[path]
        if (size, changed) == (status.st_size, status.st_mtime_ns):
            return sha256
    except KeyError:
        pass
    except (OSError, ValueError, TypeError):
        digests = {}
    sha256 = sha256_of(file)
    digests[path] = [status.st_size, status.st_mtime_ns, sha256]
    try:
        write_json(known, digests)
    except OSError as error:
        log.info("the digest of %s is not kept: %s", file, error)
    return sha256


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    sha256 = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(1 << 20):
            sha256.update(part)
    return sha256.hexdigest()
