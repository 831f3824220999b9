"""Votes as columns: what every evaluation of them reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

FIRST, SECOND, TIE, BOTH_BAD = range(4)  # outcomes


@dataclass(frozen=True)
class Votes:
    """N votes on one question. An item is a pair of responses to one prompt, by two systems.

    Attributes:
        systems: Names of the systems.
        annotators: Names of the annotators.
        prompts: Keys of the prompts.
        items: Keys of the items.
        first: [N], index of the first response's system.
        second: [N], index of the second's.
        outcome: [N], FIRST or SECOND is better, TIE (both are good), or BOTH_BAD.
        annotator: [N], index of the annotator.
        prompt: [N], index of the prompt.
        item: [N], index of the item.
        swapped: [N], 0 if the first response was on the left, 1 if on the right, -1 if that is not known.
        repeat: [N], whether the annotator had rated this item before; repeats measure consistency, nothing else.
        weight: [N], one over the probability with which the item was chosen, as a multiple of the mean of that.
        seconds: [N], time that the vote took; NaN if not known.
        features: {name: [N]}, differences of the first and the second response that may explain votes, such as of
            length.
    """

    systems: list[str]
    annotators: list[str]
    prompts: list[str]
    items: list[str]
    first: np.ndarray
    second: np.ndarray
    outcome: np.ndarray
    annotator: np.ndarray
    prompt: np.ndarray
    item: np.ndarray
    swapped: np.ndarray
    repeat: np.ndarray
    weight: np.ndarray
    seconds: np.ndarray
    features: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.outcome)
