"""What Balance can find."""

from __future__ import annotations

BY_REWARDS, BY_POLICIES, FLOORS = "maxmin", "mpo", "floors"
