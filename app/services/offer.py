"""A download offered in the header."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Offer:
    """A download for another configuration.

    `about` describes this page's own policies. `opens` is whether the other configuration can be opened beside this
    one, or only after a restart.
    """

    slug: str
    title: str
    size: str
    licence: str
    about: str = ""
    opens: bool = True
