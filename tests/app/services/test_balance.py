"""Balance: each of its choices, what is expected of it, what is better, and its marks."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import Iterator

import numpy as np
import pytest

from app.charts import pareto
from app.charts.marks import Mark, even_mark, find_marks, is_even_soup, marks_legend, soup_mark
from app.services import bank_service
from app.services.app_state import Desk
from app.services.balance_choices import FLOORS
from app.storage.comparisons import Plan
from app.storage.database import Store
from app.ui.balance import Balance, Balanced, balance_sentence, balanced_message
from app.ui.balance_menu import CHOICES, parse_floor
from app.ui.explore_tab import ExploreTab
from engine import Engine, InputError, Mixture, Sampling
from engine.rewards.scale import RewardScale
from engine.solvers.outcome import Better, Outcome
from engine.solvers.solution import Solution
from tests.app.charts.test_pareto import NAMES, colours, made
from tests.app.conftest import make_completion
from tests.conftest import Tiny


def always_one(prompt: str, response: str) -> float:
    return 1.0


@pytest.fixture(scope="module")
def desk(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk of the tiny policies with a bank of three prompts. Of its rewards one is the same for every response."""
    folder = tmp_path_factory.mktemp("balance")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(bank_service, "SAMPLING", Sampling(max_new_tokens=6, temperature=1.0))
        patch.setattr(bank_service, "RESPONSES", 60)
        (tiny.folder / "prompts.txt").write_text("mix\nmove the faders\nthe quick brown fox")
        rewards = [
            {"objective": "narrow", "kind": "function", "function": "engine.rewards:brevity"},
            {"objective": "same", "kind": "function", "function": "tests.app.services.test_balance:always_one"},
            {"objective": "plain", "kind": "implicit", "beta": 0.1},
        ]
        with Engine.from_config(tiny.write("constant.yaml", prompts="prompts.txt", rewards=rewards)) as engine:
            store = Store(folder / "mixdesk.db")
            desk = Desk(engine, store)

            async def sample() -> None:
                async for _ in desk.expected.sample("me"):
                    pass

            asyncio.run(sample())
            desk.expected.load()
            yield desk
            desk.comparisons.close()
            store.close()


def handlers(desk: Desk) -> Balance:
    """What the menu's choices find needs no component."""
    balance = Balance.__new__(Balance)
    balance.desk = desk
    return balance


def by_hand(desk: Desk, weights: dict[str, float], gain: float = 1.0) -> dict[str, float]:
    bank, scale = desk.expected.bank, desk.engine.reward_set.scale
    assert bank is not None
    rewards = bank.estimate(gain * np.array([weights[name] for name in bank.policies])).rewards
    return scale.standard(dict(zip(bank.objectives, rewards.tolist(), strict=True)))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("gain", [1.0, 1.3])
def test_what_is_told_is_what_the_radar_shows(desk: Desk, choice: str, gain: float) -> None:
    even = by_hand(desk, dict.fromkeys(desk.policies, 1 / 3), gain)
    found = handlers(desk).find(choice, {"narrow": even["narrow"]}, {}, gain)
    reading = desk.expected.read(found.solution.weights, "geometric", gain)
    assert found.outcome is not None
    assert found.outcome.rewards == pytest.approx(by_hand(desk, found.solution.weights, gain))
    assert found.outcome.rewards == pytest.approx(dict(reading.standard))
    assert found.outcome.errors == pytest.approx(dict(reading.errors))
    if choice == FLOORS:
        assert found.outcome.rewards["narrow"] >= even["narrow"] - 0.011


def test_max_min_is_above_every_other_minimum_and_nothing_is_better(desk: Desk) -> None:
    found = handlers(desk).find("maxmin", {}, {}, 1.0)
    assert found.outcome is not None and found.outcome.better is None
    least = min(found.outcome.rewards.values())
    for point in desk.expected.front().weights[desk.expected.front().reliable][::7]:
        assert min(by_hand(desk, dict(zip(desk.policies, point, strict=True))).values()) <= least + 0.01


def test_what_is_locked_keeps_its_weight_in_all_of_it(desk: Desk) -> None:
    for choice in CHOICES:
        found = handlers(desk).find(choice, {"narrow": -5.0}, {"plain": 0.3}, 1.0)
        assert found.solution.weights["plain"] == pytest.approx(0.3)
        assert sum(found.solution.weights.values()) == pytest.approx(1)
        assert found.outcome is not None
        assert found.outcome.rewards == pytest.approx(by_hand(desk, found.solution.weights))
        if found.outcome.better is not None:
            assert found.outcome.better.weights["plain"] == pytest.approx(0.3)


