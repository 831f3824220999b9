"""The sender of a request: its browser, its address, and whether it is the desk's owner."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from starlette.requests import Request

KEY = "mixdesk.visitor"  # of a request's ASGI scope


@dataclass(frozen=True)
class Account:
    """An account of somebody who is signed in: `key` is of one person for all time, `name` is what they are called."""

    key: str
    name: str


@dataclass(frozen=True)
class Visitor:
    """The sender of a request.

    Attributes:
        browser: Random id of the browser, from its HttpOnly cookie; "" for a client without cookies.
        address: Network address: the peer's, or the client's as a trusted proxy reports it.
        owner: Whether it may change what others made.
        account: Who is signed in, None if nobody is.
    """

    browser: str = ""
    address: str = ""
    owner: bool = True
    account: Account | None = None


ANYBODY = Visitor()  # where there are no other visitors


def visitor_of_scope(scope: Mapping[str, Any]) -> Visitor:
    """Return the visitor that app/server/visitors.py put into a request's scope.

    Without it, as in an application that is served without app/server/guard.py, everybody is the owner.
    """
    known = scope.get(KEY)
    return known if isinstance(known, Visitor) else Visitor(address=(scope.get("client") or ("",))[0])


def visitor_of(request: gr.Request) -> Visitor:
    """Return the visitor that caused an event of the page."""
    return visitor_of_scope(request.request.scope) if request.request else Visitor()


def is_owners(request: Request) -> bool:
    """Return whether a request is sent by the desk's owner."""
    return visitor_of_scope(request.scope).owner


def session(request: gr.Request) -> str:
    """Return the id of the browser session that sent the request.

    It consists of Gradio's session hash and the browser's id: the hash alone, as found in a log, opens nothing.
    """
    return session_of(visitor_of(request), str(request.session_hash))


def session_of(visitor: Visitor, session_hash: str) -> str:
    """Return the id of a visitor's session."""
    return f"{visitor.browser}:{session_hash}" if visitor.browser else session_hash


def browser_of(session: str) -> str:
    """Return the id of a session's browser, "" for a client without cookies."""
    return session.rpartition(":")[0]


def is_session_of(visitor: Visitor, session: str) -> bool:
    """Return whether a session, as `session` returns it, is this visitor's browser's."""
    return session.startswith(f"{visitor.browser}:") if visitor.browser else ":" not in session


def network_of(address: str) -> str:
    """Return the network address that limits count by: of IPv6 the /64 network, which one client may have whole."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if known.version == 6 and (mapped := known.ipv4_mapped) is None:
        return str(ipaddress.ip_network((known, 64), strict=False))
    return str(mapped if known.version == 6 else known)
