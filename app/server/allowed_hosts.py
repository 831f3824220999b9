"""Refusal of requests that other sites make a browser send, and of host names that are not this desk's.

A page of another site can send requests to any address that its browser reaches, a desk on the same machine included,
and can let its own name point there (DNS rebinding), so that the browser takes the desk for a part of that site.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.server.access import Access, split_host
from app.server.refusals import refusal_response

UNKNOWN_HOST = "This desk is not known by the host name of the request: start it with --allowed-host NAME.\n"
FOREIGN = "Only this desk's own pages may send that.\n"
FOREIGN_PAGE = (
    "Only this desk's own pages may send that. If this is its own page behind a proxy, start it with "
    "--allowed-host NAME, NAME being the host in the page's address.\n"
)
READING = ("GET", "HEAD")
DEFAULT_PORTS = {"http": "80", "https": "443"}
# What a proxy says about a request, and a client may say as well.
FORWARDED = (b"forwarded", b"x-gradio-server", b"x-real-ip", b"x-original-host", b"x-original-url", b"x-rewrite-url")


class AllowedHosts:
    """ASGI middleware that checks Host, Origin and Sec-Fetch-Site, and takes X-Forwarded headers from a trusted proxy.

    Without a trusted proxy, these headers are removed.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        forwarded = last_hops(headers) if self.access.trust_proxy else {}
        hosts = [split_host(host) for host in (headers.get("host", ""), forwarded.get("host")) if host is not None]
        if not all(self.access.allows_host(*host) for host in hosts):
            return await refuse(scope, receive, send, UNKNOWN_HOST, 421)
        if is_foreign_request(scope["method"] if scope["type"] == "http" else "POST", headers, self.access, hosts):
            words = FOREIGN if headers.get("sec-fetch-site") in ("cross-site", "same-site") else FOREIGN_PAGE
            return await refuse(scope, receive, send, words, 403)
        return await self.app(with_forwarded(scope, forwarded), receive, send)


async def refuse(scope: Scope, receive: Receive, send: Send, words: str, status: int) -> None:
    """Send one line of text as the answer, without reading the request's body."""
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008})
    return await refusal_response(scope, words, status)(scope, receive, send)


def is_foreign_request(method: str, headers: Headers, access: Access, hosts: list[tuple[str, str]]) -> bool:
    """Return whether a browser sent the request for a page of another site, other than to show the desk.

    A request with neither Origin nor Sec-Fetch-Site comes from another program than a browser, which no site controls.

    Args:
        method: The HTTP method.
        headers: The request's headers.
        access: The desk's access.
        hosts: (host, port) of the request's Host headers.
    """
    shows_page = method in READING and headers.get("sec-fetch-mode") == "navigate"
    if shows_page:
        return False
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and not is_own_origin(origin, access, hosts)


def is_foreign(request: Request) -> bool:
    """Return whether a browser sent the request from a page of another site."""
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "same-site", "none")


def is_own_origin(origin: str, access: Access, hosts: list[tuple[str, str]]) -> bool:
    """Return whether an Origin header names this desk: the host of the request, or an allowed name.

    An allowed name without a port means the default ports of HTTP and HTTPS: a page at another port is another site's.
    """
    scheme, _, rest = origin.partition("://")
    host, port = split_host(rest)
    default = DEFAULT_PORTS.get(scheme)
    if not host or default is None:
        return False
    port = port or default
    if any(host == own and port == (own_port or default) for own, own_port in hosts):
        return True
    return f"{host}:{port}" in access.names or (port == default and host in access.names)


def last_hops(headers: Headers) -> dict[str, str]:
    """Return {for, host, proto} from the X-Forwarded headers.

    The address and the host are those of the last hop, since earlier ones may be a client's invention. The protocol is
    the first hop's, the one of the page; an invented one harms only its inventor's own page.
    """
    values = {name: headers.getlist(f"x-forwarded-{name}") for name in ("for", "host", "proto")}
    lists = {name: ",".join(value).split(",") for name, value in values.items() if value}
    return {name: hops[0 if name == "proto" else -1].strip() for name, hops in lists.items()}


def with_forwarded(scope: Scope, forwarded: dict[str, str]) -> Scope:
    """Return a scope with the client, scheme and X-Forwarded headers of a trusted proxy, and with no others."""
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if name not in FORWARDED and not name.startswith(b"x-forwarded-")
    ]
    changed = {**scope, "headers": kept}
    if address := forwarded.get("for"):
        bracketed = urlsplit(f"//{address}").hostname if address.startswith("[") else None
        changed["client"] = (bracketed or address, 0)
    if (scheme := forwarded.get("proto", "")) in DEFAULT_PORTS:
        changed["scheme"] = scheme
        kept.append((b"x-forwarded-proto", scheme.encode()))
    if host := forwarded.get("host"):
        kept.append((b"x-forwarded-host", host.encode()))
    return changed
