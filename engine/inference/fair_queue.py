"""The queue of requests that wait for room in the running batch, round-robin over clients."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A round-robin queue over clients; each client's items are served in the order in which they were put.

    A client with a thousand items does not delay a client with one.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # one thread puts and takes, any may ask who comes before
        self._by_client: OrderedDict[object, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(items) for items in self._by_client.values())

    def put(self, client: object, item: T, first: bool = False) -> None:
        """Add an item of a client.

        Args:
            client: the client.
            item: the item.
            first: put the item before the client's others, and a new client before all others; for requests that were
                running already.
        """
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
        """Return the next item without removing it. Raises IndexError if the queue is empty."""
        if not self._by_client:
            raise IndexError("the queue is empty")
        return next(iter(self._by_client.values()))[0]

    def pop(self) -> T:
        """Remove and return the next item; its client moves to the end of the round."""
        with self._lock:
            client, items = next(iter(self._by_client.items()))
            item = items.popleft()
            if items:
                self._by_client.move_to_end(client)
            else:
                del self._by_client[client]
            return item

    def remove(self, item: T) -> bool:
        """Remove an item, and return whether it was in the queue."""
        with self._lock:
            for client, items in self._by_client.items():
                if item in items:
                    items.remove(item)
                    if not items:
                        del self._by_client[client]
                    return True
            return False

    def ahead(self, item: T) -> int:
        """Return the number of items ahead of an item; -1 if it is not in the queue."""
        with self._lock:
            queues = [list(items) for items in self._by_client.values()]
            for own, items in enumerate(queues):
                if item in items:
                    turn = items.index(item)
                    # Each client before it in the round has one turn more.
                    return turn + sum(min(len(other), turn + (i < own)) for i, other in enumerate(queues) if i != own)
            return -1
