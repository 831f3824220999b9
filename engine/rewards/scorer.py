"""Types of the functions that compute rewards."""

from __future__ import annotations

import logging
from collections.abc import Callable

from engine.messages import Prompt

log = logging.getLogger("mixdesk")

# (prompt, response text, response tokens if they are known)
Scored = tuple[Prompt, str, "list[int] | None"]
Scorer = Callable[[list[Scored]], list[float]]
