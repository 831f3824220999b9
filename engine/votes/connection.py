"""Which systems votes connect, and where the votes are too one-sided for strengths to exist."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components


def components_of(met: np.ndarray) -> np.ndarray:
    """Return the index of each system's component [M]; no vote connects two components.

    Args:
        met: [M, M], number of votes between two systems.
    """
    return connected_components(csr_matrix(met > 0), directed=False)[1]


def is_one_sided(wins: np.ndarray, ties: np.ndarray) -> bool:
    """Return whether no finite strengths maximise the likelihood of votes that connect all systems.

    They exist if no group of systems has only wins against the rest, and, where there are ties, if the wins alone go in
    a circle somewhere (two systems that beat each other do). Otherwise the votes are the more probable, the further
    apart the strengths and the larger the tie parameter.

    Args:
        wins: [M, M], wins of the row against the column.
        ties: [M, M], symmetric.
    """
    if connected_components(csr_matrix(wins + ties > 0), directed=True, connection="strong")[0] > 1:
        return True
    return (
        bool((ties > 0).any())
        and len(wins) == connected_components(csr_matrix(wins > 0), directed=True, connection="strong")[0]
    )


def mark_of(wins: int, losses: int, ties: int, one_sided: bool) -> str:
    """Return why a system's rating is less than it seems, in a few words; empty if nothing is the matter."""
    if not wins + losses + ties:
        return "no votes"
    if not one_sided:
        return ""
    if not losses + ties:
        return "only wins"
    if not wins + ties:
        return "only losses"
    return "only ties" if not wins + losses else "one-sided votes"