def test_floors_are_needed_and_read(desk: Desk) -> None:
    with pytest.raises(InputError, match="Type a floor"):
        handlers(desk).find(FLOORS, {}, {}, 1.0)
    with pytest.raises(InputError, match="no weights keep to"):
        handlers(desk).find(FLOORS, {"narrow": 99.0}, {}, 1.0)
    with pytest.raises(InputError, match="no reward is for 'same'"):
        handlers(desk).find(FLOORS, {"same": 0.0}, {}, 1.0)
    assert parse_floor("−0,5", "narrow") == -0.5
    with pytest.raises(InputError, match="narrow: found 'inf'"):
        parse_floor("inf", "narrow")


def test_a_constant_reward_is_left_out_of_explore_and_named(desk: Desk) -> None:
    tab = ExploreTab.__new__(ExploreTab)
    tab.desk, tab.expected, tab.policies, tab.drawn = desk, desk.expected, desk.policies, None
    _, weights, pairs = tab.draw()
    names = json.loads(pairs)["layout"]["meta"]["names"]["rewards"]
    assert names == ["plain", "narrow"] and weights
    reading = desk.expected.read(dict.fromkeys(desk.policies, 0.5), "geometric", 1.0)
    assert "same: always the same" in reading.text and "same" not in reading.standard


@pytest.mark.parametrize("constant", [frozenset({"plain", "narrow", "same"}), frozenset()])
def test_explore_says_why_it_is_empty(desk: Desk, monkeypatch: pytest.MonkeyPatch, constant: frozenset) -> None:
    """No reward has a scale: all are constant, or none is calibrated yet."""
    monkeypatch.setattr(desk.engine.reward_set, "scale", RewardScale({}, {}, constant))
    tab = ExploreTab.__new__(ExploreTab)
    tab.desk, tab.expected, tab.policies, tab.drawn = desk, desk.expected, desk.policies, None
    for name in ("about", "sample", "empty", "content", "weights", "pairs"):
        setattr(tab, name, name)
    changes = asyncio.run(tab.show())
    assert ("the same reward" if constant else "not calibrated yet") in html.unescape(changes["about"])


WEIGHTS = {"helpful": 0.37, "concise": 0.6, "humorous": 0.03}


def solution(method: str = "maxmin") -> Solution:
    return Solution(method, WEIGHTS, dict.fromkeys(WEIGHTS, 0.029), -2.0, 0.1, 0.4, None, 10, [])


def outcome(significant: bool | None = None) -> Outcome:
    gains = {"helpful": 0.12, "concise": 0.4}
    better = Better({**WEIGHTS, "helpful": 0.2, "humorous": 0.2}, gains, dict.fromkeys(gains, 0.05), bool(significant))
    return Outcome(
        {"helpful": 0.4, "concise": -0.1}, dict.fromkeys(gains, 0.051), None if significant is None else better
    )


def test_the_sentence_has_every_objective_with_its_error_and_what_is_better() -> None:
    plain = (
        "Balanced: by the reward models, the least expected reward is the most it can be — concise 60%, helpful 37%, "
        "humorous 3% (± 3%). Expected: helpful +0.40 ± 0.05σ, concise −0.10 ± 0.05σ."
    )
    assert balance_sentence(solution(), outcome()) == plain
    better = "concise 60%, helpful 20%, humorous 20%."
    assert balance_sentence(solution(), outcome(True)) == (
        f"{plain} Better in all, by 0.12 to 0.40σ, by more than twice the error: {better}"
    )
    assert f"but within twice the error: {better}" in balance_sentence(solution(), outcome(False))


def test_the_better_point_goes_along_as_fader_positions() -> None:
    found = Balanced(solution("mpo"), {}, outcome(True))
    text = balanced_message(found, "geometric")
    faders = re.search(r'data-faders="([^"]*)"', text)
    assert faders and json.loads(html.unescape(faders[1])) == {"humorous": 0.33, "helpful": 0.33, "concise": 1.0}
    said = html.unescape(re.findall(r'data-said="([^"]*)"', text)[0])
    assert "helpful +0.52σ, concise +0.30σ" in said
    assert 'class="message info balanced offer"' in text
    locked = Balanced(solution("mpo"), {"concise": 0.6}, outcome(True))
    assert '{"helpful": 1.0, "humorous": 1.0}' in html.unescape(balanced_message(locked, "geometric"))
    without = balanced_message(Balanced(solution(), {}, outcome()), "soup")
    assert "offer" not in without and "not of soup" in without


