"""Reward models of every kind."""

from engine.rewards.function import brevity

__all__ = ["brevity"]
