"""`python -m engine`: generate, score, solve, evaluate, serve, bench, fetch, list."""

from __future__ import annotations

from engine.cli import generate, score, solve, evaluate, serve, bench, fetch, list  # isort: skip  # the order of --help
from engine.cli.options import app

COMMANDS = (generate, score, solve, evaluate, serve, bench, fetch, list)  # importing a command adds it to `app`

__all__ = ["COMMANDS", "app"]