def test_names_are_text() -> None:
    evil = '<img src=x onerror="alert(1)">'
    there = Outcome({evil: 1.0}, {evil: 0.1}, Better({evil: 1.0}, {evil: 0.5}, {evil: 0.1}, True))
    made_of = Solution("mpo", {evil: 1.0}, {evil: 0.0}, 0, 0, 1.0, None, 0, [])
    assert "<img" not in balanced_message(Balanced(made_of, {}, there), "geometric")
    assert "<img" not in marks_legend([Mark("Even", {evil: 1.0}, evil)])


def test_marks_are_of_what_is_known(desk: Desk) -> None:
    desk.expected._balanced.clear()
    assert [mark.name for mark in find_marks(desk)] == ["Even"]
    even = even_mark(desk.expected)
    assert even is not None and even.rewards == pytest.approx(by_hand(desk, dict.fromkeys(desk.policies, 1 / 3)))
    found = handlers(desk).find("maxmin", {}, {}, 1.0)
    assert found.outcome is not None
    star = find_marks(desk)[-1]
    assert star.name == "Balance" and star.rewards == pytest.approx(found.outcome.rewards)
    own = {"rewards": {"plain": 9.0}, "weights": {"plain": 1.0}}
    assert find_marks(desk, own)[-1].rewards == {"plain": 9.0}, "the session's own comes first"


def test_the_soup_is_what_a_comparison_measured(desk: Desk) -> None:
    names, third = desk.policies, dict.fromkeys(desk.policies, 1 / 3)
    soup = Mixture(third, "soup")
    assert is_even_soup(soup, set(names)) and not is_even_soup(Mixture(third), set(names))
    assert not is_even_soup(Mixture({**third, names[0]: 0.5}, "soup"), set(names))
    assert not is_even_soup(Mixture(third, "soup", gain=2.0), set(names))
    prompts = [f"prompt {i}" for i in range(12)]
    scale = {"plain": (1.0, 2.0), "narrow": (0.0, 1.0)}
    mixtures = {"reference": Mixture({"reference": 1.0}), "soup": soup}
    plan = Plan(desk.engine.config.name, "some", mixtures, prompts, Sampling(max_new_tokens=5), 0, scale)
    tables = desk.comparisons.tables
    comparison = tables.add(plan)
    for place, prompt in enumerate(prompts):
        assert soup_mark(desk) is None, "too few prompts"
        if place == 9:
            break
        answer(tables, comparison, place, prompt, mixtures, desk)
    for place in (9, 10):
        answer(tables, comparison, place, prompts[place], mixtures, desk)
    mark = soup_mark(desk)
    assert mark is not None and "11 prompts" in mark.source
    assert mark.rewards == pytest.approx({"plain": (5 - 1) / 2, "narrow": float(np.mean(range(11)))})
    tables.delete(comparison)


def answer(tables, comparison: int, place: int, prompt: str, mixtures: dict[str, Mixture], desk: Desk) -> None:
    rewards = ({"plain": 0.0, "narrow": 0.0}, {"plain": 5.0, "narrow": float(place)})
    completions = [
        make_completion(prompt=prompt, mixture=mixture, rewards=reward)
        for mixture, reward in zip(mixtures.values(), rewards, strict=True)
    ]
    tables.keep(comparison, place, completions, desk.engine.config.name)


def test_marks_in_explore_are_where_the_radar_has_them() -> None:
    marks = [Mark("Even", dict(zip(NAMES, [0.1, 0.2, 0.3, 0.4], strict=True)), ""), Mark("Soup", {NAMES[0]: 1.0}, "")]
    front = made(4, 4)
    figure = pareto.scatter(front, NAMES, colours(4), NAMES, {}, marks)
    even = [trace for trace in figure.data if trace.name == "Even"]
    assert sorted((trace.x[0], trace.y[0]) for trace in even) == sorted(
        (x / 10, y / 10) for x in range(1, 5) for y in range(x + 1, 5)
    )
    assert not [trace for trace in figure.data if trace.name == "Soup"], "one reward alone is no place in a panel"
    (line,) = [trace for trace in pareto.parallel(front, NAMES, colours(4), NAMES, marks).data if trace.name == "Even"]
    assert line.y == (0.1, 0.2, 0.3, 0.4)
    symbols = {
        trace.name: trace.marker.symbol for trace in pareto.parallel(front, NAMES, colours(4), NAMES, marks).data
    }
    assert symbols["Even"] != symbols["Soup"], "not by colour alone"
