"""Solvers that find weights. Each is one file, in SOLVERS under its name: add a file, and the command line has it."""

from __future__ import annotations

from engine.solvers import bsmd, maxmin, mpo, nash, target
from engine.solvers.solution import Solution, Solver

SOLVERS: dict[str, Solver] = {
    "mpo": mpo.mpo,
    "bsmd": bsmd.bsmd,
    "maxmin": maxmin.maxmin,
    "target": target.target,
    "nash": nash.nash,
}
# These take the policies' names and ratings, and need no model; all others take an engine and prompts.
FROM_RATINGS = frozenset({"nash"})

__all__ = ["FROM_RATINGS", "SOLVERS", "Solution", "Solver"]
