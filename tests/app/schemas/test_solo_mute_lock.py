from __future__ import annotations

import pytest

from app.schemas.solo_mute_lock import Channels
from engine import InputError

FADERS = {"a": 0.5, "b": 0.25, "c": 0.25}


@pytest.mark.parametrize(
    ("channels", "weights"),
    [
        ({}, [0.5, 0.25, 0.25]),
        ({"mute": ["a"]}, [0, 0.25, 0.25]),
        ({"solo": ["a"]}, [0.5, 0, 0]),
        ({"solo": ["a", "c"]}, [0.5, 0, 0.25]),
        ({"solo": ["a", "c"], "mute": ["a"]}, [0, 0, 0.25]),
        ({"solo": ["a"], "mute": ["a"]}, [0, 0, 0]),
        ({"lock": {"a": 0.8}}, [0.8, 0.1, 0.1]),
        ({"lock": {"a": 0.8}, "mute": ["b"]}, [0.8, 0, 0.2]),
        ({"lock": {"a": 0.8}, "mute": ["a"]}, [0, 0.25, 0.25]),
        ({"lock": {"a": 0.8}, "solo": ["b"]}, [0, 0.25, 0]),
        ({"lock": {"a": 0.6, "b": 0.4}}, [0.6, 0.4, 0]),
        ({"lock": {"a": 0.9, "b": 0.9}}, [0.9, 0.9, 0]),
        ({"lock": {"a": 0.0}}, [0, 0.5, 0.5]),
        ({"mute": ["unknown"], "lock": {"another": 0.9}}, [0.5, 0.25, 0.25]),
    ],
)
def test_what_is_heard(channels, weights):
    assert [*Channels(**channels).weights(FADERS).values()] == pytest.approx(weights)


def test_a_locked_weight_stays_while_the_others_move():
    locked = Channels(lock={"a": 0.3})
    for b in (0.0, 0.1, 1.0):
        weights = locked.weights({"a": 0.9, "b": b, "c": 0.7})
        assert weights["a"] == 0.3 and sum(weights.values()) == pytest.approx(1)
    # With nothing else to share with it is all that is heard.
    assert locked.weights({"a": 0.9, "b": 0, "c": 0}) == {"a": 0.3, "b": 0, "c": 0}


@pytest.mark.parametrize(
    ("channels", "fixed"),
    [
        ({}, {}),
        ({"lock": {"a": 0.8}}, {"a": 0.8}),
        ({"mute": ["b"], "lock": {"a": 0.8}}, {"a": 0.8, "b": 0}),
        ({"mute": ["a"], "lock": {"a": 0.8}}, {"a": 0}),
        ({"solo": ["a", "c"]}, {"b": 0}),
    ],
)
def test_what_no_fader_can_move(channels, fixed):
    found = Channels(**channels)
    assert found.fixed(FADERS) == fixed
    # Whatever the faders of the others are, those weights are these.
    total = {name: weight for name, weight in found.weights(FADERS).items() if name in fixed}
    assert total == pytest.approx(fixed)


def test_what_is_locked_is_not_moved():
    assert Channels(lock={"a": 0.3}).unlocked({"a": 1, "b": 0.5, "c": 1}, ["a", "b"]) == {"b": 0.5}


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"solo": "a"}', '{"lock": {"a": 2}}', '{"lock": {"a": NaN}}', '{"lock": {"a": "1"}}', "[" * 100_000],
)
def test_nonsense_is_told(text):
    with pytest.raises(InputError, match="reload the page"):
        Channels.parse(text)


def test_nothing_is_marked_at_first():
    assert not Channels.parse("") and not Channels.parse(None) and not Channels.parse("{}")
    assert Channels.parse('{"mute": ["a"]}')
