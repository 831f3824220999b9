"""The leaderboard: against evalica's published rankings, scipy's optimiser, and votes that say little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from engine.votes.leaderboard import leaderboard
from engine.votes.table import BOTH_BAD, FIRST, SECOND, TIE, Votes
from tests.engine.votes.studies import public_leaderboard, public_votes, simulate, votes_of

POINTS = 400 / np.log(10)
# (first, second): wins of the first, wins of the second, ties
SMALL = {
    ("a", "b"): (9, 4, 3),
    ("a", "c"): (12, 3, 1),
    ("b", "c"): (6, 5, 4),
    ("c", "d"): (7, 6, 2),
    ("d", "a"): (2, 8, 0),
}


def small() -> Votes:
    rows = []
    for (first, second), (wins, losses, ties) in SMALL.items():
        rows += [(first, second, FIRST)] * wins + [(first, second, SECOND)] * losses
        rows += [(first, second, TIE)] * (ties - ties // 2) + [(first, second, BOTH_BAD)] * (ties // 2)
    people = [f"person {at % 7}" for at in range(len(rows))]
    return votes_of(list("abcd"), rows, annotators=people, prompts=[f"prompt {at % 11}" for at in range(len(rows))])


def davidson_by_scipy(weights: dict[str, float] | None = None) -> np.ndarray:
    """Return log-strengths [4] that maximise the likelihood, with mean zero; weights: by the pair's first system."""

    def loss(at: np.ndarray) -> float:
        total = 0.0
        for (first, second), (wins, losses, ties) in SMALL.items():
            one, other = (np.exp(at["abcd".index(name)]) for name in (first, second))
            tied = 2 * np.exp(at[4]) * np.sqrt(one * other)
            every = one + other + tied
            weight = (weights or {}).get(first, 1.0)
            total -= weight * (
                wins * np.log(one / every) + losses * np.log(other / every) + ties * np.log(tied / every)
            )
        return total + 1e-9 * float(np.sum(at[:4])) ** 2

    found = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x[:4]
    return found - found.mean()


def bradley_terry_by_scipy() -> np.ndarray:
    """Return strengths [4] that maximise the likelihood with ties as half a win for each, and add up to one."""

    def loss(at: np.ndarray) -> float:
        total = 0.0
        for (first, second), (wins, losses, ties) in SMALL.items():
            difference = at["abcd".index(first)] - at["abcd".index(second)]
            total += (wins + ties / 2) * np.logaddexp(0, -difference) + (losses + ties / 2) * np.logaddexp(
                0, difference
            )
        return total + 1e-9 * float(np.sum(at)) ** 2

    found = np.exp(minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x)
    return found / found.sum()


def test_the_published_rankings_of_a_public_data_set() -> None:
    votes = public_votes()
    board = leaderboard(votes)
    assert board.votes == 8931 and len(board.systems) == 59 and len(board.components) == 1
    for algorithm in ("newman", "bradley_terry", "average_win_rate"):
        published = public_leaderboard()[algorithm]
        own = {row.system: getattr(row, algorithm) for row in board.systems}
        assert own == pytest.approx(published, abs=1e-6), algorithm
        assert sorted(own, key=own.get) == sorted(published, key=published.get)
    assert [row.system for row in board.ranking()] == sorted(own_newman(board), key=own_newman(board).get, reverse=True)
    for row in board.systems:
        assert np.isfinite([row.low, row.high]).all() and row.low < row.rating < row.high
        assert row.rank_low <= row.rank <= row.rank_high
        assert row.votes == row.wins + row.losses + row.ties > 0
    assert sum(row.best for row in board.systems) == pytest.approx(1)


def own_newman(board: object) -> dict[str, float]:
    return {row.system: row.newman for row in board.systems}  # type: ignore[attr-defined]


