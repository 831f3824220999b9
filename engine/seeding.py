"""Seeds that depend only on their inputs."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def seed_of(*what: object) -> int:
    """Return a seed from 0 to 2^63 - 1, a hash of the arguments' `repr`."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:8], "big") >> 1
