"""The maximal lottery: known ones, brute force over supports, and from a store's ratings on the command line."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml

from engine import InputError, Mixture
from engine.solvers.nash import duality_gap, maximal_lottery, nash
from engine.solvers.ratings import Rating, read_ratings
from tests.app.conftest import make_completion

NAMES = ["a", "b", "c"]
CORNERS = {name: Mixture({name: 1.0}) for name in NAMES}


def rate(left: str, right: str, left_wins: float, times: int = 1) -> list[Rating]:
    return [Rating(CORNERS[left], CORNERS[right], left_wins)] * times


def antisymmetric(upper: dict[tuple[int, int], float], size: int) -> np.ndarray:
    payoff = np.zeros((size, size))
    for (i, j), value in upper.items():
        payoff[i, j], payoff[j, i] = value, -value
    return payoff


def brute_force(payoff: np.ndarray) -> np.ndarray:
    """The lottery that is even against all of its own support, and loses to none: every support is tried."""
    size = len(payoff)
    for count in range(1, size + 1):
        for support in combinations(range(size), count):
            inner = payoff[np.ix_(support, support)]
            some, *_ = np.linalg.lstsq(np.vstack([inner, np.ones(count)]), np.append(np.zeros(count), 1), rcond=None)
            lottery = np.zeros(size)
            lottery[list(support)] = some
            if lottery.min() >= 0 and abs(lottery.sum() - 1) < 1e-9 and (payoff @ lottery).max() < 1e-9:
                return lottery
    raise AssertionError("every symmetric game has an equilibrium")


def test_rock_paper_scissors_with_stakes() -> None:
    """Each is played as often as the other two differ: p ∝ (stake of the pair without it)."""
    payoff = antisymmetric({(0, 1): 0.1, (1, 2): 0.2, (2, 0): 0.3}, 3)
    lottery = maximal_lottery(payoff)
    assert lottery == pytest.approx([0.2 / 0.6, 0.3 / 0.6, 0.1 / 0.6])
    assert duality_gap(payoff, lottery) < 1e-9


def test_rock_paper_scissors_in_a_field_of_five() -> None:
    """By hand: 0, 1 and 2 go round with equal stakes, 3 beats 0 but loses more to 1 and 2, 4 loses to all."""
    upper = {(0, 1): 0.3, (1, 2): 0.3, (2, 0): 0.3, (3, 0): 0.4, (1, 3): 0.3, (2, 3): 0.3}
    payoff = antisymmetric({**upper, **{(i, 4): 0.1 for i in range(4)}}, 5)
    assert maximal_lottery(payoff) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0])


@pytest.mark.parametrize("seed", range(20))
def test_five_mixtures_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    payoff = antisymmetric({pair: rng.uniform(-0.5, 0.5) for pair in combinations(range(5), 2)}, 5)
    lottery = maximal_lottery(payoff)
    assert lottery == pytest.approx(brute_force(payoff), abs=1e-8)
    assert duality_gap(payoff, lottery) < 1e-9


def test_forty_mixtures_and_few_ratings_keep_the_gap() -> None:
    rng = np.random.default_rng(0)
    payoff = antisymmetric({pair: rng.integers(-1, 2) / 6 for pair in combinations(range(40), 2)}, 40)
    assert duality_gap(payoff, maximal_lottery(payoff)) < 1e-9


def test_where_all_are_even_all_are_alike() -> None:
    assert maximal_lottery(np.zeros((4, 4))) == pytest.approx([0.25] * 4)
    # Two that are even, and beat a third, share.
    assert maximal_lottery(antisymmetric({(0, 2): 0.01, (1, 2): 0.4}, 3)) == pytest.approx([0.5, 0.5, 0])


def test_ratings_that_go_round() -> None:
    solution = nash(NAMES, rate("a", "b", 1, 10) + rate("b", "c", 1, 10) + rate("a", "c", 0, 10))
    assert solution.weights == pytest.approx(dict.fromkeys(NAMES, 1 / 3))
    assert solution.gap == pytest.approx(0, abs=1e-9)
    assert solution.objective == pytest.approx(0, abs=1e-9)
    assert min(solution.weight_errors.values()) > 0
    assert solution.note == "30 ratings of 3 mixtures; 3 of 3 pairs met"
    assert json.loads(json.dumps(solution.as_dict()))["weights"] == solution.weights


def test_one_that_beats_every_other_gets_everything() -> None:
    """However often the second beats the third: a is preferred to either."""
    ratings = rate("a", "b", 1, 6) + rate("a", "b", 0, 4) + rate("c", "a", 0, 6) + rate("b", "c", 1, 30)
    assert nash(NAMES, ratings).weights == pytest.approx({"a": 1, "b": 0, "c": 0})


def test_ties_are_half_a_win_and_pairs_that_never_met_are_even() -> None:
    """a beats b in 3 of 4, b beats c in 4 ties: with a win more for each, payoffs 1/6 and 0; a and c never met."""
    ratings = rate("a", "b", 1, 3) + rate("b", "a", 1) + rate("b", "c", 0.5, 4)
    solution = nash(NAMES, ratings)
    assert solution.weights == pytest.approx({"a": 0.5, "b": 0, "c": 0.5})
    assert "2 of 3 pairs met" in solution.note
    # Now c beats a as often as a beats b: whatever has no a, and no more b than c, loses to none.
    more = nash(NAMES, [*ratings, *rate("c", "a", 1)])
    assert more.weights["a"] == pytest.approx(0, abs=1e-9)
    assert more.weights["c"] >= 0.5
    assert more.gap == pytest.approx(0, abs=1e-9)


def test_mixtures_that_are_almost_the_same_are_one_and_the_reference_has_a_share() -> None:
    first, almost = Mixture({"a": 0.5, "b": 0.5}), Mixture({"a": 0.501, "b": 0.499})
    reference, other = Mixture({"a": 0.5, "reference": 0.5}), Mixture({"a": 0.5, "b": 0.5}, gain=2.0)
    solution = nash(["a", "b"], [Rating(first, reference, 0.5), Rating(reference, almost, 0.5)])
    assert [one["probability"] for one in solution.lottery] == pytest.approx([0.5, 0.5])
    assert solution.weights == pytest.approx({"a": 0.5, "b": 0.25, "reference": 0.25})
    assert "differ in rule or gain" not in solution.note
    assert "differ in rule or gain" in nash(["a", "b"], [Rating(first, other, 1.0)]).note


def test_the_stated_errors_are_those_of_other_ratings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A circle of three, rated 40 times a pair: the spread over fresh ratings, and the bootstrap's."""
    monkeypatch.setattr("engine.solvers.nash.REPEATS", 40)
    rng, found, stated = np.random.default_rng(0), [], []
    for _ in range(40):
        ratings = []
        for left, right in ("ab", "bc", "ca"):
            ratings += [Rating(CORNERS[left], CORNERS[right], float(rng.random() < 0.7)) for _ in range(40)]
        solution = nash(NAMES, ratings)
        found.append(list(solution.weights.values()))
        stated.append(list(solution.weight_errors.values()))
    ratio = np.mean(stated, 0) / np.std(found, 0)
    assert (ratio > 0.7).all()
    assert (ratio < 1.6).all()


