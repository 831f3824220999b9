"""The owner's side of a study: from its responses to its end, and what is refused on the way."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from types import SimpleNamespace

import pytest

from app.schemas.study import ItemKind, StudySettings, StudyState
from app.services import studies as studies_module
from app.services.comparison_jobs import Comparisons
from app.services.studies import Studies, copy_name
from app.services.study_pairs import study_pairs
from app.storage.assignments import Assignments
from app.storage.comparisons import StoredResponse
from app.storage.database import Store
from engine import Engine, InputError, Sampling
from engine.prompts import PromptSet
from tests.app.services.test_comparison_jobs import SHORT, mixtures, prompts, wait_for

LONG = Sampling(max_new_tokens=40, temperature=1.0)


@pytest.fixture
def studies(store: Store) -> Iterator[Studies]:
    made = Studies(store, Comparisons(store))
    yield made
    made.comparisons.close()


def settings(**changes: object) -> StudySettings:
    return StudySettings.model_validate({"name": "Round 1", "wanted": 2, "gold_every": 5, **changes})


def make(studies: Studies, engine: Engine, count: int = 3, sampling: Sampling = SHORT, **changes: object) -> str:
    """A study whose responses are there."""
    study = studies.create(engine, settings(**changes), prompts(count), mixtures(engine), sampling)
    wait_for(lambda: not studies.comparisons.jobs)
    return study


def response(place: int, mixture: int, text: str) -> StoredResponse:
    return StoredResponse(place, mixture, 10 * place + mixture, f"prompt {place}", text)


# ------------------------------------------------------------------------------------------------------------ pairs


def pairs_by_hand(pairing: str, systems: int = 3) -> list[tuple[int, int]]:
    return [(0, i) for i in range(1, systems)] if pairing == "first" else list(combinations(range(systems), 2))


@pytest.mark.parametrize("pairing", ["all", "first", "uncertain"])
def test_each_prompt_has_its_pairs(pairing: str) -> None:
    rows = [response(place, mixture, f"text {place} {mixture}") for place in (1, 0) for mixture in (2, 0, 1)]
    rows.append(response(2, 0, "alone"))  # the others of this prompt are still to come
    found = study_pairs(rows, 3, settings(pairing=pairing, budget=9))
    assert (found.identical, found.known) == (0, 0)
    assert [(one.prompt, one.first_system, one.second_system, one.first_id, one.second_id) for one in found.items] == [
        (f"prompt {place}", i, j, 10 * place + i, 10 * place + j) for place in (0, 1) for i, j in pairs_by_hand(pairing)
    ]
    assert {one.kind for one in found.items} == {ItemKind.PAIR} and {one.wanted for one in found.items} == {None}


def test_identical_responses_are_left_out_and_counted() -> None:
    rows = [response(0, 0, "same"), response(0, 1, " same\n"), response(0, 2, "other")]
    found = study_pairs(rows, 3, settings())
    assert found.identical == 1
    assert [(one.first_system, one.second_system) for one in found.items] == [(0, 2), (1, 2)]


def test_a_training_or_gold_pair_is_no_other_pair_as_well() -> None:
    rows = [response(0, 0, "a"), response(0, 1, "b"), response(1, 0, "a"), response(1, 1, "b")]
    example = {"prompt": "prompt 0", "first": "b", "second": "a", "expected": {"overall": ["first"]}}
    for kind in ("training", "gold"):
        found = study_pairs(rows, 2, settings(**{kind: [example]}))
        assert found.known == 1 and [one.prompt for one in found.items] == ["prompt 1"]


# ------------------------------------------------------------------------------------------- from draft to deletion


def test_a_study_from_its_responses_to_its_end(studies: Studies, tiny_engine: Engine) -> None:
    study = make(studies, tiny_engine)
    entry = studies.tables.entry(study)
    assert (entry.state, entry.model, entry.source, entry.items) == (StudyState.DRAFT, "tiny", "mine.jsonl", 0)
    assert entry.systems == ["Reference", "plain", "Uniform"]
    assert studies.comparisons.tables.listing() == [], "the Compare tab has it in its list"
    generation = studies.generation(study)
    assert generation and generation.finished and (generation.answered, generation.prompts) == (3, 3)

    pairs = studies.pairs(study)
    opened = studies.open(study)
    assert opened == pairs
    items = studies.tables.items(study, ItemKind.PAIR)
    texts = {(one.place, one.mixture): one.text for one in studies.responses(study)}
    assert len(items) == len(pairs.items) > 0
    for item in items:
        place = int(str(item.prompt).rsplit(" ", 1)[1])
        assert (item.first, item.second) == (texts[place, item.first_system], texts[place, item.second_system])
        assert item.wanted == 2
    entry = studies.tables.entry(study)
    assert (entry.state, entry.wanted) == (StudyState.OPEN, 2 * len(items))

    studies.pause(study)
    assert studies.open(study) is None, "the pairs of a paused study are made again"
    assert [one.id for one in studies.tables.items(study, ItemKind.PAIR)] == [one.id for one in items]
    studies.close(study)
    for change in (studies.open, studies.pause):
        with pytest.raises(InputError, match="is closed"):
            change(study)
    with pytest.raises(InputError, match="only a draft can be changed"):
        studies.change(study, settings(name="Other"))
    studies.delete(study)
    assert studies.tables.listing() == []
    for table in ("comparisons", "completions", "prompts", "study_items"):
        assert studies.tables.store.db.table(table).count == 0, table


def test_an_opening_that_was_interrupted_makes_no_pair_twice(studies: Studies, tiny_engine: Engine) -> None:
    study = make(studies, tiny_engine)
    pairs = studies.pairs(study).items
    studies.tables.add_items(study, pairs)
    studies.open(study)
    assert studies.tables.entry(study).items == len(pairs)


def test_generation_is_resumed_after_a_restart(studies: Studies, tiny_engine: Engine) -> None:
    study = studies.create(tiny_engine, settings(), prompts(40), mixtures(tiny_engine), LONG)
    with pytest.raises(InputError, match="are being generated: stop that first"):
        studies.delete(study)
    with pytest.raises(InputError, match="of 40 prompts are answered: wait for the rest"):
        studies.open(study)
    studies.stop(study)
    wait_for(lambda: not studies.comparisons.jobs)
    before = studies.generation(study)
    assert before and not before.finished

    store = Store(studies.tables.store.path)  # another process's eyes
    again = Studies(store, Comparisons(store))
    with pytest.raises(InputError, match="press Resume first"):
        again.open(study)
    again.resume(tiny_engine, study)
    wait_for(lambda: not again.comparisons.jobs)
    assert again.generation(study).finished and again.open(study).items
    store.close()


def test_answers_are_exported_before_they_are_deleted(studies: Studies, tiny_engine: Engine) -> None:
    study = make(studies, tiny_engine, anonymous=True, gold_every=0)
    studies.open(study)
    assignments = Assignments(studies.tables.store)
    anna = assignments.join_anonymously(study, "anna")
    given = assignments.next(study, anna.id)
    assert given is not None
    assignments.answer(study, anna.id, given.id, {"overall": "left"})
    with pytest.raises(InputError, match="has 1 rating: export it first"):
        studies.delete(study)
    assert studies.tables.entry(study).answered == 1
    studies.delete(study, unwanted=True)
    assert studies.tables.listing() == []


# --------------------------------------------------------------------------------------- comparisons and duplicates


def test_a_finished_comparison_is_a_study_and_stays_one_of_its_own(studies: Studies, tiny_engine: Engine) -> None:
    comparison = studies.comparisons.start(tiny_engine, prompts(2), mixtures(tiny_engine), SHORT)
    wait_for(lambda: not studies.comparisons.jobs)
    study = studies.create_from(settings(), comparison)
    assert studies.open(study).items
    assert [entry.id for entry in studies.comparisons.tables.listing()] == [comparison]
    with pytest.raises(InputError, match="“Round 1” uses this comparison"):
        studies.comparisons.delete(comparison)
    studies.delete(study)
    assert studies.comparisons.tables.progress(comparison) == (2, 2), "its responses went with the study"
    studies.comparisons.delete(comparison)
    with pytest.raises(InputError, match="was deleted"):
        studies.create_from(settings(), comparison)


def test_an_unfinished_comparison_is_no_study(studies: Studies, tiny_engine: Engine) -> None:
    comparison = studies.comparisons.start(tiny_engine, prompts(40), mixtures(tiny_engine), LONG)
    studies.comparisons.stop(comparison)
    wait_for(lambda: not studies.comparisons.jobs)
    with pytest.raises(InputError, match="of 40 prompts are answered; resume it first"):
        studies.create_from(settings(), comparison)
    assert studies.tables.listing() == []


def test_a_duplicate_has_the_same_responses_and_outlives_the_first(studies: Studies, tiny_engine: Engine) -> None:
    study = make(studies, tiny_engine, gold=[
        {"prompt": "p", "first": "a", "second": "b", "expected": {"overall": ["first"]}}
    ])  # fmt: skip
    studies.open(study)
    copy = studies.duplicate(study)
    assert studies.tables.settings(copy) == studies.tables.settings(study).model_copy(update={"name": "Round 1 (copy)"})
    assert studies.tables.systems(copy) == studies.tables.systems(study)
    assert studies.tables.entry(copy).state is StudyState.DRAFT
    responses = studies.responses(study)
    studies.delete(study)
    assert studies.responses(copy) == responses and studies.open(copy).items
    studies.delete(copy)
    assert studies.tables.store.db.table("comparisons").count == 0


def test_imported_votes_have_no_responses_to_ask_about_again(studies: Studies) -> None:
    study = studies.tables.add(settings(), {"a": None, "b": None}, state=StudyState.CLOSED)
    assert studies.generation(study) is None
    with pytest.raises(InputError, match="imported votes"):
        studies.duplicate(study)
    with pytest.raises(InputError, match="imported votes"):
        studies.responses(study)


def test_a_copys_name_is_short_enough() -> None:
    assert copy_name("Round 1") == copy_name("Round 1 (copy)") == "Round 1 (copy)"
    for name in ("x" * 100, "ä" * 100, "界" * 66):
        assert StudySettings(name=copy_name(name)).name.endswith("(copy)")


# ---------------------------------------------------------------------------------------------- training and gold


def test_pairs_become_training_and_gold(studies: Studies, tiny_engine: Engine) -> None:
    study = make(studies, tiny_engine)
    before = len(studies.pairs(study).items)
    texts = {(one.place, one.mixture): one.text for one in studies.responses(study)}
    studies.add_example(study, ItemKind.GOLD, 1, (2, 0), ["first", "tie"])
    studies.add_example(study, ItemKind.TRAINING, 2, (0, 1), ["second"], " Because. ")
    kept = studies.tables.settings(study)
    assert (kept.gold[0].prompt, kept.gold[0].first, kept.gold[0].second) == (
        "move the faders 1", texts[1, 2], texts[1, 0],
    )  # fmt: skip
    assert kept.gold[0].expected == {"overall": ["first", "tie"]}
    assert (kept.training[0].expected, kept.training[0].feedback) == ({"overall": ["second"]}, "Because.")
    pairs = studies.pairs(study)
    assert (pairs.known, len(pairs.items)) == (2, before - 2)
    for same in ((2, 0), (0, 2)):
        with pytest.raises(InputError, match="one of the gold pairs already"):
            studies.add_example(study, ItemKind.GOLD, 1, same, ["second"])
    studies.remove_example(study, ItemKind.GOLD, 0)
    assert studies.tables.settings(study).gold == []
    with pytest.raises(InputError, match="removed already"):
        studies.remove_example(study, ItemKind.GOLD, 0)
    studies.open(study)
    assert [one.feedback for one in studies.tables.items(study, ItemKind.TRAINING)] == ["Because."]
    with pytest.raises(InputError, match="only a draft can be changed"):
        studies.add_example(study, ItemKind.GOLD, 0, (0, 1), ["first"])


@pytest.mark.parametrize(
    ("place", "systems", "says"), [(9, (0, 1), "no two responses"), (0, (0, 7), "no two"), (0, (1, 1), "are the same")]
)
def test_what_is_no_pair_is_refused(
    studies: Studies, tiny_engine: Engine, place: int, systems: tuple[int, int], says: str
) -> None:
    study = make(studies, tiny_engine, count=1)
    with pytest.raises(InputError, match=says):
        studies.add_example(study, ItemKind.GOLD, place, systems, ["first"])


def test_a_verdict_that_nobody_may_choose_is_refused(studies: Studies, tiny_engine: Engine) -> None:
    study = make(studies, tiny_engine, tie=False)
    with pytest.raises(InputError, match="gold pair 1: it expects tie, which nobody may choose"):
        studies.add_example(study, ItemKind.GOLD, 0, (0, 1), ["tie"])
    assert studies.tables.settings(study).gold == []


# ----------------------------------------------------------------------------------------------- people and bounds


def test_an_invitation_is_a_link_that_lets_in(studies: Studies, tiny_engine: Engine) -> None:
    study = make(studies, tiny_engine)
    studies.open(study)
    path, secret = studies.invite(study, "Anna", 5).split("#")
    assert path == f"annotate/{study}" and len(secret) >= 16
    assert secret not in str(list(studies.tables.store.db.query("select * from study_invitations")))
    anna = Assignments(studies.tables.store).join_by_invitation(study, secret)
    assert anna is not None and (anna.name, anna.most) == ("Anna", 5)
    studies.close(study)
    with pytest.raises(InputError, match="closed: nobody can join"):
        studies.invite(study, "Bert")


def test_nothing_is_stored_of_a_study_that_cannot_be(
    studies: Studies, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = dict(list(mixtures(tiny_engine).items())[:1])
    nameless = {"Reference": tiny_engine.mixture({"reference": 1.0}), "x" * 101: tiny_engine.mixture()}
    for mixed, says in ((one, "two or more"), (nameless, "is no name")):
        with pytest.raises(InputError, match=says):
            studies.create(tiny_engine, settings(), prompts(1), mixed, SHORT)
    monkeypatch.setattr(studies_module, "MAX_STUDIES", 0)
    with pytest.raises(InputError, match="no room for more: export and delete one first"):
        studies.create(tiny_engine, settings(), prompts(1), mixtures(tiny_engine), SHORT)
    assert studies.tables.listing() == [] and studies.tables.store.db.table("comparisons").count == 0


def test_a_study_of_identical_responses_is_not_opened(
    studies: Studies, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(studies, tiny_engine, count=1)
    same = [response(0, mixture, "the same") for mixture in range(3)]
    there = SimpleNamespace(responses=lambda _: same, progress=lambda _: (1, 1))
    monkeypatch.setattr(studies.comparisons, "tables", there)
    with pytest.raises(InputError, match="both responses are the same everywhere"):
        studies.open(study)
    assert studies.tables.entry(study).state is StudyState.DRAFT


def test_prompts_are_limited_to_the_first(studies: Studies, tiny_engine: Engine) -> None:
    given = PromptSet("mine.txt", ["move a", "move b", "move c"], [1, 2, 3])
    study = studies.create(tiny_engine, settings(), given, mixtures(tiny_engine), SHORT, most=2)
    wait_for(lambda: not studies.comparisons.jobs)
    assert {one.prompt for one in studies.responses(study)} == {"move a", "move b"}
