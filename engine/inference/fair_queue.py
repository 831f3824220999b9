"""The queue before the running batch: everybody's turn comes round."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First come, first served among clients; one client's items wait for each other.

    Whoever sends a thousand prompts holds up nobody who sends one.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # one thread puts and takes, any may ask who comes before
        self._by_client: OrderedDict[object, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(items) for items in self._by_client.values())

    def put(self, client: object, item: T, first: bool = False) -> None:
        """first: before all others, for what was under way already."""
        with self._lock:
            if client not in self._by_client:
                self._by_client[client] = deque()
                if first:
                    self._by_client.move_to_end(client, last=False)
            if first:
                self._by_client[client].appendleft(item)
            else:
                self._by_client[client].append(item)

    def peek(self) -> T:
        """Whose turn it is. Raises IndexError if nobody waits."""
        if not self._by_client:
            raise IndexError("nobody waits")
        return next(iter(self._by_client.values()))[0]

    def pop(self) -> T:
        """Take the one whose turn it is; its client goes to the end."""
        with self._lock:
            client, items = next(iter(self._by_client.items()))
            item = items.popleft()
            if items:
                self._by_client.move_to_end(client)
            else:
                del self._by_client[client]
            return item

    def remove(self, item: T) -> bool:
        """Whether it waited."""
        with self._lock:
            for client, items in self._by_client.items():
                if item in items:
                    items.remove(item)
                    if not items:
                        del self._by_client[client]
                    return True
            return False

    def ahead(self, item: T) -> int:
        """How many come before it; -1 if it does not wait."""
        with self._lock:
            queues = [list(items) for items in self._by_client.values()]
            for own, items in enumerate(queues):
                if item in items:
                    turn = items.index(item)
                    # Each client before it in the round has one turn more.
                    return turn + sum(min(len(other), turn + (i < own)) for i, other in enumerate(queues) if i != own)
            return -1
