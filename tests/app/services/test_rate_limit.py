"""How often something may happen."""

from __future__ import annotations

import pytest

from app.services import app_state, rate_limit
from app.services.app_state import Desk
from app.services.rate_limit import RateLimit
from app.services.visitor import network_of
from engine import Engine, InputError, Sampling


def test_a_key_has_so_many_within_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(rate_limit.time, "monotonic", lambda: now[0])
    limit = RateLimit(2, 60)
    assert [limit.allow("a") for _ in range(3)] == [True, True, False]
    assert limit.allow("b")
    now[0] = 59.0
    assert not limit.allow("a") and limit.is_full("a") and not limit.is_full("b") and not limit.is_full("c")
    now[0] = 60.0
    assert not limit.is_full("a"), "to ask counts as an event"
    assert [limit.allow("a") for _ in range(3)] == [True, True, False]


def test_only_so_many_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_KEYS", 10)
    limit = RateLimit(1)
    for number in range(100):
        limit.allow(str(number))
    assert not limit.allow("99") and limit.allow("0")


def test_a_client_does_not_choose_its_network() -> None:
    assert network_of("2001:db8:1:2:aaaa::1") == network_of("2001:db8:1:2:bbbb::2") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:9.9.9.9") == network_of("9.9.9.9") == "9.9.9.9"
    assert network_of("testclient") == "testclient"


def test_ratings_of_an_address_are_limited(store, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_state, "RATINGS", 2)
    desk = Desk(tiny_engine, store)
    mixtures = {side: desk.engine.mixture() for side in ("left", "right")}

    def rate(number: int, address: str) -> bool:
        run = desk.start(f"session {number}", "mix", mixtures, Sampling(max_new_tokens=4), 1, address=address)
        while not run.done:
            pass
        return desk.rate(f"session {number}", f"rating-{number}", "left", "anna", address)

    assert rate(0, "9.9.9.9") and rate(1, "9.9.9.9")
    with pytest.raises(InputError, match="more than 2 came from your address within a minute"):
        rate(2, "9.9.9.9")
    assert rate(3, "8.8.8.8")
    assert store.db.table("ratings").count == 3
