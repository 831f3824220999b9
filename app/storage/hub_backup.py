"""Copies of the ratings in a Hugging Face dataset: for a Space, whose disk is gone when it restarts."""

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

log = logging.getLogger("mixdesk")

EVERY = 5.0  # minutes between two pushes; what is new is pushed at the end too


class Mirror:
    """Ratings are added to a file of this process's own, which is pushed every few minutes.

    The dataset is private, and made if it is missing. Raises InputError if it cannot be.
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
        except (HfHubHTTPError, ValueError, OSError) as error:
            raise InputError(
                f"MIXDESK_DATASET: cannot use the dataset '{dataset}': {one_line(error)}; "
                "give HF_TOKEN a token that may write, and MIXDESK_DATASET a name such as you/ratings"
            ) from None

    def add(self, pair: dict[str, Any]) -> None:
        """A rating with both completions, as Store.pairs has it; written as export's jsonl is. What cannot be written
        is logged: the store has it."""
        try:
            with self.scheduler.lock, self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(uniform_weights(pair), ensure_ascii=False) + "\n")
        except OSError:
            log.exception("a rating is in the store, but not in what is pushed to the dataset")

    def close(self) -> None:
        """Push what is new, for the last time."""
        try:
            self.scheduler.push_to_hub()
        except Exception:
            log.exception("the newest ratings could not be pushed to the dataset; they are in %s", self.file)
        self.scheduler.stop()
