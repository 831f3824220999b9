"""Return freed memory to the operating system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


@functools.cache
def trimmer() -> Callable[[int], int] | None:
    """Return the C library's malloc_trim, or None where there is none (it is glibc's)."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl and macOS; Windows
        return None


def trim_heap() -> None:
    """Return what was freed to the operating system: glibc keeps it for later, which may be gigabytes after a full
    batch."""
    if trim := trimmer():
        trim(0)
