"""What an annotator gets next: sides, gold, repeats, and pairs where the ranking is unsure."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from app.schemas.study import verdict_of
from engine.votes.pairing import UNIFORM
from tests.app.storage.making_studies import StudyScene, example


def kinds(scene: StudyScene, annotator: str) -> list[str]:
    return [row["kind"] for row in scene.rows(f"annotator_id = '{annotator}'")]


# ---------------------------------------------------------------------------------------------------------------- sides


def test_choices_are_about_the_sides_as_they_were_seen() -> None:
    assert [verdict_of(choice, swapped) for choice in ("left", "right") for swapped in (False, True)] == [
        *("first", "second"),
        *("second", "first"),
    ]
    assert {verdict_of(choice, swapped) for choice in ("tie",) for swapped in (False, True)} == {"tie"}


def test_sides_are_shown_as_they_are_stored(store) -> None:
    scene = StudyScene(store, prompts=12)
    anna = scene.join()
    shown = scene.work(anna)
    for assignment, row in zip(shown, scene.rows(), strict=True):
        number = assignment.prompt[0]["content"].split()[1].rstrip("?")
        sides = [f"{number} by 0", f"{number} by 1"]
        assert [assignment.a, assignment.b] == (sides[::-1] if row["swapped"] else sides)


def test_sides_are_balanced_for_each_person_and_differ_between_people(store) -> None:
    scene = StudyScene(store, prompts=60, wanted=9)
    sides: dict[str, dict[str, int]] = {}
    for person in (scene.join(f"p{i}") for i in range(9)):
        scene.work(person)
        rows = scene.rows(f"annotator_id = '{person}'")
        total = 0
        for row in rows:
            total += 2 * row["swapped"] - 1
            assert abs(total) <= 2
        sides[person] = {row["item_id"]: row["swapped"] for row in rows}
    items = list(next(iter(sides.values())))
    per_item = [sum(one[item] for one in sides.values()) for item in items]
    # Of 9 people who see a pair 4.5 see it swapped, with a standard deviation of 1.5: the mean of 60 is within 0.8.
    assert abs(sum(per_item) / 60 - 4.5) < 0.8 and len(set(per_item)) > 3
    # Not simply in turns, which could be seen through.
    changes = [a != b for one in sides.values() for a, b in pairwise(one.values())]
    assert 0.3 < sum(changes) / len(changes) < 0.9


# ----------------------------------------------------------------------------------------------------- gold and repeats


def test_gold_is_one_of_so_many_at_places_that_cannot_be_known(store) -> None:
    scene = StudyScene(store, prompts=60, wanted=3, gold=[example(i) for i in range(30)], gold_every=5)
    places = []
    for person in (scene.join(f"p{i}") for i in range(3)):
        scene.work(person)
        seen = kinds(scene, person)
        assert seen.count("pair") == 60
        for block in range(len(seen) // 5):
            assert seen[5 * block : 5 * block + 5].count("gold") == 1
        places.append([i for i, kind in enumerate(seen) if kind == "gold"])
        gold = [row["item_id"] for row in scene.rows(f"annotator_id = '{person}' and kind = 'gold'")]
        assert len(set(gold)) == len(gold)
    assert places[0] != places[1] != places[2]
    assert len({place % 5 for one in places for place in one}) >= 4
    assert scene.counts() == [3] * 60, "gold counts as a rating"


def test_repeats_are_earlier_pairs_with_the_sides_swapped(store) -> None:
    scene = StudyScene(store, prompts=40, repeat_every=4)
    anna = scene.join()
    scene.work(anna)
    rows = scene.rows()
    pairs = {row["item_id"]: (place, row) for place, row in enumerate(rows) if row["kind"] == "pair"}
    repeats = [(place, row) for place, row in enumerate(rows) if row["kind"] == "repeat"]
    assert len(pairs) == 40 and 12 <= len(repeats) <= 14
    for place, row in repeats:
        before, original = pairs[row["item_id"]]
        assert place - before > 3 and row["swapped"] == 1 - original["swapped"]
    assert len({row["item_id"] for _, row in repeats}) == len(repeats)
    assert scene.counts() == [1] * 40, "a repeat counts as a rating"


def test_gold_and_repeats_together(store) -> None:
    scene = StudyScene(store, prompts=50, gold=[example(i) for i in range(4)], gold_every=3, repeat_every=3)
    anna = scene.join()
    scene.work(anna)
    counts = Counter(kinds(scene, anna))
    assert counts["gold"] == 4, "more gold than there is, or less"
    assert counts["pair"] == 50 and abs(counts["repeat"] - sum(counts.values()) / 3) <= 2


def test_without_pairs_there_is_no_gold_either(store) -> None:
    scene = StudyScene(store, prompts=2, gold=[example(i) for i in range(9)], gold_every=1)
    anna, bert = scene.join("anna"), scene.join("bert")
    scene.work(anna)
    assert scene.next(bert) is None and kinds(scene, bert) == []


def test_progress_does_not_tell_gold_from_pairs(store) -> None:
    """The number of answers rises by one with each, and the total does not depend on what was given."""
    scene = StudyScene(store, prompts=30, gold=[example(i) for i in range(10)], gold_every=4, repeat_every=6)
    anna = scene.join()
    seen = []
    while assignment := scene.next(anna):
        scene.answer(anna, assignment)
        progress = scene.assignments.progress(scene.id, anna)
        seen.append((progress.answered, progress.total))
    assert [answered for answered, _ in seen] == list(range(1, len(seen) + 1))
    # 30 pairs are 7 of 12 assignments.
    assert {total for answered, total in seen if answered < len(seen) - 8} == {52}
    assert seen[-1][1] == len(seen)


def test_a_paused_gold_pair_comes_back(store) -> None:
    scene = StudyScene(store, prompts=4, gold=[example(1)], gold_every=1)
    anna = scene.join()
    gold = scene.next(anna)
    assert kinds(scene, anna) == ["gold"]
    scene.clock.pass_by(60)
    assert scene.next(anna) == gold and len(scene.rows()) == 1


# ------------------------------------------------------------------------------------------------------ uncertain pairs


def test_pairs_are_drawn_where_the_order_is_unsure(store) -> None:
    """Of three systems the third always loses; whether the first or the second is better stays open."""
    scene = StudyScene(store, prompts=200, systems=3, pairing="uncertain", budget=240, wanted=2)
    chance, drawn = random.Random(5), Counter[tuple[int, int]]()
    items = {item.id: item for item in scene.tables.items(scene.id)}
    for most, person in ((120, scene.join("anna")), (240, scene.join("bert"))):
        while sum(drawn.values()) < most and (assignment := scene.next(person)):
            (row,) = scene.rows(f"id = '{assignment.id}'")
            item = items[row["item_id"]]
            pair = (item.first_system, item.second_system)
            drawn[pair] += 1
            good = chance.choice(["first", "second"]) if pair == (0, 1) else "first"
            scene.answer(person, assignment, "left" if (good == "first") != bool(row["swapped"]) else "right")
    rows = scene.rows("kind = 'pair'")
    assert sum(drawn.values()) == 240 and drawn[0, 1] > 2 * max(drawn[0, 2], drawn[1, 2])
    assert all(UNIFORM / 3 <= row["probability"] <= 1 for row in rows)
    # The stored probabilities are those of the draws: the mean of their inverses is the number of pairs of systems.
    inverse = sum(1 / row["probability"] for row in rows) / len(rows)
    assert inverse == pytest.approx(3, rel=0.25)
    assert rows[0]["probability"] == pytest.approx(1 / 3)


def test_without_draws_the_probability_is_one(store) -> None:
    scene = StudyScene(store, systems=3)
    scene.work(scene.join())
    assert {row["probability"] for row in scene.rows()} == {1.0}
