"""A bank on disk: in the user's cache, or shipped beside the configuration.

Its file name has a hash of everything that affects the sampled responses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container
from pathlib import Path
from typing import Any

import platformdirs

from engine.config import Config
from engine.errors import InputError
from engine.files import append_line, write_text
from engine.models.config_fingerprint import config_fingerprint
from engine.rules.mixture import Mixture
from engine.sampling import Sampling

Unit = tuple[str, int]  # prompt, number of the round
DIGITS = 4  # of log-probs and rewards in a shipped bank: far finer than its errors, and half the size


class BankFile:
    """A JSON lines file with one line for each prompt and round. A process killed while writing loses at most a line.

    Attributes:
        path: the file in the cache, which is read and extended.
        shipped: the file in banks/ beside the configuration, which is read, and written by `ship`.
        proposals: the names of the proposals.
    """

    def __init__(
        self,
        config: Config,
        sampling: Sampling,
        proposals: dict[str, Mixture],
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.proposals = list(proposals)
        what = {
            "policies": config_fingerprint(config),
            # A bank takes no other settings.
            "sampling": {"max_new_tokens": sampling.max_new_tokens, "temperature": sampling.temperature},
            "proposals": {name: mixture.as_dict() for name, mixture in proposals.items()},
            "seed": seed,
            "version": 1,
        }
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        folder = folder or platformdirs.user_cache_path("mixdesk") / "banks"
        self.path = folder / f"{config.name}-{key}.jsonl"
        self.shipped = config.file.parent / "banks" / self.path.name

    def read(self) -> dict[Unit, list[dict[str, Any]]]:
        """Return {unit: its responses} of both files; incomplete lines are skipped."""
        return {**read_units(self.shipped), **read_units(self.path)}

    def ship(self, prompts: list[str]) -> None:
        """Write the responses to these prompts beside the configuration, to be used wherever its files are the same.

        Raises:
            InputError: if the file cannot be written; an older one is left as it was.
        """
        units = {unit: rows for unit, rows in self.read().items() if unit[0] in prompts}
        lines = [line_of(unit, [shortened(row) for row in rows]) + "\n" for unit, rows in units.items()]
        try:
            write_text(self.shipped, "".join(lines))
        except OSError as error:
            raise InputError(
                f"{self.shipped}: cannot write the bank: {error.strerror}; make room, or make its folder writable"
            ) from None

    def add(self, unit: Unit, responses: list[dict[str, Any]]) -> None:
        """Append the responses of a unit to the file in the cache; when read, the last line of a unit counts."""
        append_line(self.path, line_of(unit, responses))


def whole_rounds(found: Container[Unit], prompts: list[str]) -> int:
    """Return the number of rounds that every one of these prompts has."""
    rounds = 0
    while prompts and all((prompt, rounds) in found for prompt in prompts):
        rounds += 1
    return rounds


def read_units(path: Path) -> dict[Unit, list[dict[str, Any]]]:
    """Return {unit: its responses} of a file, empty if there is none; malformed lines are skipped."""
    found: dict[Unit, list[dict[str, Any]]] = {}
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            found[row["prompt"], row["round"]] = row["responses"]
        except (ValueError, KeyError, TypeError):
            continue
    return found


def line_of(unit: Unit, responses: list[dict[str, Any]]) -> str:
    """Return the JSON line of a unit."""
    return json.dumps({"prompt": unit[0], "round": unit[1], "responses": responses})


def shortened(response: dict[str, Any]) -> dict[str, Any]:
    """Return a response with its log-probs and rewards rounded to DIGITS decimals."""
    numbers = ("log_probs", "rewards")
    return response | {what: {name: round(v, DIGITS) for name, v in response[what].items()} for what in numbers}