def test_strengths_are_those_of_an_optimiser() -> None:
    board = leaderboard(small())
    expected = davidson_by_scipy()
    assert [row.rating / POINTS for row in board.systems] == pytest.approx(expected, abs=1e-5)
    newman = np.log([row.newman for row in board.systems])
    assert newman - newman.mean() == pytest.approx(expected, abs=1e-5)
    assert [row.bradley_terry for row in board.systems] == pytest.approx(bradley_terry_by_scipy(), abs=1e-6)
    assert board.wins.tolist() == [[0, 9, 12, 8], [4, 0, 6, 0], [3, 5, 0, 7], [2, 0, 6, 0]]
    assert board.ties.tolist() == [[0, 3, 1, 0], [3, 0, 4, 0], [1, 4, 0, 2], [0, 0, 2, 0]]
    assert board.ahead[0, 1] + board.ahead[1, 0] == pytest.approx(1)


def test_weights_count_as_so_many_votes() -> None:
    votes = small()
    weights = np.where(votes.first == votes.systems.index("b"), 2.5, 1.0)
    expected = davidson_by_scipy({"b": 2.5})
    for board in (leaderboard(votes, weights=weights), leaderboard(replace(votes, weight=weights))):
        assert [row.rating / POINTS for row in board.systems] == pytest.approx(expected, abs=1e-5)
        newman = np.log([row.newman for row in board.systems])
        assert newman - newman.mean() == pytest.approx(expected, abs=1e-5)
        assert board.wins[1].tolist() == [4, 0, 6, 0]  # the matrix counts votes


def test_which_response_is_first_does_not_matter() -> None:
    votes = simulate(np.random.default_rng(5), np.array([0.5, 0.0, -0.5]), prompts=15)
    turned = replace(
        votes,
        first=votes.second,
        second=votes.first,
        outcome=np.where(votes.outcome <= SECOND, 1 - votes.outcome, votes.outcome),
    )
    for own, other in zip(leaderboard(votes).systems, leaderboard(turned).systems, strict=True):
        assert (own.rating, own.low, own.high) == pytest.approx((other.rating, other.low, other.high))
        assert (own.rank, own.rank_low, own.rank_high, own.best) == (
            other.rank,
            other.rank_low,
            other.rank_high,
            other.best,
        )


def test_repeats_votes_without_weight_and_of_one_system_do_not_count() -> None:
    votes = small()
    more = votes_of(list("abcd"), [("d", "a", FIRST)] * 20)
    both = replace(
        votes,
        **{
            name: np.concatenate([getattr(votes, name), getattr(more, name)])
            for name in ("first", "second", "outcome", "annotator", "prompt", "item", "swapped", "seconds")
        },
        repeat=np.repeat([False, True, False], [len(votes), 10, 10]),
        weight=np.repeat([1.0, 1.0, 0.0], [len(votes), 10, 10]),
    )
    assert leaderboard(both).systems == leaderboard(votes).systems
    assert leaderboard(both).votes == len(votes)
    itself = replace(both, first=np.where(both.repeat | (both.weight == 0), both.second, both.first))
    itself = replace(itself, repeat=np.zeros(len(itself), bool), weight=np.ones(len(itself)))
    assert leaderboard(itself).systems == leaderboard(votes).systems


def test_a_system_with_only_wins_is_finite_wide_and_marked() -> None:
    rows = [("best", "b", FIRST)] * 6 + [("c", "best", SECOND)] * 6
    rows += [("b", "c", outcome) for outcome in (FIRST, SECOND, TIE) * 4]
    board = leaderboard(votes_of(["best", "b", "c"], rows))
    best, *others = board.systems
    assert best.mark == "only wins" and best.provisional and best.rank == 1
    assert {row.mark for row in others} == {"one-sided votes"}
    numbers = [(row.rating, row.low, row.high, row.newman, row.bradley_terry) for row in board.systems]
    assert np.isfinite(numbers).all()
    assert best.low > 0 and best.high - best.rating > 400 and best.high < 10_000
    # The less is known, the wider: with few votes the lower end comes down, too.
    fewer = leaderboard(votes_of(["best", "b", "c"], [*rows[:2], *rows[6:8], *rows[12:]])).systems[0]
    assert fewer.low < best.low and fewer.high > 400


