"""Studies as their owner keeps them: settings, systems, items, states, invitations, and their end."""

from __future__ import annotations

import pytest

from app.schemas.study import ItemKind, StudySettings, StudyState
from app.services.comparison_jobs import Comparisons
from app.storage.comparisons import ComparisonTables, Plan
from app.storage.study_items import NewItem
from engine import InputError, Mixture, Sampling
from tests.app.storage.making_studies import StudyScene, example

PARTS = ("studies", *(f"study_{part}" for part in ("systems", "items", "invitations", "annotators", "assignments")))
ALL_TABLES = (*PARTS, "study_answers", "study_sessions")


def test_a_study_comes_back_as_it_was_stored(store) -> None:
    scene = StudyScene(store, prompts=3, systems=3, wanted=2, guidelines="# Be kind", state=StudyState.DRAFT)
    tables = scene.tables
    assert tables.settings(scene.id) == scene.settings
    assert tables.systems(scene.id) == {
        f"Mix {i}": Mixture({"helpful": 0.25 + i / 10, "terse": 0.75 - i / 10}) for i in range(3)
    }
    items = tables.items(scene.id)
    assert [item.place for item in items] == list(range(9)) and len({item.id for item in items}) == 9
    assert [(item.first_system, item.second_system) for item in items[:3]] == [(0, 1), (0, 2), (1, 2)]
    assert (items[4].prompt, items[4].first, items[4].second) == ("Prompt 1?", "1 by 0", "1 by 2")
    assert items[3].prompt_key == items[4].prompt_key != items[6].prompt_key
    (entry,) = tables.listing()
    assert entry == tables.entry(scene.id)
    assert (entry.items, entry.wanted, entry.answered, entry.annotators) == (9, 18, 0, 0)
    assert entry.systems == ["Mix 0", "Mix 1", "Mix 2"] and entry.state is StudyState.DRAFT
    assert (entry.model, entry.source, entry.opened_at) == ("demo", "prompts.txt", None)


def test_items_have_completions_conversations_or_nothing(store, completion) -> None:
    scene = StudyScene(store, prompts=0, state=StudyState.DRAFT)
    with store.writing():
        first, second = (store.insert(completion(text), "demo", "now") for text in ("one", "two"))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    scene.tables.add_items(
        scene.id,
        [
            NewItem(turns, 0, 1, first_id=first, second_id=second, prompt_key="mine"),
            NewItem(None, 1, 0, wanted=7),
        ],
    )
    one, two = scene.tables.items(scene.id)
    assert (one.prompt, one.first, one.second, one.prompt_key) == (turns, "one", "two", "mine")
    assert (two.prompt, two.first, two.second, two.prompt_key, two.wanted) == (None, "", "", "", 7)


def test_only_a_draft_is_changed(store) -> None:
    scene = StudyScene(store, state=StudyState.DRAFT)
    changed = scene.settings.model_copy(update={"wanted": 3, "name": "Stew"})
    scene.tables.set_settings(scene.id, changed)
    assert scene.tables.settings(scene.id) == changed
    assert (scene.tables.entry(scene.id).name, scene.tables.entry(scene.id).wanted) == ("Stew", 12)
    scene.tables.set_state(scene.id, StudyState.OPEN)
    for change in (
        lambda: scene.tables.set_settings(scene.id, scene.settings),
        lambda: scene.tables.clear_items(scene.id),
    ):
        with pytest.raises(InputError, match=r"“Stew” is open: only a draft can be changed"):
            change()
    with pytest.raises(InputError, match=r"“Stew” is open: pairs are added to a draft"):
        scene.tables.add_items(scene.id, [NewItem("p", 0, 1)])
    assert scene.tables.settings(scene.id) == changed and len(scene.tables.items(scene.id)) == 4


def test_states_follow_each_other_in_one_direction(store) -> None:
    scene = StudyScene(store, prompts=0, state=StudyState.DRAFT)
    with pytest.raises(InputError, match="has no pairs"):
        scene.tables.set_state(scene.id, StudyState.OPEN)
    scene.tables.add_items(scene.id, [NewItem("p", 0, 1, first_text="a", second_text="b")])
    for state in (StudyState.PAUSED, StudyState.CLOSED):
        with pytest.raises(InputError, match="is draft: it cannot become"):
            scene.tables.set_state(scene.id, state)
    for state in (StudyState.OPEN, StudyState.PAUSED, StudyState.PAUSED, StudyState.OPEN, StudyState.CLOSED):
        scene.tables.set_state(scene.id, state)
        assert scene.tables.entry(scene.id).state is state
    for state in (StudyState.OPEN, StudyState.PAUSED, StudyState.DRAFT):
        with pytest.raises(InputError, match="is closed: it cannot become"):
            scene.tables.set_state(scene.id, state)
    entry = scene.tables.entry(scene.id)
    assert entry.opened_at and entry.closed_at


