"""The options of a desk's access: by which names it is reached, through which proxy, and who owns it."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from engine.errors import InputError

ALL_INTERFACES = ("0.0.0.0", "::", "")
HUB = "https://huggingface.co"  # shows a Space in a frame
MIN_TOKEN = 16  # characters of an owner's token


@dataclass(frozen=True)
class Access:
    """Who may talk to a desk, and who owns it.

    Attributes:
        names: Allowed host names, each with a port where only that one is meant.
        any_address: Whether every IP address is allowed as a host, for a desk that listens on all interfaces. A browser
            that opened an IP address is on that machine's own page, so this allows no other site.
        trust_proxy: Whether X-Forwarded-For, -Host and -Proto are those of a proxy.
        framed_by: Origins that may show the desk in a frame.
        owner_token: The secret that makes a browser the owner's; "" if there is none.
        hosted: Whether others than the person at this machine may reach it. Otherwise, everybody is the owner.
        owners: User names that own it when they have signed in.
    """

    names: frozenset[str] = frozenset()
    any_address: bool = False
    trust_proxy: bool = False
    framed_by: tuple[str, ...] = ()
    owner_token: str = ""
    hosted: bool = False
    owners: tuple[str, ...] = ()

    def allows_host(self, host: str, port: str) -> bool:
        """Return whether a request's Host header, divided by `split_host`, names this desk."""
        if not host:
            return False
        if is_loopback(host) or host in self.names or f"{host}:{port}" in self.names:
            return True
        return self.any_address and is_address(host)


def find_access(
    host: str,
    root: str = "",
    allowed: Sequence[str] = (),
    trust_proxy: bool = False,
    owner_token: str = "",
    env: Mapping[str, str] = os.environ,
    owners: Iterable[str] = (),
) -> Access:
    """Return the access of a desk.

    Args:
        host: The address that it listens on.
        root: The path or URL at which a proxy shows it.
        allowed: More host names, as --allowed-host gives them.
        trust_proxy: Whether it is behind a proxy that sets the X-Forwarded headers.
        owner_token: The owner's secret, or "".
        env: Environment variables; `SPACE_HOST` names a Hugging Face Space, which is always behind a proxy.
        owners: User names that own the desk when they have signed in.

    Raises:
        InputError: if a host name or the token is invalid.
    """
    owners = tuple(sorted(owners))
    names = {allowed_name(name) for entry in allowed for name in entry.replace(",", " ").split()}
    on_space = bool(env.get("SPACE_ID"))
    names |= {allowed_name(name) for name in env.get("SPACE_HOST", "").replace(",", " ").split()} if on_space else set()
    if url := urlsplit(root).netloc:
        names.add(allowed_name(url.rpartition("@")[2]))
    # Behind a proxy on the same machine, everybody's requests come from a loopback address.
    reached_by_others = trust_proxy or any(not is_loopback(split_host(name)[0]) for name in names)
    any_address = host in ALL_INTERFACES
    if any_address and not allowed:
        names.add(socket.gethostname().lower())
    elif not any_address:
        names.add(host.lower())
    if owner_token and len(owner_token) < MIN_TOKEN:
        raise InputError(f"--owner-token: it has {len(owner_token)} characters; give {MIN_TOKEN} or more")
    return Access(
        names=frozenset(names),
        any_address=any_address,
        trust_proxy=trust_proxy or on_space,
        framed_by=(HUB,) if on_space else (),
        owner_token=owner_token,
        hosted=bool(owner_token or owners) or on_space or reached_by_others or not is_loopback(host),
        owners=owners,
    )


def describe_access(access: Access, host: str) -> list[str]:
    """Return the lines that the app prints at the start about who may reach a hosted desk."""
    if not access.hosted:
        return []
    lines = []
    if host in ALL_INTERFACES:
        names = ", ".join(sorted(access.names)) or "no host name"
        lines.append(f"It answers at any IP address of this machine and as {names}; --allowed-host NAME adds a name.")
    if access.owners:
        lines.append(f"Owner by signing in: {', '.join(access.owners)}.")
    elif not access.owner_token:
        lines.append("Nobody can load other configurations here: set MIXDESK_OWNER_TOKEN to have an owner.")
    return lines


def allowed_name(name: str) -> str:
    """Return a host name as it is compared, with its port if it has one.

    Raises:
        InputError: if it is not a host name, such as a URL.
    """
    host, port = split_host(name.strip())
    if not host or "/" in host or "*" in host:
        raise InputError(
            f"--allowed-host: found '{name}'; give a host name such as desk.example.org, or one with :port"
        )
    return f"{host}:{port}" if port else host


def split_host(header: str) -> tuple[str, str]:
    """Return (host, port) of a Host header in lower case; the port is "" if there is none.

    An IPv6 address is returned without its brackets. A malformed header gives ("", "").
    """
    try:
        parts = urlsplit(f"//{header}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "", ""
    if parts.netloc != header or "@" in header or any(character.isspace() for character in header):
        return "", ""
    return host.rstrip("."), "" if port is None else str(port)


def is_address(host: str) -> bool:
    """Return whether a host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself: localhost, 127.0.0.0/8 or ::1."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
