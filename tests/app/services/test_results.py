"""Results of studies: which votes count, figures by hand, groups, people, influences, and a published leaderboard."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from app.services.results import Results, Wanted, compute_results
from app.services.vote_sources import DESK, VoteFilter, read_day, read_source, votes_of
from app.storage.database import Store
from app.storage.import_votes import import_file
from app.storage.vote_tables import VoteTables
from engine import InputError, Mixture
from engine.votes.table import BOTH_BAD, FIRST, SECOND, TIE
from tests.app.conftest import make_completion
from tests.app.services.voting import Ballot, add_completion, add_study

NAMES = ["a", "b", "c"]
CORNERS = [Mixture({name: 1.0}) for name in NAMES]
LLMFAO = Path(__file__).parents[4] / "shared" / "data"


def results(store: Store, wanted: Wanted, implied: dict | None = None) -> Results:
    tables = VoteTables(store)
    source = read_source(tables, wanted.study, wanted.question, "here", NAMES)
    return compute_results(tables, source, wanted, NAMES, implied)


def rows(results: Results) -> dict[str, tuple[int, int, int]]:
    return {
        row.system.system: (row.system.wins, row.system.ties, row.system.losses)
        for group in results.groups
        for row in group.rows
    }


def many(first: int, second: int, choice: str, times: int, start: int = 0, **changes: object) -> list[Ballot]:
    """Votes of as many people on items of their own."""
    people = ("ada", "bo", "cy", "di")
    return [
        Ballot(f"{first}-{second}-{start + i}", first, second, people[i % 4], choice, prompt=f"p{i % 5}", **changes)  # type: ignore[arg-type]
        for i in range(times)
    ]


def test_wins_are_counted_by_hand(store: Store) -> None:
    ballots = [
        *many(0, 1, "left", 6),
        *many(0, 1, "right", 2, 6),
        *many(0, 1, "tie", 1, 8),
        *many(0, 1, "both_bad", 1, 9),
        *many(1, 2, "left", 3, 10, swapped=1),
        *many(1, 2, "left", 2, 13),
    ]
    add_study(store, ballots, NAMES, state="open")
    found = results(store, Wanted("study", "overall"))
    assert found.votes == 15 and found.prompts == 5
    # A third of b's votes for the left were for c, which was there.
    assert rows(found) == {"a": (6, 2, 2), "c": (3, 0, 2), "b": (4, 2, 9)}
    assert found.cells == [(0, 1, 6, 2, 2), (1, 2, 2, 0, 3)]
    assert found.standing is None, "imported systems have no mixtures"
    (group,) = found.groups
    assert group.votes == 15
    assert [row.rank for row in group.rows] == [1, 2, 3]


def test_a_rating_by_hand(store: Store) -> None:
    """Three wins of five, without ties: odds of 3 to 2, which are 400 log10(3/2) points."""
    add_study(store, many(0, 1, "left", 3) + many(0, 1, "right", 2, 3))
    first, second = results(store, Wanted("study", "overall")).groups[0].rows
    assert first.shown.value - second.shown.value == pytest.approx(400 * math.log10(1.5), abs=1e-3)
    assert first.shown.low < second.shown.value and first.system.provisional


def test_sides_and_kinds_become_columns(store: Store) -> None:
    ballots = [
        Ballot("i", 0, 1, "ada", "left", probability=0.5, seconds=4.0),
        Ballot("i", 0, 1, "bo", "left", swapped=1, probability=0.25),
        Ballot("j", 0, 1, "ada", "tie", probability=0.5),
        Ballot("j", 0, 1, "bo", "both_bad", probability=0.5),
        Ballot("i", 0, 1, "ada", "right", swapped=1, kind="repeat", probability=0.5),
    ]
    add_study(store, ballots)
    source = read_source(VoteTables(store), "study", "overall", "here", NAMES)
    votes = votes_of(source, source.votes, {})
    assert votes.outcome.tolist() == [FIRST, SECOND, TIE, BOTH_BAD, FIRST]
    assert votes.swapped.tolist() == [0, 1, 0, 0, 1]
    assert votes.repeat.tolist() == [False] * 4 + [True]
    # One over the probability: 2, 4, 2, 2, 2, whose mean is 2.4.
    assert votes.weight.tolist() == pytest.approx([x / 2.4 for x in (2, 4, 2, 2, 2)])
    assert votes.seconds[0] == 4 and math.isnan(votes.seconds[1])
    assert votes.item.tolist() == [0, 0, 1, 1, 0] and votes.prompt.tolist() == [0, 0, 1, 1, 0]


def test_filters(store: Store) -> None:
    ballots = [
        Ballot("i", 0, 1, "ada", "left", day=1),
        Ballot("j", 0, 1, "ada", "left", day=2),
        Ballot("i", 0, 1, "bo", "right", day=2),
        Ballot("j", 0, 1, "cy", "tie", day=3),
        Ballot("i", 0, 1, "ada", "right", "kind", day=1),
    ]
    for number in range(4):
        ballots += [
            Ballot(f"g{number}", 0, 0, "ada", "left", kind="gold", expected={"overall": ["first"]}),
            # Half of them wrong; and too few answers of cy's to be judged.
            Ballot(f"g{number}", 0, 0, "bo", "left", kind="gold", swapped=number % 2, expected={"overall": ["first"]}),
        ]
    ballots.append(Ballot("g0", 0, 0, "cy", "right", kind="gold", expected={"overall": ["first"]}))
    add_study(store, ballots, questions=("overall", "kind"))

    def left(**chosen: object) -> int:
        return results(store, Wanted("study", "overall", VoteFilter(**chosen))).votes  # type: ignore[arg-type]

    assert left() == 4, "gold is no vote"
    assert left(person="study-ada") == 2
    assert left(since="2026-03-02") == 3 and left(until="2026-03-02") == 3
    assert left(since="2026-03-02", until="2026-03-02") == 2
    assert left(excluded=frozenset({"study-bo", "study-cy"})) == 2
    assert left(passed_gold=True) == 3
    assert left(person="study-bo", passed_gold=True) == 0
    assert results(store, Wanted("study", "kind")).votes == 1
    people = {person.name: person for person in results(store, Wanted("study", "overall")).people}
    assert {name: (p.gold.right, p.gold.answers) for name, p in people.items() if p.gold} == {
        "ada": (4, 4),
        "bo": (2, 4),
        "cy": (0, 1),
    }
    assert [name for name, person in people.items() if person.failed] == ["bo"]


def test_days_are_checked() -> None:
    assert read_day(" 2026-03-01 ", "From") == "2026-03-01"
    assert read_day("", "From") == read_day(None, "From") == ""
    with pytest.raises(InputError, match="From: found '1 March'; type a day such as 2026-01-31"):
        read_day("1 March", "From")


def test_groups_that_no_vote_connects_are_not_compared(store: Store) -> None:
    ballots = many(0, 1, "left", 3) + many(0, 1, "right", 2, 3) + many(2, 3, "left", 2) + many(2, 3, "right", 1, 2)
    add_study(store, ballots, ["north", "south", "east", "west", "nobody"])
    found = results(store, Wanted("study", "overall"))
    assert [[row.system.system for row in group.rows] for group in found.groups] == [
        ["north", "south"],
        ["east", "west"],
    ]
    assert found.unvoted == ["nobody"]
    for group in found.groups:
        assert sum(row.shown.value for row in group.rows) == pytest.approx(0, abs=1e-6)
        assert sum(row.system.best for row in group.rows) == pytest.approx(1)


def test_people_by_hand(store: Store) -> None:
    ballots = [
        Ballot("i", 0, 1, "ada", "left", seconds=2.0),
        Ballot("j", 0, 1, "ada", "left", swapped=1, seconds=8.0),
        Ballot("k", 0, 1, "ada", "tie", seconds=3.0),
        Ballot("i", 0, 1, "bo", "left"),
        Ballot("j", 0, 1, "bo", "right"),
        Ballot("i", 0, 1, "ada", "right", swapped=1, kind="repeat"),
        Ballot("k", 0, 1, "ada", "left", kind="repeat"),
    ]
    add_study(store, ballots)
    people = {person.name: person.report for person in results(store, Wanted("study", "overall")).people}
    ada = people["ada"]
    assert (ada.votes, ada.median_seconds) == (3, 3.0)
    assert (ada.consistency.value, ada.consistency.number) == (0.5, 2), "right, when swapped, is the first again"
    assert (ada.left.value, ada.left.number) == (1.0, 2)
    assert (ada.agreement.value, ada.agreement.number) == (1.0, 2)
    (agreement,) = results(store, Wanted("study", "overall")).agreements
    assert (agreement.key, agreement.alpha.value, agreement.alpha.number) == ("overall", pytest.approx(1.0), 2)


def test_reliable_people_count_more(store: Store) -> None:
    """Three agree that a is better; two guess, more often for b."""
    rng = np.random.default_rng(0)
    ballots = []
    for item in range(40):
        truth = "left" if item % 4 else "right"
        ballots += [Ballot(f"{item}", 0, 1, person, truth) for person in ("ada", "bo", "cy")]
        ballots += [Ballot(f"{item}", 0, 1, person, rng.choice(["left", "right", "right"])) for person in ("x", "y")]
    add_study(store, ballots)
    plain, weighted = (results(store, Wanted("study", "overall", weighted=weighted)) for weighted in (False, True))
    assert {person.name for person in plain.people[:2]} == {"x", "y"}, "the least reliable first"
    gaps = [found.groups[0].rows[0].shown.value for found in (plain, weighted)]
    assert gaps[1] > gaps[0] + 20
    assert rows(plain)["A"] == (112, 0, 88)


def test_longer_responses_that_win_are_an_influence(store: Store) -> None:
    """Two equal systems, whose responses are longer by turns; the longer one wins in 30 of 40."""
    ballots = []
    for item in range(40):
        longer_first, longer_wins = item % 2 == 0, item // 2 % 4 != 0
        texts = ("one two three four", "one") if longer_first else ("one", "one two three four")
        choice = "left" if longer_first == longer_wins else "right"
        ballots.append(Ballot(f"{item}", 0, 1, f"p{item % 5}", choice, texts=texts))
    add_study(store, ballots)
    found = results(store, Wanted("study", "overall"))
    assert list(found.controls) == ["words"], "nothing else differs"
    # The differences are +3 and -3 words, one standard deviation each: the odds of one are 3 to 1.
    assert found.controls["words"].value == pytest.approx(math.log(3), abs=0.01)
    held = results(store, Wanted("study", "overall", controlled=True))
    assert held.groups[0].rows[0].shown == held.groups[0].rows[0].system.adjusted


def study_of_mixtures(
    store: Store, rewards: Sequence[tuple[float, float]], choices: Sequence[str]
) -> list[tuple[int, int]]:
    """A study of the corners a and b, with a pair of stored responses for each vote."""
    ids = []
    for number, pair in enumerate(rewards):
        made = [
            make_completion(f"{name} {number}", f"prompt {number}", mixture=CORNERS[i], rewards={"helpful": pair[i]})
            for i, name in enumerate("ab")
        ]
        ids.append((add_completion(store, made[0]), add_completion(store, made[1])))
    ballots = [
        Ballot(f"{i}", 0, 1, "ada", choice, prompt=f"{i}", completions=pair)
        for i, (pair, choice) in enumerate(zip(ids, choices, strict=True))
    ]
    add_study(store, ballots, ["Left one", "Right one"], CORNERS[:2])
    return ids


def test_reward_models_agree_with_people_as_often_as_they_do(store: Store) -> None:
    ids = study_of_mixtures(store, [(1, 0), (1, 0), (0, 1), (2, 1), (0, 5)], ["left", "left", "left", "tie", "right"])
    implied = {"a": {first: 1.0 for first, _ in ids} | {second: 0.0 for _, second in ids}}
    found = results(store, Wanted("study", "overall"), implied)
    assert (found.rewards["helpful"].value, found.rewards["helpful"].number) == (0.75, 4)
    assert (found.implied["a"].value, found.implied["a"].number) == (0.75, 4)
    assert found.responses == [one for pair in ids for one in pair]
    # The systems are mixtures of this desk: they have a lottery and can be sent to it.
    assert found.standing is not None and found.standing.wins.tolist() == [[0, 3.5], [1.5, 0]]
    mixtures = [row.mixture for row in found.groups[0].rows]
    assert [mixture and mixture.weights for mixture in mixtures] == [{"a": 1, "b": 0, "c": 0}, {"a": 0, "b": 1, "c": 0}]


def test_a_study_of_another_configuration_has_nothing_for_the_desk(store: Store) -> None:
    study_of_mixtures(store, [(1, 0)], ["left"])
    source = read_source(VoteTables(store), "study", "", "elsewhere", NAMES)
    assert [system.mixture for system in source.systems] == [None, None]
    assert [system.name for system in source.systems] == ["Left one", "Right one"]


def test_the_desks_ratings_are_a_study_that_is_not_blind(store: Store) -> None:
    sides = [make_completion(mixture=mixture) for mixture in CORNERS[:2]]
    assert store.rate("one", *sides, "left", "ada", model="here")
    assert store.rate("two", *reversed(sides), "left", "bo", model="here")
    assert store.rate("three", *sides, "tie", "bo", model="here")
    assert store.rate("four", *sides, "right", "ada", objective="helpful", model="here")
    assert store.rate("five", *sides, "right", "ada", model="elsewhere")
    found = results(store, Wanted(DESK, ""))
    assert not found.source.blind and found.source.name == "Desk" and found.source.others == 1
    assert list(found.source.questions) == ["overall", "helpful"]
    # b won on the left, as the second of the pair. The responses are the same, so two people rated one item.
    assert rows(found) == {"a": (1, 1, 1), "b": (1, 1, 1)}
    assert [vote.swapped for vote in found.source.votes] == [0, 1, 0]
    assert len({vote.item for vote in found.source.votes}) == 2
    assert rows(results(store, Wanted(DESK, "helpful"))) == {"b": (1, 0, 0), "a": (0, 0, 1)}


def test_what_a_page_asks_for_is_plain_and_back(store: Store) -> None:
    wanted = Wanted("s", "q", VoteFilter("p", "2026-01-01", "", frozenset("ab"), True), True, True)
    assert Wanted.from_dict(wanted.as_dict()) == wanted
    assert wanted.as_dict()["chosen"]["excluded"] == ["a", "b"]
    assert Wanted.from_dict({}) == Wanted(DESK, "")
    with pytest.raises(InputError, match="study: it is not there any more"):
        results(store, Wanted("gone", ""))


@pytest.mark.skipif(not (LLMFAO / "llmfao-comparisons.csv").is_file(), reason="the votes of LLMFAO are not here")
def test_a_published_leaderboard(store: Store) -> None:
    imported = import_file(store.path, LLMFAO / "llmfao-comparisons.csv", "LLMFAO")
    found = results(store, Wanted(imported.study_id, "overall"))
    assert (found.votes, len(found.people), found.prompts) == (8931, 124, 13)
    with (LLMFAO / "llmfao-leaderboard.csv").open(encoding="utf-8", newline="") as file:
        published = {(row["algorithm"], row["item"]): float(row["score"]) for row in csv.DictReader(file)}
    (group,) = found.groups
    assert len(group.rows) == 59
    for method, of in (
        ("bradley_terry", "bradley_terry"),
        ("average_win_rate", "average_win_rate"),
        ("newman", "newman"),
    ):
        scores = {row.system.system: getattr(row.system, of) for row in group.rows}
        assert scores == pytest.approx(
            {item: score for (name, item), score in published.items() if name == method}, abs=1e-6
        )
