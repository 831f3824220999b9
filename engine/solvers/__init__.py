"""Solvers that find weights. To add one, write its file and register it in SOLVERS; the command line then offers it."""

from __future__ import annotations

from engine.registry import Registry
from engine.solvers.mpo import SOLVER as MPO
from engine.solvers.solution import Solution
from engine.solvers.solver import Solver

SOLVERS: Registry[Solver] = Registry("engine.solvers", "SOLVER")
DEFAULT_SOLVER = MPO.name

__all__ = ["DEFAULT_SOLVER", "SOLVERS", "Solution", "Solver"]