@pytest.mark.parametrize(
    "outcomes", [[FIRST] * 8, [TIE] * 8, [FIRST] * 5 + [TIE] * 3, [SECOND] * 8, [BOTH_BAD], [FIRST]]
)
def test_two_systems_whose_votes_go_one_way(outcomes: list[int]) -> None:
    board = leaderboard(votes_of(["a", "b"], [("a", "b", outcome) for outcome in outcomes]))
    a, b = board.systems
    assert a.mark and b.mark and a.provisional and b.provisional
    assert np.isfinite([(row.rating, row.low, row.high, row.newman, row.bradley_terry) for row in (a, b)]).all()
    assert a.high - a.low > 250 and a.rating == pytest.approx(-b.rating)
    assert np.sign(np.round(a.rating, 6)) == (FIRST in outcomes) - (SECOND in outcomes)


def test_a_system_without_votes() -> None:
    votes = small()
    board = leaderboard(replace(votes, systems=[*votes.systems, "new"]))
    assert board.systems[:4] == leaderboard(votes).systems
    new = board.systems[4]
    assert (new.votes, new.component, new.mark, new.provisional, new.rating) == (0, 1, "no votes", True, 0)
    assert np.isfinite([new.low, new.high]).all() and new.high - new.low > 2000
    assert np.isnan(board.ahead[4]).all() and np.isnan(board.ahead[:, 4]).all()
    empty = leaderboard(votes_of(["a", "b"], []))
    assert [row.mark for row in empty.systems] == ["no votes", "no votes"] and empty.votes == 0
    assert leaderboard(votes_of([], [])).systems == []


def test_no_number_between_groups_that_no_vote_connects() -> None:
    rows = [("a", "b", outcome) for outcome in (FIRST, FIRST, SECOND, TIE)]
    rows += [("x", "y", outcome) for outcome in (FIRST, SECOND, SECOND, SECOND, TIE)]
    rows += [("y", "z", outcome) for outcome in (FIRST, SECOND)]
    board = leaderboard(votes_of(["a", "x", "b", "y", "z"], rows))
    assert board.components == [["y", "z", "x"], ["a", "b"]] or board.components == [["z", "y", "x"], ["a", "b"]]
    for group in board.components:
        own = [row for row in board.systems if row.system in group]
        assert sum(row.rating for row in own) == pytest.approx(0, abs=1e-6)
        assert sorted(row.rank for row in own) == list(range(1, len(own) + 1)) or group[0] in "yz"
        assert sum(row.best for row in own) == pytest.approx(1)
        assert sum(row.bradley_terry for row in own) == pytest.approx(1)
    across = np.array([[row.component != other.component for other in board.systems] for row in board.systems])
    np.fill_diagonal(across, True)
    assert np.isnan(board.ahead[across]).all() and np.isfinite(board.ahead[~across]).all()
    # Each group is as if the other were not there.
    alone = leaderboard(votes_of(["a", "b"], rows[:4]))
    assert [row.rating for row in alone.systems] == pytest.approx([board.systems[at].rating for at in (0, 2)])


def test_a_clear_order_is_not_provisional() -> None:
    votes = simulate(np.random.default_rng(1), np.array([2.0, 0.0, -2.0]), prompts=40)
    board = leaderboard(votes)
    assert [(row.rank, row.rank_low, row.rank_high, row.provisional) for row in board.systems] == [
        (rank, rank, rank, False) for rank in (1, 2, 3)
    ]
    assert board.systems[0].best == 1 and board.ahead[0, 1] == 1
    equal = leaderboard(simulate(np.random.default_rng(2), np.zeros(3), prompts=10))
    assert all(row.provisional for row in equal.systems) and max(row.best for row in equal.systems) < 0.99


def test_the_seed_fixes_the_intervals() -> None:
    votes = small()
    assert leaderboard(votes, seed=3).systems == leaderboard(votes, seed=3).systems
    assert leaderboard(votes, seed=3).systems != leaderboard(votes, seed=4).systems
