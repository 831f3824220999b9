"""The queue before the batch."""

from __future__ import annotations

import pytest

from engine.inference.fair_queue import FairQueue


def taken(queue: FairQueue[str]) -> list[str]:
    return [queue.pop() for _ in range(len(queue))]


def test_clients_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for client, item in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")]:
        queue.put(client, item)
    order = ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert [queue.ahead(item) for item in order] == list(range(6))
    assert queue.peek() == "a1"
    assert taken(queue) == order


def test_the_place_is_right_after_some_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for client, item in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("b", "b2"), ("b", "b3")]:
        queue.put(client, item)
    queue.pop()
    queue.put("c", "c1")
    ahead = {item: queue.ahead(item) for item in ("a2", "b1", "b2", "b3", "c1", "a1")}
    order = taken(queue)
    assert ahead == {**{item: order.index(item) for item in order}, "a1": -1}


def test_what_was_under_way_goes_before_all() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("a", "a1")
    queue.put("b", "b1")
    queue.put("x", "x1", first=True)
    assert taken(queue) == ["x1", "a1", "b1"]


def test_leaving_the_queue() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("a", "a1")
    queue.put("b", "b1")
    assert queue.remove("a1")
    assert not queue.remove("a1")
    assert len(queue) == 1
    assert taken(queue) == ["b1"]
    with pytest.raises(IndexError):
        queue.peek()


def test_members_of_a_group_share_its_turns() -> None:
    """A client cannot get more turns by more sessions."""
    queue: FairQueue[str] = FairQueue()
    for session in range(3):
        for number in range(2):
            queue.put(("many", session), f"m{session}{number}")
    for item in ("o1", "o2", "o3"):
        queue.put(("one", 0), item)
    queue.put("alone", "a1")
    order = ["m00", "o1", "a1", "m10", "o2", "m20", "o3", "m01", "m11", "m21"]
    assert [queue.ahead(item) for item in order] == list(range(10))
    assert queue.remove("m10") and len(queue) == 9
    assert taken(queue) == ["m00", "o1", "a1", "m11", "o2", "m20", "o3", "m01", "m21"]


def test_the_place_within_groups_is_right_after_some_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(30):
        queue.put((number % 3, number % 7), f"i{number}")
    for _ in range(11):
        queue.pop()
    queue.put((5, 0), "new")
    waiting = [f"i{number}" for number in range(30) if queue.ahead(f"i{number}") >= 0] + ["new"]
    ahead = {item: queue.ahead(item) for item in waiting}
    order = taken(queue)
    assert ahead == {item: order.index(item) for item in order}


def test_a_group_that_may_not_is_skipped_and_keeps_its_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    for client, item in [(("many", 0), "m1"), (("many", 1), "m2"), (("one", 0), "o1"), ("alone", "a1")]:
        queue.put(client, item)
    others = lambda item: not item.startswith("m")  # noqa: E731
    assert queue.peek(others) == "o1"
    assert [queue.pop(others), queue.pop(others)] == ["o1", "a1"]
    with pytest.raises(IndexError):
        queue.peek(others)
    assert taken(queue) == ["m1", "m2"]
