"""Assignments: exact overlap, leases, answers that are stored once, skips, flags and undo."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from app.schemas.study import Question, StudyState
from app.storage.assignments import RefusedError
from engine import InputError
from tests.app.storage.making_studies import StudyScene, example


def test_each_pair_is_rated_as_often_as_wanted_by_different_people(store) -> None:
    scene = StudyScene(store, prompts=5, wanted=2)
    people = [scene.join(name) for name in ("anna", "bert", "cleo")]
    done = dict.fromkeys(people, 0)
    while sum(len(scene.work(person, most=1)) for person in people):
        pass
    for row in scene.rows("state = 'answered'"):
        done[row["annotator_id"]] += 1
    assert scene.counts() == [2] * 5 and sum(done.values()) == 10
    given = Counter((row["annotator_id"], row["item_id"]) for row in scene.rows())
    assert set(given.values()) == {1}, "somebody got a pair twice"
    assert scene.assignments.progress(scene.id, people[0]).phase == "done"


def test_the_pair_with_the_fewest_ratings_comes_first(store) -> None:
    scene = StudyScene(store, prompts=6, wanted=3)
    anna, bert, cleo = (scene.join(name) for name in ("anna", "bert", "cleo"))
    scene.work(anna, most=4)
    done = {row["item_id"] for row in scene.rows()}
    scene.work(bert, most=2)
    assert not done & {row["item_id"] for row in scene.rows(f"annotator_id = '{bert}'")}
    assert scene.counts() == [1] * 6
    scene.work(cleo, most=6)
    assert scene.counts() == [2] * 6


def test_people_begin_at_different_pairs(store) -> None:
    scene = StudyScene(store, prompts=30, wanted=30)
    first = [scene.next(scene.join(f"p{i}")) for i in range(30)]
    # A lease counts as a rating, so each begins with a pair of their own.
    assert len({assignment.prompt[0]["content"] for assignment in first}) == 30
    items = [row["item_id"] for row in scene.rows()]
    order = [item.id for item in scene.tables.items(scene.id)]
    assert items != order, "the order is the same for all"


def test_a_leased_pair_is_returned_again_and_nobody_elses(store) -> None:
    scene = StudyScene(store, prompts=1)
    anna, bert = scene.join("anna"), scene.join("bert")
    mine = scene.next(anna)
    scene.clock.pass_by(10)
    assert scene.next(anna) == mine
    scene.clock.pass_by(10)  # the pause prolonged the lease
    assert scene.next(bert) is None
    scene.clock.pass_by(6)
    theirs = scene.next(bert)
    assert theirs is not None and theirs.id != mine.id
    assert scene.next(anna) is None
    with pytest.raises(RefusedError, match="open for more than 15 minutes, and others have rated it"):
        scene.answer(anna, mine)
    scene.answer(bert, theirs)
    assert scene.counts() == [1]


def test_an_expired_lease_is_answered_while_there_is_room(store) -> None:
    scene = StudyScene(store, prompts=1, wanted=2)
    anna, bert, cleo = (scene.join(name) for name in ("anna", "bert", "cleo"))
    mine = scene.next(anna)
    scene.clock.pass_by(16)
    scene.answer(bert, scene.next(bert))
    theirs = scene.next(cleo)  # which takes the place that anna gave back
    with pytest.raises(RefusedError):
        scene.answer(anna, mine)
    scene.clock.pass_by(16)
    scene.answer(anna, mine)
    with pytest.raises(RefusedError):
        scene.answer(cleo, theirs)
    assert scene.counts() == [2]


def test_who_comes_back_finds_the_same_pair(store) -> None:
    scene = StudyScene(store, prompts=9)
    anna = scene.join()
    mine = scene.next(anna)
    scene.clock.pass_by(60)
    assert scene.next(anna) == mine
    assert len(scene.rows()) == 1


def test_an_answer_is_stored_once(store) -> None:
    scene = StudyScene(store, prompts=2, questions=[Question(key="overall", text="?"), Question(key="kind", text="?")])
    anna, bert = scene.join("anna"), scene.join("bert")
    mine = scene.next(anna)
    for _ in range(3):
        scene.answer(anna, mine, "tie", comment="=1+1", flagged=True, seconds=2.5)
    with pytest.raises(RefusedError, match="answered this pair already: undo"):
        scene.answer(anna, mine, "left")
    with pytest.raises(InputError, match="was not given to you"):
        scene.answer(bert, mine)
    (row,) = scene.rows("state = 'answered'")
    assert (row["seconds"], row["comment"], row["flagged"]) == (2.5, "=1+1", 1)
    answers = scene.rows(table="study_answers")
    assert {(one["question"], one["choice"]) for one in answers} == {("overall", "tie"), ("kind", "tie")}
    assert len(answers) == 2


@pytest.mark.parametrize(
    "answers",
    [{}, {"overall": "first"}, {"overall": "tie"}, {"overall": "both_bad"}, {"overall": "left", "other": "left"}],
)
def test_answers_are_checked(store, answers: dict[str, str]) -> None:
    scene = StudyScene(store, tie=False, both_bad=False)
    anna = scene.join()
    mine = scene.next(anna)
    with pytest.raises(InputError, match=r"^answers: ") as raised:
        scene.assignments.answer(scene.id, anna, mine.id, answers)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"^comment: it has 2,001 characters"):
        scene.answer(anna, mine, comment="x" * 2001)
    assert scene.counts() == [0] * 4


@pytest.mark.parametrize(("seconds", "stored"), [(float("nan"), None), (-1, None), (1e9, 86_400), (None, None), (3, 3)])
def test_times_are_times(store, seconds, stored) -> None:
    scene = StudyScene(store)
    anna = scene.join()
    scene.answer(anna, scene.next(anna), seconds=seconds)
    assert scene.rows()[0]["seconds"] == stored


# ------------------------------------------------------------------------------------------------- skip, flag, and undo


def test_a_skipped_pair_is_anothers(store) -> None:
    scene = StudyScene(store, prompts=2)
    anna, bert = scene.join("anna"), scene.join("bert")
    mine = scene.next(anna)
    for _ in range(2):
        scene.assignments.skip(scene.id, anna, mine.id, "cannot tell")
    with pytest.raises(RefusedError, match="have skipped this pair"):
        scene.answer(anna, mine)
    scene.clock.pass_by(100)
    assert [one.prompt for one in scene.work(anna)] != [mine.prompt]
    assert [one.prompt for one in scene.work(bert)] == [mine.prompt]
    assert scene.counts() == [1, 1]
    skipped = scene.rows("state = 'skipped'")
    assert [(row["annotator_id"], row["comment"]) for row in skipped] == [(anna, "cannot tell")]
    assert scene.tables.annotators(scene.id)[0].skipped == 1
    with pytest.raises(RefusedError, match="undo that answer first"):
        answered = scene.rows(f"state = 'answered' and annotator_id = '{anna}'")[0]
        scene.assignments.skip(scene.id, anna, answered["id"])


def test_a_flagged_pair_stays_to_be_answered(store) -> None:
    scene = StudyScene(store)
    anna = scene.join()
    mine = scene.next(anna)
    scene.assignments.flag(scene.id, anna, mine.id, "<b>odd</b>")
    again = scene.next(anna)
    assert (again.id, again.flagged, again.comment) == (mine.id, True, "<b>odd</b>")
    scene.answer(anna, mine)
    (row,) = scene.rows()
    assert (row["flagged"], row["comment"], row["state"]) == (1, "<b>odd</b>", "answered")
    assert scene.tables.annotators(scene.id)[0].flagged == 1


def test_undo_brings_the_last_pair_back_with_its_answers(store) -> None:
    scene = StudyScene(store, prompts=3)
    anna, bert = scene.join("anna"), scene.join("bert")
    with pytest.raises(RefusedError, match="no answer to undo"):
        scene.assignments.undo(scene.id, anna)
    first, second = scene.work(anna, most=2)
    third = scene.next(anna)
    for _ in range(2):  # as when the answer to the first request is lost
        undone = scene.assignments.undo(scene.id, anna)
        assert (undone.id, undone.answers) == (second.id, {"overall": "left"})
    assert scene.next(anna) == undone
    assert scene.next(bert) is None, "a place is free that is not"
    scene.answer(anna, undone, "right")
    assert scene.next(anna) == third
    choices = {row["assignment_id"]: row["choice"] for row in scene.rows(table="study_answers")}
    assert choices == {first.id: "left", second.id: "right"}
    scene.answer(anna, third)
    assert scene.counts() == [1, 1, 1] and scene.assignments.progress(scene.id, anna).phase == "done"


def test_an_undo_that_is_not_used_keeps_the_answer(store) -> None:
    scene = StudyScene(store, prompts=1)
    anna, bert = scene.join("anna"), scene.join("bert")
    scene.work(anna)
    undone = scene.assignments.undo(scene.id, anna)
    assert scene.counts() == [0]
    scene.clock.pass_by(16)
    assert scene.next(bert) is None
    assert scene.counts() == [1]
    # The other answer, if it still comes, is not lost either.
    scene.answer(anna, undone, "right")
    assert [row["choice"] for row in scene.rows(table="study_answers")] == ["right"] and scene.counts() == [1]
    with pytest.raises(RefusedError):
        scene.answer(anna, undone, "left")


def test_a_pair_that_was_undone_can_be_skipped(store) -> None:
    scene = StudyScene(store, prompts=1)
    anna, bert = scene.join("anna"), scene.join("bert")
    scene.work(anna)
    scene.assignments.skip(scene.id, anna, scene.assignments.undo(scene.id, anna).id)
    assert scene.rows(table="study_answers") == [] and scene.next(anna) is None
    scene.work(bert, "right")
    assert scene.counts() == [1]


# ----------------------------------------------------------------------------------------------------- who gets nothing


def test_a_paused_study_gives_out_nothing_and_takes_what_was_given_out(store) -> None:
    scene = StudyScene(store, prompts=2)
    anna = scene.join()
    mine = scene.next(anna)
    scene.tables.set_state(scene.id, StudyState.PAUSED)
    assert scene.next(anna) is None and scene.assignments.progress(scene.id, anna).phase == "paused"
    scene.answer(anna, mine)
    with pytest.raises(RefusedError, match="is paused"):
        scene.assignments.undo(scene.id, anna)
    scene.tables.set_state(scene.id, StudyState.OPEN)
    other = scene.next(anna)
    scene.tables.set_state(scene.id, StudyState.CLOSED)
    for refused in (
        lambda: scene.answer(anna, other),
        lambda: scene.assignments.skip(scene.id, anna, other.id),
        lambda: scene.assignments.undo(scene.id, anna),
    ):
        with pytest.raises(RefusedError, match="is closed"):
            refused()
    scene.answer(anna, mine)  # again, as a page does that has not seen the confirmation
    assert scene.next(anna) is None and scene.assignments.progress(scene.id, anna).phase == "closed"
    with pytest.raises(InputError, match="is closed: it takes no more answers"):
        scene.join("late")
    assert sum(scene.counts()) == 1


def test_a_draft_is_no_study_to_annotators(store) -> None:
    scene = StudyScene(store, state=StudyState.DRAFT)
    with pytest.raises(InputError, match="There is no such study"):
        scene.join()


def test_guidelines_come_first(store) -> None:
    scene = StudyScene(store, guidelines="Be kind.")
    anna = scene.join(read=False)
    assert scene.next(anna) is None and scene.assignments.progress(scene.id, anna).phase == "guidelines"
    scene.assignments.mark_read(scene.id, anna)
    assert scene.next(anna) is not None
    plain = StudyScene(store)
    assert plain.next(plain.join(read=False)) is not None


def test_nobody_rates_more_than_they_may(store) -> None:
    scene = StudyScene(store, prompts=10, wanted=2, most=4)
    anna, bert = scene.join("anna"), scene.join("bert")
    assert len(scene.work(anna)) == len(scene.work(bert)) == 4
    assert scene.assignments.progress(scene.id, anna).phase == "done"
    scene.assignments.undo(scene.id, anna)
    assert scene.assignments.progress(scene.id, anna).phase == "work"
    assert len(scene.work(anna)) == 1 and sum(scene.counts()) == 8


def test_a_study_stops_at_its_budget(store) -> None:
    scene = StudyScene(store, prompts=10, systems=3, wanted=2, pairing="uncertain", budget=7)
    anna, bert = scene.join("anna"), scene.join("bert")
    scene.work(anna, most=5)
    mine = scene.next(anna)
    assert len(scene.work(bert)) == 1
    scene.clock.pass_by(16)
    assert len(scene.work(bert)) == 1
    with pytest.raises(RefusedError):
        scene.answer(anna, mine)
    assert sum(scene.counts()) == 7 and scene.next(anna) is None
    assert scene.tables.entry(scene.id).wanted == 7


# ------------------------------------------------------------------------------------------------------------- training


def train(scene: StudyScene, annotator: str, right: int) -> list[bool]:
    """Answer one attempt, the first `right` pairs rightly; return the feedback."""
    feedback = []
    for number in range(len(scene.settings.training)):
        assignment = scene.next(annotator)
        assert assignment.training
        good = "left" if assignment.a.endswith("first") else "right"
        bad = "right" if good == "left" else "left"
        for _ in range(2):  # the second time, the first one's confirmation was lost
            given = scene.answer(annotator, assignment, good if number < right else bad)
        assert given.text == f"because {given.right is True or given.right is False}"
        feedback.append(given.right)
    return feedback


def test_training_has_two_attempts(store) -> None:
    training = [example(i, feedback="because True") for i in range(4)]
    scene = StudyScene(store, training=training, training_share=0.75)
    anna, bert, cleo = (scene.join(name) for name in ("anna", "bert", "cleo"))
    assert train(scene, anna, 3) == [True, True, True, False]
    assert not scene.next(anna).training
    assert train(scene, bert, 2) == [True, True, False, False]
    progress = scene.assignments.progress(scene.id, bert)
    assert (progress.phase, progress.training_done, progress.training_total, progress.attempt) == ("training", 0, 4, 2)
    with pytest.raises(InputError, match="cannot be skipped"):
        scene.assignments.skip(scene.id, bert, scene.next(bert).id)
    train(scene, bert, 4)
    assert scene.assignments.progress(scene.id, bert).phase == "work"
    with pytest.raises(RefusedError, match="no answer to undo"):
        scene.assignments.undo(scene.id, bert)
    train(scene, cleo, 0)
    train(scene, cleo, 2)
    assert scene.next(cleo) is None and scene.assignments.progress(scene.id, cleo).phase == "failed"
    assert [entry.attempts for entry in scene.tables.annotators(scene.id)] == [0, 1, 2]
    assert scene.counts() == [0] * 4


# --------------------------------------------------------------------------------------------------------- many at once


def test_many_at_once_rate_each_pair_exactly_as_often_as_wanted(store) -> None:
    scene = StudyScene(store, prompts=24, wanted=3)
    people = [scene.join(f"p{i}") for i in range(12)]
    barrier, errors, confirmed = threading.Barrier(12), list[BaseException](), list[str]()

    def work(number: int) -> None:
        try:
            barrier.wait()
            skipped = False
            while assignment := scene.next(people[number]):
                if number % 3 == 0 and not skipped:
                    scene.assignments.skip(scene.id, people[number], assignment.id)
                    skipped = True
                else:
                    scene.answer(people[number], assignment)
                    confirmed.append(assignment.id)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[i]) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while sum(len(scene.work(person)) for person in people):  # who found everything leased had stopped
        pass
    assert errors == [] and scene.counts() == [3] * 24
    assert set(confirmed) <= {row["id"] for row in scene.rows("state = 'answered'")}
    assert len(set(confirmed)) == len(confirmed)
