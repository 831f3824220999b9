"""The methods of Balance."""

from __future__ import annotations

from engine.solvers import maxmin, mpo

BY_REWARDS, BY_POLICIES, FLOORS = maxmin.SOLVER.name, mpo.SOLVER.name, "floors"
