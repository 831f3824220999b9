"""API keys: with them every request must have one, without them only programs on this machine are served."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from engine.api.api_error import ApiError
from engine.errors import InputError

VARIABLE = "MIXDESK_API_KEYS"
SHORTEST = 16  # characters of a key
NO_KEY = "Give an API key: Authorization: Bearer KEY."
WRONG_KEY = "This API key is not one of the server's."
NO_KEYS = f"The server has no API keys, so that it serves only programs on its own machine: start it with {VARIABLE}."
FOREIGN = f"Without API keys, web pages and other host names are not served: start the server with {VARIABLE}."


class ApiKeys:
    """The keys of a server, and who sends a request by them."""

    def __init__(self, keys: Iterable[str] = (), local: bool = True) -> None:
        """Take the keys.

        Args:
            keys: the keys; if there are none, only requests from loopback addresses are allowed.
            local: whether a loopback address means this machine's user; behind a proxy on this machine it does not,
                and without keys nobody is allowed.

        Raises:
            InputError: a key is too short, or is not printable ASCII.
        """
        self.keys = [key.encode() for key in dict.fromkeys(map(check_key, keys))]
        self.local = local

    @classmethod
    def read(cls, text: str | None = None, local: bool = True) -> ApiKeys:
        """Return the keys of a text with commas between them, that of the environment if None. Raises InputError."""
        text = os.environ.get(VARIABLE, "") if text is None else text
        return cls((key for key in map(str.strip, text.split(",")) if key), local)

    def caller(self, scope: Mapping[str, Any]) -> str:
        """Return who sends a request: the number of its key, or its address.

        Raises:
            ApiError: it has no key of the server; or the server has none, and it is no local program's.
        """
        headers = Headers(scope=scope)  # type: ignore[arg-type]
        if self.keys:
            return self._by_key(headers.get("authorization", ""))
        address = (scope.get("client") or ("",))[0]
        if not self.local or not is_loopback_address(address):
            raise ApiError(401, NO_KEYS, "invalid_api_key")
        if not is_local_program(headers):
            raise ApiError(401, FOREIGN, "invalid_api_key")
        return address

    def refusal(self, request: Request) -> Response | None:
        """Return the answer to a request whose sender may not send it, else None."""
        try:
            self.caller(request.scope)
        except ApiError as error:
            return error.response()
        return None

    def _by_key(self, header: str) -> str:
        scheme, _, given = header.partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise ApiError(401, NO_KEY, "invalid_api_key", {"WWW-Authenticate": "Bearer"})
        # All are compared, each in constant time: the time says nothing of any.
        equal = [hmac.compare_digest(given.strip().encode(), key) for key in self.keys]
        if not any(equal):
            raise ApiError(401, WRONG_KEY, "invalid_api_key", {"WWW-Authenticate": "Bearer"})
        return f"key {equal.index(True) + 1}"


def check_key(key: str) -> str:
    """Return a key. Raises InputError if it is too short to be secret, or cannot be sent in a header."""
    if len(key) < SHORTEST:
        raise InputError(f"{VARIABLE}: a key has {len(key)} characters; give {SHORTEST} or more")
    if not all("!" <= character <= "~" for character in key):
        raise InputError(f"{VARIABLE}: a key has a space or a character beyond ASCII; give letters, digits and signs")
    return key


def is_loopback_address(address: str) -> bool:
    """Return whether an address is this machine itself."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(known, "ipv4_mapped", None)
    return (mapped or known).is_loopback


def is_local_program(headers: Headers) -> bool:
    """Return whether a request from this machine is a program's, or a page's of this server.

    A browser on this machine sends what any site's page asks for: from there with an Origin header of that site, or
    with a Host header of that site whose name was made to point here.
    """
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    try:
        host, origin = urlsplit(f"//{headers.get('host', '')}"), headers.get("origin")
        if host.hostname != "localhost" and not is_loopback_address(host.hostname or ""):
            return False
        return origin is None or urlsplit(origin).netloc == host.netloc
    except ValueError:
        return False
