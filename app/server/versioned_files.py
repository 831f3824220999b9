"""Files of a page that a browser may keep for ever, since a changed file has another address."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

IMMUTABLE = "public, max-age=31536000, immutable"


def read_files(folder: Path, suffixes: Collection[str]) -> dict[str, bytes]:
    """Return the files with these suffixes in a folder and those below it: {path in the folder: content}, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in suffixes)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return a digest of all files. It is part of their addresses, so that no browser mixes two versions."""
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]
