"""The queue of requests that wait for room in the running batch, round-robin over clients."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def group_of(client: object) -> object:
    """Return the group of a client that is a tuple (group, member); other clients are groups of their own."""
    return client[0] if isinstance(client, tuple) else client


class FairQueue(Generic[T]):
    """A round-robin queue over clients; each client's items are served in the order in which they were put.

    A client with a thousand items does not delay a client with one. A client that is a tuple (group, member) shares its
    group's turns: a group with a thousand members does not delay another group, and within the group its members take
    turns.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # one thread puts and takes, any may ask who comes before
        self._by_group: OrderedDict[object, RoundRobin[T]] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(members) for members in self._by_group.values())

    def put(self, client: object, item: T, first: bool = False) -> None:
        """Add an item of a client.

        Args:
            client: the client; a tuple (group, member) for one of several that share their turns.
            item: the item.
            first: put the item before the client's others, and a new client before all others; for requests that were
                running already.
        """
        group = group_of(client)
        with self._lock:
            if group not in self._by_group:
                self._by_group[group] = RoundRobin()
                if first:
                    self._by_group.move_to_end(group, last=False)
            self._by_group[group].put(client, item, first)

    def peek(self, allowed: Callable[[T], bool] = lambda _: True) -> T:
        """Return the next item without removing it.

        Args:
            allowed: whether an item may be next; a group whose next item may not is skipped and keeps its turn.

        Raises:
            IndexError: there is none.
        """
        with self._lock:
            return self._next(allowed)[1].peek()

    def _next(self, allowed: Callable[[T], bool]) -> tuple[object, RoundRobin[T]]:
        for group, members in self._by_group.items():
            if allowed(members.peek()):
                return group, members
        raise IndexError("the queue has no item that is allowed")

    def pop(self, allowed: Callable[[T], bool] = lambda _: True) -> T:
        """Remove and return the item that `peek` returns; its client moves to the end of the round."""
        with self._lock:
            group, members = self._next(allowed)
            item = members.pop()
            if len(members):
                self._by_group.move_to_end(group)
            else:
                del self._by_group[group]
            return item

    def remove(self, item: T) -> bool:
        """Remove an item, and return whether it was in the queue."""
        with self._lock:
            for group, members in self._by_group.items():
                if members.remove(item):
                    if not len(members):
                        del self._by_group[group]
                    return True
            return False

    def ahead(self, item: T) -> int:
        """Return the number of items ahead of an item; -1 if it is not in the queue."""
        with self._lock:
            groups = list(self._by_group.values())
            for place, members in enumerate(groups):
                if (turn := members.ahead(item)) >= 0:
                    return turn + turns_between(turn, place, [len(other) for other in groups])
            return -1


class RoundRobin(Generic[T]):
    """The items of one group's members, which take turns."""

    def __init__(self) -> None:
        self._by_member: OrderedDict[object, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(items) for items in self._by_member.values())

    def put(self, member: object, item: T, first: bool = False) -> None:
        """Add an item of a member; `first` is that of `FairQueue.put`."""
        if member not in self._by_member:
            self._by_member[member] = deque()
            if first:
                self._by_member.move_to_end(member, last=False)
        if first:
            self._by_member[member].appendleft(item)
        else:
            self._by_member[member].append(item)

    def peek(self) -> T:
        """Return the next item without removing it."""
        return next(iter(self._by_member.values()))[0]

    def pop(self) -> T:
        """Remove and return the next item; its member moves to the end of the round."""
        member, items = next(iter(self._by_member.items()))
        item = items.popleft()
        if items:
            self._by_member.move_to_end(member)
        else:
            del self._by_member[member]
        return item

    def remove(self, item: T) -> bool:
        """Remove an item, and return whether it was there."""
        for member, items in self._by_member.items():
            if item in items:
                items.remove(item)
                if not items:
                    del self._by_member[member]
                return True
        return False

    def ahead(self, item: T) -> int:
        """Return the number of the group's items ahead of an item; -1 if it is not there."""
        queues = list(self._by_member.values())
        for place, items in enumerate(queues):
            if item in items:
                turn = items.index(item)
                return turn + turns_between(turn, place, [len(other) for other in queues])
        return -1


def turns_between(turn: int, place: int, sizes: list[int]) -> int:
    """Return how many items of others come before the item number `turn` of the queue at `place` in the round."""
    # Each queue before it in the round has one turn more.
    return sum(min(size, turn + (i < place)) for i, size in enumerate(sizes) if i != place)
