"""Solvers that find weights. Each is one file, which defines SOLVER."""

from __future__ import annotations

from engine.registry import Registry
from engine.solvers.mpo import SOLVER as MPO
from engine.solvers.solution import Solution
from engine.solvers.solver import Solver

SOLVERS: Registry[Solver] = Registry("engine.solvers", "SOLVER")
DEFAULT_SOLVER = MPO.name

__all__ = ["DEFAULT_SOLVER", "SOLVERS", "Solution", "Solver"]
