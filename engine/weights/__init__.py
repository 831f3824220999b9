"""Solvers that find weights. Each is one file, in SOLVERS under its name: add a file, and the command line has it."""

from __future__ import annotations

from engine.weights import bsmd, mpo, target
from engine.weights.solution import Solution, Solver

SOLVERS: dict[str, Solver] = {"mpo": mpo.mpo, "bsmd": bsmd.bsmd, "target": target.target}

__all__ = ["SOLVERS", "Solution", "Solver"]