@pytest.mark.parametrize("times", [1, 2, 3])
def test_few_ratings_all_the_same_way_are_not_sure(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: after n wins of n the rate has the density (n + 1) p^n. It is under a half, where b has all the weight,
    with probability q = 2^-(n + 1): a's weight, 1 or 0, spreads by √(q (1 - q)). There a wins 1/2 - p less than half:
    ∫ (1/2 - p)² (n + 1) p^n from 0 to 1/2 is 2^-(n + 2) / ((n + 2) (n + 3))."""
    monkeypatch.setattr("engine.solvers.nash.REPEATS", 1000)
    solution = nash(NAMES, rate("a", "b", 1, times))
    assert solution.weights == pytest.approx({"a": 1, "b": 0, "c": 0})
    q = 2 ** -(times + 1)
    error = (q * (1 - q)) ** 0.5
    assert solution.weight_errors == pytest.approx({"a": error, "b": error, "c": 0}, rel=0.1)
    assert solution.objective_error == pytest.approx((q / 2 / (times + 2) / (times + 3)) ** 0.5, rel=0.2)
    assert f"too few ratings for the weights to mean much: {times} a pair" in solution.note


def test_enough_ratings_of_a_pair_are_enough() -> None:
    assert "too few" in nash(NAMES, rate("a", "b", 1, 9)).note
    assert "too few" not in nash(NAMES, rate("a", "b", 1, 10)).note
    assert "7 a pair" in nash(NAMES, rate("a", "b", 1, 10) + rate("a", "c", 1, 11)).note, "b and c never met"


def test_what_cannot_be_solved_is_told() -> None:
    with pytest.raises(InputError, match="ratings: found no overall one"):
        nash(NAMES, [])
    with pytest.raises(InputError, match="ratings: all are of one mixture"):
        nash(NAMES, rate("a", "a", 1, 3))


def line(choice: str = "left", objective: str | None = None, steered: dict | None = None, name: str = "b") -> str:
    def side(name: str) -> dict:
        mixture = {"weights": {name: 1.0}, "rule": "geometric", "gain": 1.0, "exponent": 1.0}
        # Ends of lines that JSON leaves as they are.
        return {"text": "one\u2028two\x85three", "mixture": mixture, "steered": steered or {}}

    row = {"choice": choice, "objective": objective, "left": side("a"), "right": side(name)}
    return json.dumps(row, ensure_ascii=False)


def test_only_overall_ratings_of_responses_that_were_not_steered_count(tmp_path: Path) -> None:
    file = tmp_path / "ratings.jsonl"
    lines = [line("left"), line("right"), line("tie"), line("both_bad")]
    lines += [line("left", objective="helpful"), line("left", steered={"5": {}})]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert [rating.left_wins for rating in read_ratings(file, NAMES)] == [1, 0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ('{"choice": "left", ', "line 7: not a rating"),
        (
            '{"prompt": "a", "chosen": "b", "rejected": "c"}',
            "line 7: not a rating; expected what `python -m app export",
        ),
        ("[]", "line 7: not a rating"),
        (line("best"), "line 7: not a rating"),
        (line(name="z"), "line 7: weights: no policy is called 'z'; there are a, b, c, reference; give --config"),
    ],
)
def test_a_broken_line_is_told_by_its_number(broken: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "ratings.jsonl"
    file.write_text("\n".join([line()] * 6 + [broken, line()]))
    with pytest.raises(InputError) as told:
        read_ratings(file, NAMES)
    assert said in str(told.value)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a base that is nowhere: nothing can be loaded."""
    policies = [{"name": name, "objective": name, "system_prompt": name} for name in NAMES]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"name": "none", "base": "no-such/base", "policies": policies}))
    return path


