"""Limits on how often something may happen for each of many keys, such as network addresses."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque

MAX_KEYS = 10_000  # the longest unused are forgotten


class RateLimit:
    """At most `most` events per key within any `seconds`. Thread-safe."""

    def __init__(self, most: int, seconds: float = 60.0) -> None:
        self.most, self.seconds = most, seconds
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def is_full(self, key: str) -> bool:
        """Return whether another event of a key would be refused, without counting one."""
        with self._lock:
            times = self._times.get(key, deque())
            since = time.monotonic() - self.seconds
            return sum(moment > since for moment in times) >= self.most

    def allow(self, key: str) -> bool:
        """Count an event of a key and return True, or return False if there have been too many."""
        now = time.monotonic()
        with self._lock:
            times = self._times.setdefault(key, deque())
            self._times.move_to_end(key)
            while len(self._times) > MAX_KEYS:
                self._times.popitem(last=False)
            while times and times[0] <= now - self.seconds:
                times.popleft()
            if len(times) >= self.most:
                return False
            times.append(now)
            return True
