"""The options of signing in with Hugging Face, or with another OpenID provider."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from app.server.access import HUB, is_loopback
from engine.errors import InputError

SCOPES = ("openid", "profile")  # what is needed to know who somebody is


@dataclass(frozen=True)
class SignInOptions:
    """How people sign in, and which of them own the desk.

    Attributes:
        client_id: The id of this app at the provider.
        client_secret: Its secret.
        provider: URL of the provider.
        scopes: What the provider is asked for.
        host: Public host name of a Space, "" elsewhere.
        owners: User names of the owners.
    """

    client_id: str
    client_secret: str = field(repr=False)
    provider: str = HUB
    scopes: tuple[str, ...] = SCOPES
    host: str = ""
    owners: frozenset[str] = frozenset()


def find_sign_in(owners: Sequence[str] = (), env: Mapping[str, str] = os.environ) -> SignInOptions | None:
    """Return the options of signing in, or None if it is not configured.

    Args:
        owners: The owners' user names, as --owner gives them. On a Space its author is the owner if there are none.
        env: Environment variables. A Space with `hf_oauth: true` has OAUTH_CLIENT_ID, _CLIENT_SECRET and _SCOPES,
            OPENID_PROVIDER_URL, SPACE_HOST and SPACE_AUTHOR_NAME.

    Raises:
        InputError: if an option is missing or invalid, or there are owners but nobody can sign in.
    """
    names = owner_names(owners)
    client_id, secret = env.get("OAUTH_CLIENT_ID", "").strip(), env.get("OAUTH_CLIENT_SECRET", "").strip()
    if not client_id:
        if names:
            raise InputError(
                "--owner: nobody can sign in here: set OAUTH_CLIENT_ID and OAUTH_CLIENT_SECRET, or give --owner-token"
            )
        return None
    if not secret:
        raise InputError("OAUTH_CLIENT_SECRET: it is missing; set it, or remove OAUTH_CLIENT_ID")
    provider = env.get("OPENID_PROVIDER_URL", "").strip().rstrip("/") or HUB
    parts = urlsplit(provider)
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname))):
        raise InputError(f"OPENID_PROVIDER_URL: found '{provider[:80]}'; give a URL that begins with https://")
    author = env.get("SPACE_AUTHOR_NAME", "").strip() if env.get("SPACE_ID") else ""
    return SignInOptions(
        client_id=client_id,
        client_secret=secret,
        provider=provider,
        scopes=tuple(dict.fromkeys((*SCOPES, *env.get("OAUTH_SCOPES", "").split()))),
        host=env.get("SPACE_HOST", "").split(",")[0].strip() if env.get("SPACE_ID") else "",
        owners=frozenset(names or ([author] if author else [])),
    )


def owner_names(owners: Sequence[str]) -> list[str]:
    """Return user names, divided by commas or spaces. Raises InputError if one cannot be a user name."""
    names = [name for entry in owners for name in entry.replace(",", " ").split()]
    for name in names:
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise InputError(f"--owner: found '{name[:80]}'; give a user name on Hugging Face, such as ada")
    return names
