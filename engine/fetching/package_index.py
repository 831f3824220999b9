"""Find wheels on the Python package index that pip is configured for; nothing is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import httpx

from engine.fetching.download import SourceError
from engine.fetching.manifest import Wheel

PYPI = "https://pypi.org/simple"
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def pip_settings() -> dict[str, str]:
    """Return pip's settings as {"index-url": ...}, from its files and, with precedence, from the environment."""
    settings: dict[str, str] = {}
    try:
        command = [sys.executable, "-m", "pip", "config", "--quiet", "list"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.SubprocessError):
        listed = ""
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.strip().partition(".")
        if section in ("global", "install"):
            settings[name] = value.strip().strip("'\"")
    for name in ("index-url", "extra-index-url", "cert", "no-index"):
        if setting := os.environ.get(f"PIP_{name.upper().replace('-', '_')}"):
            settings[name] = setting
    return settings


def index_urls(settings: dict[str, str]) -> list[str]:
    """Return the addresses of the simple indexes, the main one first. Raises SourceError if pip may use none."""
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        raise SourceError("pip is configured to use none (no-index)")
    urls = [settings.get("index-url") or os.environ.get("UV_DEFAULT_INDEX") or PYPI]
    urls += settings.get("extra-index-url", "").split()
    return [url.rstrip("/") for url in urls if url.startswith(("http://", "https://"))]


def ca_file(settings: dict[str, str]) -> str | None:
    """Return the file of certificates that pip is configured to trust, if there is one."""
    candidates = [os.environ.get(name) for name in CERTIFICATES]
    return next((path for path in (settings.get("cert"), *candidates) if path and os.path.isfile(path)), None)


def wheel_url(http: httpx.Client, indexes: list[str], wheel: Wheel) -> str:
    """Return the address of a wheel on the first index that has it. Raises SourceError if none has the pinned file."""
    reasons = []
    for index in indexes:
        try:
            page = f"{index}/{wheel.project}/"
            answer = http.get(page, headers={"Accept": ACCEPT})
            if answer.status_code != 200:
                reasons.append(f"no {wheel.project} at {shown_url(index)} ({answer.status_code})")
                continue
            for name, url, sha256 in files_of(answer):
                if name == wheel.wheel and sha256 in (None, wheel.sha256):
                    return urljoin(str(answer.url), url)
            reasons.append(f"no {wheel.wheel} with the pinned SHA-256 at {shown_url(index)}")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = "does not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
            reasons.append(f"{shown_url(index)} {why}")
    raise SourceError("; ".join(reasons) or "pip has no index with an http address")


def shown_url(index: str) -> str:
    """Return the host of an index for messages, since its address may contain a password."""
    return urlsplit(index).hostname or index


def files_of(answer: httpx.Response) -> Iterator[tuple[str, str, str | None]]:
    """Yield the name, address and SHA-256 (None if not given) of the files on a project's page (PEP 503 or 691)."""
    if "json" in answer.headers.get("Content-Type", ""):
        try:
            for file in answer.json()["files"]:
                yield file["filename"], file["url"], file.get("hashes", {}).get("sha256")
        except (json.JSONDecodeError, KeyError, TypeError):
            raise SourceError(f"{answer.url.host} answers with something that is no index") from None
        return
    links = Links()
    links.feed(answer.text)
    for link in links.found:
        url, fragment = urldefrag(link)
        sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
        yield unquote(urlsplit(url).path.rsplit("/", 1)[-1]), url, sha256


class Links(HTMLParser):
    """Collect the links of an HTML page in `found`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the target of a link."""
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]