def test_from_the_store_to_weights_on_the_command_line(config: Path, tmp_path: Path, capsys) -> None:
    from app.__main__ import main
    from app.storage.database import Store
    from engine.cli.main import app
    from engine.cli.runner import run

    store, out = Store(tmp_path / "ratings.db"), tmp_path / "ratings.jsonl"
    ends = ["left"] * 4 + ["right", "tie", "both_bad"]
    for i, choice in enumerate(ends):
        left, right = (make_completion(mixture=CORNERS[name]) for name in ("a", "b"))
        store.rate(f"r{i}", left, right, choice, "anna")
    store.close()
    assert main(["export", "--db", str(store.path), "--format", "jsonl", "--out", str(out)]) == 0
    capsys.readouterr()
    solve = ["solve", "--method", "nash", "--config", str(config)]
    assert run(app, "python -m engine", [*solve, "--ratings", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["weights"] == pytest.approx({"a": 1, "b": 0, "c": 0})
    assert found["n_ratings"] == 7
    assert found["gap"] < 1e-9
    assert run(app, "python -m engine", [*solve, "--ratings", str(out)]) == 0
    said = capsys.readouterr()
    assert "a            1.000 ± " in said.out
    assert "7 ratings of 2 mixtures" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "nash"], "--method nash needs --ratings"),
        (["--method", "mpo", "--ratings", "{tmp}/none.jsonl"], "--ratings is for --method nash"),
        (["--method", "nash", "--ratings", "{tmp}/none.jsonl"], "No such file"),
        (["--method", "nash", "--ratings", "{tmp}/empty.jsonl"], "ratings: found no overall one"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], said: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from engine.cli.main import app
    from engine.cli.runner import run

    (tmp_path / "empty.jsonl").write_text("")
    asked = ["solve", "--config", str(config), *[argument.format(tmp=tmp_path) for argument in arguments]]
    assert run(app, "python -m engine", asked) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert said in errors[0]
