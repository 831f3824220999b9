"""What a store's ratings say: which count, who wins against whom, the lottery, and what goes to the desk."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import unescape

import numpy as np
import pytest
import torch

from app.charts.standings_table import means, standings_caption, standings_table
from app.services.results import lottery_of
from app.services.standings import Standing, empty, on_desk
from app.services.vote_sources import DESK, read_source
from app.storage.database import Store
from app.storage.vote_tables import VoteTables
from engine import Mixture
from engine.rules.mixture import make_mixture
from tests.app.conftest import make_completion

NAMES = ["a", "b", "c"]
COLOURS = {"a": "#0072b2", "b": "#d55e00", "c": "#009e73"}
CORNERS = {name: Mixture({name: 1.0}) for name in NAMES}


def rate(store: Store, pairs: Sequence[tuple[Mixture, Mixture, str]], model: str = "here", **changes: object) -> None:
    start = sum(1 for _ in store.pairs())
    for i, (left, right, choice) in enumerate(pairs, start):
        sides = [make_completion(mixture=mixture, **changes) for mixture in (left, right)]
        assert store.rate(f"r{i}", *sides, choice, "anna", model=model)


def standings_of(store: Store, model: str, policies: list[str]) -> Standing:
    source = read_source(VoteTables(store), DESK, "", model, policies)
    found = lottery_of(source, source.votes, policies)
    assert found is not None
    return found


def of(left: str, right: str, choice: str, times: int = 1) -> list[tuple[Mixture, Mixture, str]]:
    return [(CORNERS[left], CORNERS[right], choice)] * times


def test_wins_are_counted_by_hand(store: Store) -> None:
    rate(store, of("a", "b", "left", 6) + of("b", "a", "left", 2) + of("a", "b", "tie", 2) + of("b", "c", "both_bad"))
    found = standings_of(store, "here", NAMES)
    assert (found.ratings, found.others) == (11, 0)
    assert [max(mixture.weights, key=mixture.weights.__getitem__) for mixture in found.mixtures] == NAMES
    assert found.wins.tolist() == [[0, 7, 0], [3, 0, 0.5], [0, 0.5, 0]]
    assert found.met.tolist() == [[0, 10, 0], [10, 0, 1], [0, 1, 0]]
    # a is even with c, which it never met, and c with b: a loses to none, and c to none.
    assert found.solution is not None
    assert found.solution.weights == pytest.approx({"a": 0.5, "b": 0, "c": 0.5})
    assert "11 ratings of 3 mixtures; 2 of 3 pairs met." in standings_caption(found)
    assert "rate “a” against “c”, which never met" in standings_caption(found)
    shown = standings_table(found, NAMES, COLOURS)
    assert "70%<small>of 10</small>" in shown and "30%<small>of 10</small>" in shown
    assert "50%<small>of 1</small>" in shown


def test_a_circle_is_a_lottery_and_its_errors_are_those_of_other_ratings(store: Store) -> None:
    """Each beats the next in 24 of 30. Ratings drawn anew, from those very rates, spread as the errors say."""
    rounds = [
        pair for left, right in ("ab", "bc", "ca") for pair in of(left, right, "left", 24) + of(left, right, "right", 6)
    ]
    rate(store, rounds)
    found = standings_of(store, "here", NAMES)
    assert found.solution is not None and found.solution.gap == pytest.approx(0, abs=1e-9)
    assert [one["probability"] for one in found.solution.lottery] == pytest.approx([1 / 3] * 3)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(400):
        # By hand: p of each is as the stake of the pair that it is not in.
        stakes = [(won - 15) / 32 for won in rng.binomial(30, 0.8, size=3)]  # ab, bc, ca
        drawn.append(np.array([stakes[1], stakes[2], stakes[0]]) / sum(stakes))
    told = [one["error"] for one in found.solution.lottery]
    assert told == pytest.approx(np.std(drawn, 0), rel=0.35)
    assert found.rarest() is None and "Surer still" not in standings_caption(found)
    assert "Mean weights" in means(found, NAMES)
    assert "too few" not in standings_caption(found).lower()


def test_too_few_ratings_are_told_first_and_in_the_errors(store: Store) -> None:
    rate(store, of("a", "b", "left", 3))
    found = standings_of(store, "here", NAMES)
    told = "Too few ratings for the weights to mean much: 3 a pair, where some 10 tell a preference from chance."
    assert unescape(re.sub("<[^>]*>", "|", standings_caption(found))).startswith(f"|{told}|")
    # √(1/16 · 15/16), as in tests/engine/solvers/test_nash.py; with 200 draws.
    assert (found.solution.lottery[0]["error"] if found.solution else 0) == pytest.approx(0.242, abs=0.04)


def test_only_what_counts_counts(store: Store) -> None:
    rate(store, of("a", "b", "left", 3))
    rate(store, of("a", "b", "right", 5), model="elsewhere")
    rate(store, [(CORNERS["a"], Mixture({"gone": 1.0}), "right")])
    rate(store, of("a", "b", "right"), steered={2: Mixture({"b": 1.0})})
    sides = [make_completion(mixture=CORNERS[name]) for name in "ab"]
    store.rate("kind", *sides, "right", "anna", objective="helpful", model="here")
    found = standings_of(store, "here", NAMES)
    assert (found.ratings, found.others) == (3, 6)
    assert found.wins.tolist() == [[0, 3], [0, 0]]


def test_too_few_are_told_what_to_do(store: Store) -> None:
    nothing = standings_of(store, "here", NAMES)
    assert nothing.solution is None
    assert "No ratings yet." in empty(nothing) and "choose what Left and Right play" in empty(nothing)
    rate(store, of("a", "a", "left"))
    rate(store, of("a", "b", "left", 2), model="elsewhere")
    one = standings_of(store, "here", NAMES)
    assert one.solution is None
    assert "1 rating so far, all of one mixture, “a”. 2 more are of other policies" in empty(one)


def test_many_mixtures_are_cut_short_and_said(store: Store) -> None:
    many = [Mixture({"a": i / 20, "b": 1 - i / 20}) for i in range(1, 16)]
    rate(store, [(many[i], many[i + 1], "left") for i in range(14)])
    found = standings_of(store, "here", NAMES)
    shown = standings_table(found, NAMES, COLOURS)
    assert shown.count("<tr>") == 2 + 12 and "3 more, less likely, are not shown" in shown
    assert found.solution is not None
    assert sum(one["probability"] for one in found.solution.lottery) == pytest.approx(1)


def test_names_are_text(store: Store) -> None:
    evil = '<img src=x onerror=alert("1")>'
    rate(store, [(Mixture({evil: 1.0}), CORNERS["a"], "left")])
    found = standings_of(store, "here", ["a", evil])
    for shown in (
        standings_table(found, ["a", evil], {"a": "red", evil: "blue"}),
        means(found, ["a", evil]),
        standings_caption(found),
    ):
        assert "<img" not in shown


@pytest.mark.parametrize(
    "mixture",
    [
        Mixture({"a": 0.25, "b": 0.75}),
        Mixture({"a": 0.25, "b": 0.75}, "power", 1.0, -2.0),
        Mixture({"a": 0.2, "b": 0.3, "reference": 0.5}),
        Mixture({"b": 0.5, "reference": 0.5}, gain=2.0),
        Mixture({"reference": 1.0}, "soup"),
    ],
)
def test_what_goes_to_the_desk_is_the_same_policy(mixture: Mixture) -> None:
    """Log-probs of random policies under the mixture, and under what the desk makes of what it was sent."""
    to = on_desk(mixture, NAMES)
    assert to is not None
    desk = make_mixture(to["faders"], NAMES, to["rule"], to["gain"], to["exponent"])
    log_probs = torch.randn(4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log_softmax(-1)

    def mixed(which: Mixture) -> torch.Tensor:
        weights = torch.tensor([which.weights.get(name, 0.0) for name in (*NAMES, "reference")], dtype=torch.float64)
        if which.rule == "geometric" or which.weights.get("reference") == 1:
            inner = (weights[:, None] * log_probs).sum(0).log_softmax(-1)
        else:
            p = which.exponent
            inner = ((weights[:, None].log() + p * log_probs).logsumexp(0) / p).log_softmax(-1)
        return (which.gain * inner + (1 - which.gain) * log_probs[3]).log_softmax(-1)

    assert (mixed(mixture) - mixed(desk)).abs().max() < 0.02


def test_what_the_desk_cannot_have_has_no_button(store: Store) -> None:
    odd = Mixture({"a": 0.5, "reference": 0.5}, "power")
    assert on_desk(odd, NAMES) is None
    rate(store, [(odd, CORNERS["b"], "left")])
    shown = standings_table(standings_of(store, "here", NAMES), NAMES, COLOURS)
    sent = [json.loads(unescape(text)) for text in re.findall(r'data-send="([^"]*)"', shown)]
    assert [list(one["faders"].values()) for one in sent] == [[0, 1, 0]]
    assert "The reference has no fader" in shown
