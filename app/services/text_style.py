"""Length and style of responses: what may sway a vote beside the response's substance."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

LIST_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
HEADING = re.compile(r"^#{1,6}[ \t]+\S", re.MULTILINE)
STYLE: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(text.split()),
    "list items": lambda text: len(LIST_ITEM.findall(text)),
    "bold and headings": lambda text: len(BOLD.findall(text)) + len(HEADING.findall(text)),
    "digits": lambda text: sum(character.isdecimal() for character in text),
    "question marks": lambda text: text.count("?") + text.count("？"),
}


def style_counts(text: str) -> list[int]:
    """Return a text's number of words, list items, bold marks and headings, digits, and question marks."""
    return [count(text) for count in STYLE.values()]


def style_differences(pairs: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
    """Return each feature's difference, first response minus second, in standard deviations.

    The differences are not centred: which response is the first means nothing, so no difference has to stay none.
    Features that do not differ anywhere are left out.

    Args:
        pairs: N pairs of texts.
    """
    known = {text: np.array(style_counts(text), float) for text in {text for pair in pairs for text in pair}}
    if not known:
        return {}
    gaps = np.array([known[first] - known[second] for first, second in pairs])
    scale = np.sqrt(np.mean(np.square(gaps), 0))
    return {name: gaps[:, i] / scale[i] for i, name in enumerate(STYLE) if scale[i] > 0}
