"""Files of pairwise human ratings of mixtures, as `python -m app export --format jsonl` writes them."""

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
    """A rating of two mixtures. left_wins: 1 or 0; 0.5 if neither is better, both being good or both bad."""

    left: Mixture
    right: Mixture
    left_wins: float


def read_ratings(file: str | Path, policies: list[str]) -> list[Rating]:
    """Return the overall ratings of a file, in order.

    Ratings of one objective are left out, and those with a steered response, which comes from more than one mixture.

    Args:
        file: the JSON lines file.
        policies: the names of the policies that mixtures may have.

    Raises:
        InputError: the file cannot be read, a line is not a rating, or a mixture has another policy; the message names
            the file and the line.
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
    """Return the mixture of a rating's JSON object. Raises InputError if it is not one of these policies."""
    return make_mixture(found["weights"], policies, found["rule"], found["gain"], found["exponent"])
