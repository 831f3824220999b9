"""What the header offers to fetch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Offer:
    """What can be fetched for another configuration. about: what this page's own policies are; opens: whether the other
    one can be opened beside this one, or only when the app starts again."""

    slug: str
    title: str
    size: str
    licence: str
    about: str = ""
    opens: bool = True
