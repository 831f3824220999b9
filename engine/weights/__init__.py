"""Solvers that find weights. Each is one file, in SOLVERS under its name: add a file, and the command line has it."""

from __future__ import annotations

from engine.weights.bsmd import bsmd
from engine.weights.mpo import mpo
from engine.weights.solution import Solution, Solver
from engine.weights.target import target

SOLVERS: dict[str, Solver] = {"mpo": mpo, "bsmd": bsmd, "target": target}

__all__ = ["SOLVERS", "Solution", "Solver"]
