"""Copies of the ratings in a Hugging Face dataset, for a Space whose disk is erased at restart."""

from __future__ import annotations

import json
import logging
import tempfile
import uuid
from pathlib import Path
from typing import Any

from huggingface_hub import CommitScheduler
from huggingface_hub.errors import HfHubHTTPError

from app.storage.export import uniform_weights
from engine import InputError
from engine.errors import one_line
from engine.files import append_line

log = logging.getLogger("mixdesk")

# What the hub's client raises. Without an answer it is its HTTP library's error, and versions use different ones.
HUB_ERRORS: tuple[type[Exception], ...] = (HfHubHTTPError, *HfHubHTTPError.__bases__, ValueError, OSError)
EVERY = 5.0  # minutes between two pushes; what is new is pushed at the end too


class Mirror:
    """A file of this process's ratings that is pushed to a dataset every few minutes.

    The dataset is private, and created if it is missing.

    Raises:
        InputError: if the dataset cannot be used.
    """

    def __init__(self, dataset: str, token: str, every: float = EVERY) -> None:
        folder = Path(tempfile.mkdtemp(prefix="mixdesk-ratings-"))
        # Another name in every process: none writes over what another has pushed.
        self.file = folder / f"ratings-{uuid.uuid4().hex}.jsonl"
        try:
            self.scheduler = CommitScheduler(
                repo_id=dataset,
                repo_type="dataset",
                folder_path=folder,
                path_in_repo="ratings",
                private=True,
                token=token,
                every=every,
            )
        except HUB_ERRORS as error:
            raise InputError(
                f"MIXDESK_DATASET: cannot use the dataset '{dataset}': {one_line(error)}; "
                "give HF_TOKEN a token that may write, and MIXDESK_DATASET a name such as you/ratings"
            ) from None

    def add(self, pair: dict[str, Any]) -> None:
        """Append a rating with both completions, as `Store.pair` returns it, in the format of the jsonl export.

        A write error is only logged, since the store has the rating.
        """
        try:
            with self.scheduler.lock:
                append_line(self.file, json.dumps(uniform_weights(pair), ensure_ascii=False))
        except OSError:
            log.exception("a rating is in the store, but not in what is pushed to the dataset")

    def close(self) -> None:
        """Push the latest ratings and stop the scheduler."""
        try:
            self.scheduler.push_to_hub()
        except Exception:
            log.exception("the newest ratings could not be pushed to the dataset; they are in %s", self.file)
        self.scheduler.stop()