def test_opening_adds_the_examples_once(store) -> None:
    scene = StudyScene(store, state=StudyState.DRAFT, training=[example(1)], gold=[example(2), example(3, "second")])
    assert len(scene.tables.items(scene.id)) == 4
    for state in (StudyState.OPEN, StudyState.PAUSED, StudyState.OPEN):
        scene.tables.set_state(scene.id, state)
    assert len(scene.tables.items(scene.id)) == 7
    (training,) = scene.tables.items(scene.id, ItemKind.TRAINING)
    assert (training.prompt, training.first, training.expected) == (
        "Example 1?",
        "example 1 first",
        {"overall": ["first"]},
    )
    assert [item.expected["overall"] for item in scene.tables.items(scene.id, ItemKind.GOLD)] == [["first"], ["second"]]
    assert scene.tables.entry(scene.id).items == 4


def test_unknown_studies_are_refused(store) -> None:
    tables = StudyScene(store).tables
    for ask in (tables.settings, tables.systems, tables.items, tables.delete, tables.entry, tables.annotators):
        with pytest.raises(InputError, match="There is no such study"):
            ask("nowhere")
    with pytest.raises(InputError, match="There is no such study"):
        tables.invite("nowhere", "Anna")


# ----------------------------------------------------------------------------------------------------------- its people


def test_an_invitation_is_one_persons_on_all_devices(store) -> None:
    scene = StudyScene(store)
    invitation, secret = scene.tables.invite(scene.id, "Anna", most=2)
    assert secret not in str(scene.rows(table="study_invitations")), "the secret is in the database"
    first = scene.assignments.join_by_invitation(scene.id, secret, "somebody else")
    assert first is not None and (first.name, first.most) == ("Anna", 2)
    assert scene.assignments.join_by_invitation(scene.id, secret) == first
    assert scene.assignments.join_by_invitation(scene.id, secret[:-1] + "~") is None
    other = StudyScene(store)
    assert other.assignments.join_by_invitation(other.id, secret) is None, "it opens another study"
    (entry,) = scene.tables.invitations(scene.id)
    assert (entry.id, entry.name, entry.most, entry.annotator) == (invitation, "Anna", 2, first.id)
    assert [one.name for one in scene.tables.annotators(scene.id)] == ["Anna"]
    assert len(scene.work(first.id)) == 2


def test_a_revoked_invitation_lets_nobody_in_and_keeps_the_answers(store) -> None:
    scene = StudyScene(store, wanted=1)
    invitation, secret = scene.tables.invite(scene.id, "")
    anna = scene.assignments.join_by_invitation(scene.id, secret, "Anna")
    assert anna is not None and anna.name == "Anna"
    session = scene.assignments.open_session(anna.id)
    scene.work(anna.id, most=2)
    assert scene.next(anna.id) is not None
    scene.tables.revoke(invitation)
    assert scene.assignments.join_by_invitation(scene.id, secret) is None
    assert scene.assignments.find(scene.id, session) is None
    assert scene.tables.invitations(scene.id)[0].revoked_at
    # What was leased is somebody else's now.
    assert len(scene.work(scene.join("bert"))) == 2
    assert scene.counts() == [1, 1, 1, 1]
    with pytest.raises(InputError, match="was deleted"):
        scene.tables.revoke("nothing")


@pytest.mark.parametrize("name", ["x" * 101, "a\nb", "\u202eabc"])
def test_names_are_one_line(store, name: str) -> None:
    scene = StudyScene(store)
    with pytest.raises(InputError, match=r"^name: give a name"):
        scene.tables.invite(scene.id, name)
    with pytest.raises(InputError, match=r"^name: give a name"):
        scene.assignments.join(scene.id, key="k", name=name, joined_by="anonymous")


def test_a_browser_is_known_by_a_secret_that_is_not_stored(store) -> None:
    scene = StudyScene(store)
    anna, bert = scene.join("anna"), scene.join("bert")
    session = scene.assignments.open_session(anna)
    assert session not in str(scene.rows(table="study_sessions"))
    known = scene.assignments.find(scene.id, session)
    assert known is not None and known.id == anna != bert
    assert scene.assignments.find(scene.id, "") is None and scene.assignments.find(scene.id, session[1:]) is None
    other = StudyScene(store)
    assert other.assignments.find(other.id, session) is None
    for _ in range(25):
        scene.clock.pass_by(1)
        newest = scene.assignments.open_session(anna)
    assert scene.assignments.find(scene.id, session) is None and scene.assignments.find(scene.id, newest) is not None
    assert len(scene.rows(table="study_sessions")) == 20


