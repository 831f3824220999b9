"""Standings of the rated mixtures: pairwise wins, and the lottery that no mixture beats.

See engine/solvers/nash.py for the lottery.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from app.format import in_short
from app.html import message
from app.services.bank_service import faders_of, in_words
from engine import Mixture
from engine.rules.registry import DEFAULT_RULE, RULES
from engine.solvers.nash import ENOUGH, group, nash, tally
from engine.solvers.ratings import Rating
from engine.solvers.solution import Solution

WIN, LOSS = "#0072b2", "#d55e00"


@dataclass(frozen=True)
class Standing:
    """Standings by ratings.

    Attributes:
        ratings: Number of ratings that count.
        others: Number of ratings of other configurations or policies, which do not.
        mixtures: The M rated mixtures.
        wins: [M, M], wins of the row against the column; a tie counts half for each.
        solution: The lottery, or None if fewer than two mixtures are rated.
    """

    ratings: int
    others: int
    mixtures: list[Mixture]
    wins: np.ndarray
    solution: Solution | None

    @property
    def met(self) -> np.ndarray:
        """[M, M], how often two mixtures were rated against each other."""
        return self.wins + self.wins.T

    def rarest(self) -> tuple[int, int] | None:
        """Return the least-rated pair of mixtures, preferring probable ones, as indices.

        None if every pair has enough ratings, or there is no solution.
        """
        if self.solution is None:
            return None
        chance = [one["probability"] for one in self.solution.lottery]
        pairs = [(i, j) for i in range(len(chance)) for j in range(i)]
        i, j = min(pairs, key=lambda pair: (self.met[pair], -chance[pair[0]] - chance[pair[1]]))
        return (j, i) if self.met[i, j] < ENOUGH else None


def standing_from(ratings: list[Rating], others: int, policies: list[str]) -> Standing:
    """Return the standings by ratings of mixtures of these policies; `others` do not count."""
    mixtures, pairs = group(ratings)
    wins = tally(pairs, np.array([rating.left_wins for rating in ratings]), len(mixtures))
    return Standing(len(ratings), others, mixtures, wins, nash(policies, ratings) if len(mixtures) > 1 else None)


def on_desk(mixture: Mixture, policies: Sequence[str]) -> dict[str, Any] | None:
    """Return {faders, rule, gain, exponent} that set the desk to this mixture; None if the desk cannot express it.

    `faders` is {policy: position}.

    The reference has no fader. In a geometric mixture its weight amounts to a lower gain: Π π_k^{λ_k} π_ref^{1 - s}
    equals π_ref Π (π_k/π_ref)^{λ_k}, where s is the sum of the λ_k.
    """
    weights = {name: mixture.weights.get(name, 0.0) for name in policies}
    heard = sum(weights.values())
    if heard < 1e-9:
        return {"faders": dict.fromkeys(weights, 0.5), "rule": DEFAULT_RULE, "gain": 0, "exponent": 1}
    if heard < 0.995 and not RULES[mixture.rule].is_product:
        return None
    gain = round(mixture.gain * heard, 1)  # as fine as the desk's own
    return {"faders": faders_of(weights), "rule": mixture.rule, "gain": gain, "exponent": mixture.exponent}


def send(mixture: Mixture, policies: Sequence[str], what: str) -> str:
    """Return a button that sends a mixture to the desk (static/js/results.js), or a dash if the desk cannot have it."""
    to = on_desk(mixture, policies)
    if to is None:
        return '<span class="hint" title="The reference has no fader, and this rule no gain for it.">–</span>'
    heard = {name: mixture.weights.get(name, 0.0) for name in policies if mixture.weights.get(name, 0.0) > 0.005}
    words = in_words(heard) if heard else "the reference alone"
    if to["gain"] != 1:
        words += f", gain {to['gain']:g}"
    said = message(f"The faders have {what}: {words}. Press Generate to try it.")
    return (
        f'<button type="button" class="send" data-send="{escape(json.dumps({**to, "said": said}))}" '
        f'aria-label="Send {escape(what)} to the desk">Send to desk</button>'
    )


def empty(found: Standing) -> str:
    """Return the text shown while there are too few ratings, with what is missing and how to add it."""
    have = "No ratings yet."
    if found.ratings:
        one = in_short(found.mixtures[0])
        have = f"{found.ratings} rating{'' if found.ratings == 1 else 's'} so far, all of one mixture, “{one}”."
    if found.others:
        have += f" {found.others} more are of other policies, and do not count here."
    return f"""<h2>Which mixture do people prefer?</h2>
<p><b>{escape(have)}</b> This page needs ratings of two mixtures or more against each other.</p>
<p>On the <b>Desk</b>, choose what Left and Right play, such as Faders and Reference, press <b>Generate</b>, and say
which is better. Some {ENOUGH} ratings of a pair tell a clear preference from chance; three mixtures have three pairs,
four have six. Responses that were steered while they were written do not count: they are of no one mixture.</p>
<p>Then this page shows who wins against whom, and finds the <b>lottery</b> over them that no mixture beats, also where
preferences go in a circle. A button sends its weights to the faders.</p>"""
