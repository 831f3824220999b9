"""The counted places of pairs, the pairs that are ready by them, and answers under an undo that has expired."""

from __future__ import annotations

import random
from contextlib import closing
from typing import Any

from app.schemas.study import StudyState
from app.storage.assignments import RefusedError
from app.storage.database import Store
from app.storage.database_file import connect
from app.storage.migrations import SCHEMAS, study_schema
from app.storage.next_item import READY
from app.storage.study_votes import study_votes
from app.storage.vote_tables import VoteTables
from tests.app.storage.making_studies import StudyScene, example


def taken(scene: StudyScene) -> dict[str, int]:
    return {row["id"]: row["taken"] for row in scene.rows(table="study_items")}


def recount(scene: StudyScene) -> dict[str, int]:
    """The places as the rows of assignments say."""
    counts = dict.fromkeys(taken(scene), 0)
    for row in scene.rows("kind = 'pair' and state in ('leased', 'answered')"):
        counts[row["item_id"]] += 1
    return counts


def ready(scene: StudyScene, annotator: str) -> int:
    """The number of pairs that an annotator may rate, from all rows and the clock."""
    now = scene.clock().isoformat(timespec="milliseconds")
    rows = [row for row in scene.rows("kind = 'pair'") if row["state"] != "expired"]
    rows = [
        row for row in rows if row["state"] != "leased" or row["answered_at"] is not None or row["expires_at"] > now
    ]
    had = {row["item_id"] for row in rows if row["annotator_id"] == annotator}
    places = [row["item_id"] for row in rows if row["state"] != "skipped"]
    items = scene.rows("kind = 'pair'", "study_items")
    return sum(places.count(item["id"]) < item["wanted"] and item["id"] not in had for item in items)


def read_ready(scene: StudyScene, annotator: str) -> int:
    with scene.store.reading() as db:
        chooser, _ = scene.assignments._read_chooser(db, scene.id, annotator)
        return chooser.ready()


def test_places_are_counted_as_the_assignments_say_whatever_happens(store) -> None:
    scene = StudyScene(
        store, prompts=4, systems=3, wanted=2, gold=[example(i) for i in range(4)], gold_every=5, repeat_every=6
    )
    people, chance, done = [scene.join(f"p{i}") for i in range(5)], random.Random(3), set[str]()
    shown: dict[str, Any] = {}
    for _ in range(250):
        person = chance.choice(people)
        doing = chance.choices(["next", "answer", "skip", "undo", "wait"], [6, 6, 1, 2, 1])[0]
        try:
            if doing == "next":
                shown[person] = scene.next(person) or shown.get(person)
            elif doing == "undo":
                shown[person] = scene.assignments.undo(scene.id, person)
            elif doing == "wait":
                scene.clock.pass_by(chance.choice([1, 16]))
            elif shown.get(person) is None:
                continue
            elif doing == "answer":  # perhaps after its lease has ended
                scene.answer(person, shown[person], chance.choice(["left", "right"]))
            else:
                scene.assignments.skip(scene.id, person, shown[person].id)
        except RefusedError:
            doing = "refused"
        done.add(doing)
        assert taken(scene) == recount(scene), doing
        assert [read_ready(scene, one) for one in people] == [ready(scene, one) for one in people], doing
    assert done >= {"next", "answer", "skip", "undo", "wait", "refused"}
    assert max(taken(scene).values()) <= 2
    with store.writing() as db:
        db.execute("delete from study_answers")
        db.execute("delete from study_assignments where rowid % 2 = 0")
    assert taken(scene) == recount(scene) and sum(taken(scene).values()) > 0
    scene.tables.delete(scene.id)
    assert scene.rows(table="study_items") == []


