"""Location of the ratings, on a user's machine and on a Hugging Face Space."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError

NAME = "mixdesk.db"
MOUNTED = Path("/data")  # where a Space has its storage bucket, if it has one


@dataclass(frozen=True)
class Place:
    """Location of the ratings and their copies.

    Attributes:
        db: The store's file, on a local disk.
        bucket: The folder that receives snapshots of it, such as a mounted storage bucket, or None.
        dataset: The Hub dataset that receives copies, or None.
        token: The Hub token, or None.
        warning: A notice for the Space's owner, or "".
    """

    db: Path
    bucket: Path | None = None
    dataset: str | None = None
    token: str | None = None
    warning: str = ""


def find_place(db: Path | None, env: Mapping[str, str] = os.environ, mounted: Path = MOUNTED) -> Place:
    """Choose where ratings are stored.

    Args:
        db: The command line's choice, if any.
        env: Environment variables. Snapshots go to the folder `MIXDESK_BUCKET`; copies of the ratings go to the dataset
            `MIXDESK_DATASET` if `HF_TOKEN` is set.
        mounted: Where a Space has its storage bucket, unless `MIXDESK_BUCKET` names another folder.

    Raises:
        InputError: if `MIXDESK_BUCKET` is no folder that can be written, or the store's file would be in the bucket.
    """
    dataset, token = env.get("MIXDESK_DATASET"), env.get("HF_TOKEN")
    warning = ""
    if dataset and not token:
        dataset, warning = None, "MIXDESK_DATASET is set, but no HF_TOKEN: ratings are not copied to the dataset."
    on_space = bool(env.get("SPACE_ID"))
    bucket: Path | None = None
    if named := env.get("MIXDESK_BUCKET"):
        bucket = Path(named).expanduser().absolute()
        if not is_writable(bucket):
            raise InputError(f"MIXDESK_BUCKET: {named} is no folder that can be written; mount the bucket there")
    elif on_space and is_writable(mounted):
        bucket = mounted
    db = db or Path(NAME)
    if bucket and bucket.resolve() in db.expanduser().resolve().parents:
        raise InputError(
            f"--db: {db} is in the bucket, where SQLite can lose data; give a path on the local disk, or none: the "
            "bucket has snapshots of it"
        )
    if on_space and not dataset and not bucket:
        warning = (
            "Ratings are lost when this Space restarts: mount a storage bucket at /data, or set the secrets HF_TOKEN "
            "and MIXDESK_DATASET (such as you/ratings)."
        )
    return Place(db, bucket, dataset or None, token, warning)


def is_writable(folder: Path) -> bool:
    """Return whether a path is a folder that this process can write to."""
    return folder.is_dir() and os.access(folder, os.W_OK)
