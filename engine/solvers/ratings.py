"""Files of ratings, as `python -m app export --format jsonl` writes them: what people said of pairs of mixtures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.rules.mixture import Mixture, make_mixture

LEFT_WINS = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}


@dataclass(frozen=True)
class Rating:
    """left_wins: 1 or 0; a half if neither is the better one, both good or both bad."""

    left: Mixture
    right: Mixture
    left_wins: float


def read_ratings(file: str | Path, policies: list[str]) -> list[Rating]:
    """The overall ratings of a file, in order, without those of a response that was steered: it is of no one mixture.

    Raises InputError naming the file and the line, also where a mixture has another policy than these.
    """
    try:
        # A response may hold other ends of lines than \n, which JSON leaves as they are.
        lines = Path(file).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"{file}: {reason}; give what `python -m app export --format jsonl` wrote") from None
    ratings = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            sides = [mixture_of(row[side]["mixture"], policies) for side in ("left", "right")]
            wins = LEFT_WINS[row["choice"]]
            counts = row["objective"] is None and not any(row[side]["steered"] for side in ("left", "right"))
        except InputError as error:
            raise InputError(
                f"{file}, line {number}: {error}; give --config the configuration of the ratings"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"{file}, line {number}: not a rating; expected what `python -m app export --format jsonl` writes"
            ) from None
        if counts:
            ratings.append(Rating(sides[0], sides[1], wins))
    return ratings


def mixture_of(found: dict[str, Any], policies: list[str]) -> Mixture:
    """Return the mixture of one side of a rating. Raises InputError."""
    return make_mixture(found["weights"], policies, found["rule"], found["gain"], found["exponent"])