def test_an_older_database_gets_its_places_counted(tmp_path) -> None:
    path = tmp_path / "old.db"
    store = Store(path)
    scene = StudyScene(store, prompts=6, wanted=2)
    anna, bert = scene.join("anna"), scene.join("bert")
    scene.work(anna, most=3)
    scene.assignments.skip(scene.id, bert, scene.next(bert).id)
    scene.next(bert)
    before = taken(scene)
    store.close()
    with closing(connect(path)) as db:  # as it was before
        for name in ("insert", "update", "delete"):
            db.execute(f"drop trigger study_assignments_{name}")
        db.execute("drop index study_items_open")
        db.execute("drop index idx_study_assignments_annotator_id_state_kind_item_id_swapped")
        for column in ("taken", "shuffle"):
            db.execute(f"alter table study_items drop column {column}")
        db.execute("delete from _sqlite_migrations where name = 'm004_taken'")
        db.conn.commit()
        assert [one.name for one in study_schema.pending(db)] == ["m004_taken"]
    scene.store = Store(path)
    assert not any(migrations.pending(scene.store.db) for migrations in SCHEMAS)
    assert taken(scene) == before == recount(scene) and sorted(before.values()) == [0, 0, 1, 1, 1, 1]
    assert len({row["shuffle"] for row in scene.rows(table="study_items")}) == 6
    scene.store.close()


def test_the_next_pair_is_looked_for_in_an_index(store) -> None:
    values = {"study": "", "annotator": "", "now": ""}
    with store.reading() as db:
        plan = " | ".join(row[3] for row in db.execute(f"explain query plan select id {READY} order by taken", values))
    assert "study_items USING COVERING INDEX study_items_open" in plan, plan
    assert "SCAN" not in plan and "SEARCH a USING" in plan, plan


def test_an_undo_that_has_expired_counts_before_anybody_acts(store) -> None:
    scene = StudyScene(store, prompts=3, gold=[example(1)], gold_every=1)
    anna = scene.join()
    scene.work(anna, most=3)
    assert {row["kind"] for row in scene.rows()} == {"gold", "pair"}

    def answers() -> list[int]:
        with store.reading() as db:
            exported = len(list(study_votes(db, scene.id)))
        tables = VoteTables(store)
        return [
            exported,
            len(tables.votes(scene.id, "overall")) + len(tables.gold(scene.id)),
            len(tables.pairs(scene.id, 0, 1)) + 1,
            scene.tables.entry(scene.id).answered + 1,
            scene.tables.annotators(scene.id)[0].answered + 1,
        ]

    assert answers() == [3] * 5
    undone = scene.assignments.undo(scene.id, anna)
    assert answers() == [2] * 5, "an answer counts while it is under undo"
    scene.tables.set_state(scene.id, StudyState.PAUSED)
    with store.writing() as db:
        db.execute("update study_assignments set expires_at = '2020-01-01T00:00:00.000+00:00' where state = 'leased'")
    assert answers() == [3] * 5 and scene.rows(f"id = '{undone.id}'")[0]["state"] == "leased"
    progress = scene.assignments.progress(scene.id, anna)
    assert progress.answered == 3
    # A pair that is leased for the first time has no answers to count.
    scene.tables.set_state(scene.id, StudyState.OPEN)
    assert scene.next(anna) is not None
    with store.writing() as db:
        db.execute("update study_assignments set expires_at = '2020-01-01T00:00:00.000+00:00' where state = 'leased'")
    assert answers() == [3] * 5


def test_the_order_of_pairs_is_each_persons_own(store) -> None:
    scene = StudyScene(store, prompts=40, wanted=9)
    orders = []
    for person in (scene.join(f"p{i}") for i in range(4)):
        with store.reading() as db:
            chooser, _ = scene.assignments._read_chooser(db, scene.id, person)
            assert chooser.pair(random.Random(1)) == chooser.pair(random.Random(2))
            orders.append(chooser.pair(random.Random(1)).item_id)
    assert len(set(orders)) > 1


def test_a_lease_that_has_expired_leaves_its_pair_ready_before_anybody_acts(store) -> None:
    scene = StudyScene(store, prompts=2)
    anna, bert = scene.join("anna"), scene.join("bert")
    scene.next(anna)
    assert (read_ready(scene, anna), read_ready(scene, bert)) == (1, 1)
    scene.clock.pass_by(16)
    assert (read_ready(scene, anna), read_ready(scene, bert)) == (2, 2)
    assert scene.assignments.progress(scene.id, anna).total == 2