def test_ids_cannot_be_guessed(store) -> None:
    scene = StudyScene(store)
    anna = scene.join()
    ids = [
        scene.id,
        anna,
        scene.next(anna).id,
        scene.tables.invite(scene.id, "a")[0],
        scene.tables.items(scene.id)[0].id,
    ]
    assert all(len(one) == 16 for one in ids) and len({one[:5] for one in ids}) == len(ids)


# -------------------------------------------------------------------------------------------------------- the end of it


def fill(scene: StudyScene) -> None:
    """Put rows into each table of a study."""
    _, secret = scene.tables.invite(scene.id, "Anna")
    anna = scene.assignments.join_by_invitation(scene.id, secret)
    assert anna is not None
    scene.assignments.open_session(anna.id)
    scene.work(anna.id, most=3)


def test_a_deleted_study_leaves_nothing(store) -> None:
    before = {table: store.db.table(table).count for table in (*ALL_TABLES, "prompts")}
    scene = StudyScene(store, training=[example(1)], training_share=0, gold=[example(2)], gold_every=2)
    fill(scene)
    other = StudyScene(store, prompts=2)
    fill(other)
    kept = {table: [row for row in scene.rows(table=table) if scene.id not in row.values()] for table in PARTS}
    scene.tables.delete(scene.id)
    assert {table: scene.rows(table=table) for table in PARTS} == kept
    assert store.db.execute("pragma foreign_key_check").fetchall() == []
    assert store.db.table("study_answers").count == 2 and store.db.table("study_sessions").count == 1
    assert [row["text"] for row in scene.rows(table="prompts")] == ["Prompt 0?", "Prompt 1?"]
    other.tables.delete(other.id)
    assert {table: store.db.table(table).count for table in before} == before


def comparison_with_a_study(store, completion, owns: bool) -> tuple[int, StudyScene]:
    mixtures = {"a": Mixture({"helpful": 1.0}), "b": Mixture({"terse": 1.0})}
    comparisons = ComparisonTables(store)
    plan = Plan("demo", "p.txt", mixtures, ["A stain?"], Sampling(max_new_tokens=4), 0, {})
    made = comparisons.add(plan)
    comparisons.keep(made, 0, [completion("one"), completion("two")], "demo")
    scene = StudyScene(store, prompts=0, state=StudyState.DRAFT)
    scene.tables.delete(scene.id)
    scene.id = scene.tables.add(
        StudySettings(name="Of it"), mixtures, "demo", "p.txt", comparison_id=made, owns_comparison=owns
    )
    first, second = (row["id"] for row in comparisons.completions(made, 0))
    scene.tables.add_items(scene.id, [NewItem("A stain?", 0, 1, first_id=first, second_id=second)])
    return made, scene


def test_a_comparison_that_a_study_uses_is_not_deleted(store, completion) -> None:
    made, scene = comparison_with_a_study(store, completion, owns=False)
    with pytest.raises(InputError, match="The study “Of it” uses this comparison's responses") as raised:
        Comparisons(store).delete(made)
    assert "\n" not in str(raised.value)
    assert [item.first for item in scene.tables.items(scene.id)] == ["one"]
    # By its responses alone, too.
    store.db.execute("update studies set comparison_id = null")
    store.db.conn.commit()
    with pytest.raises(InputError, match="The study “Of it”"):
        ComparisonTables(store).delete(made)
    scene.tables.delete(scene.id)
    assert [entry.id for entry in ComparisonTables(store).listing()] == [made]
    ComparisonTables(store).delete(made)
    assert store.db.table("prompts").count == store.db.table("completions").count == 0


def test_a_study_deletes_the_comparison_that_is_its_own(store, completion) -> None:
    made, scene = comparison_with_a_study(store, completion, owns=True)
    heir = scene.tables.add(StudySettings(name="Again"), {"a": None, "b": None}, comparison_id=made)
    scene.tables.delete(scene.id)
    assert ComparisonTables(store).plan(made).prompts == ["A stain?"], "another study needs it"
    scene.tables.delete(heir)
    assert store.db.table("comparisons").count == 0
    assert (
        store.db.table("prompts").count == store.db.table("completions").count == store.db.table("rewards").count == 0
    )
