"""Location of the ratings, on a user's machine and on a Hugging Face Space."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAME = "mixdesk.db"
PERSISTENT = Path("/data")  # where a Space has its persistent storage, if it has any


@dataclass(frozen=True)
class Place:
    """Location of the ratings and their copies.

    Attributes:
        db: The store's file.
        dataset: The Hub dataset that receives copies, or None.
        token: The Hub token, or None.
        warning: A notice for the Space's owner, or "".
    """

    db: Path
    dataset: str | None = None
    token: str | None = None
    warning: str = ""


def find_place(db: Path | None, env: Mapping[str, str] = os.environ, persistent: Path = PERSISTENT) -> Place:
    """Choose where ratings are stored.

    Args:
        db: The command line's choice, if any.
        env: Environment variables. Copies go to the dataset `MIXDESK_DATASET` if `HF_TOKEN` is set.
        persistent: The folder of a Space's persistent storage.
    """
    dataset, token = env.get("MIXDESK_DATASET"), env.get("HF_TOKEN")
    warning = ""
    if dataset and not token:
        dataset, warning = None, "MIXDESK_DATASET is set, but no HF_TOKEN: ratings are not copied to the dataset."
    on_space = bool(env.get("SPACE_ID"))
    if db is None and on_space and persistent.is_dir() and os.access(persistent, os.W_OK):
        db = persistent / NAME
    elif on_space and not dataset:
        warning = (
            "Ratings are lost when this Space restarts: give it persistent storage, or set the secrets HF_TOKEN and "
            "MIXDESK_DATASET (such as you/ratings)."
        )
    return Place(db or Path(NAME), dataset or None, token, warning)
