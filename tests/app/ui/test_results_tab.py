"""Who sees what in Results: studies, pairs and people are the owner's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.services.visitor import KEY, Visitor
from app.storage.database import Store
from app.ui.results_tab import ResultsTab
from engine import InputError, Mixture
from tests.app.conftest import make_completion
from tests.app.services.voting import Ballot, add_study

OWNER, VISITOR = Visitor("mine", "10.0.0.1", True), Visitor("theirs", "10.0.0.2", False)


@pytest.fixture
def results(store: Store) -> ResultsTab:
    sides = [make_completion(mixture=Mixture({name: 1.0})) for name in "ab"]
    assert store.rate("one", *sides, "left", "ada", model="here")
    ballots = [
        Ballot(f"{i}", 0, 1, "Bo", "left" if i else "right", comment="secret", texts=("It is.", "It is not."))
        for i in range(3)
    ]
    add_study(store, ballots, name="Blind", state="open")
    engine: Any = SimpleNamespace(config=SimpleNamespace(name="here"))
    desk: Any = SimpleNamespace(
        store=store, engine=engine, policies=["a", "b"], accents={"a": "red", "b": "blue"}, colours={}
    )
    with gr.Blocks(), gr.Tab() as tab:
        mixture = SimpleNamespace(components=list, by_path=dict)
        steering: Any = SimpleNamespace(mixture=mixture, status=gr.HTML())
        made = ResultsTab(desk, steering)
        made.build(tab)
    return made


def values(results: ResultsTab, **given: Any) -> dict[Any, Any]:
    """What the page sends; given: by the names of the tab's components."""
    return {**dict.fromkeys(results.inputs), results.seen: {}} | {
        getattr(results, key): one for key, one in given.items()
    }


def request(visitor: Visitor) -> Any:
    return SimpleNamespace(request=SimpleNamespace(scope={KEY: visitor}))


def test_the_owner_sees_the_newest_study(results: ResultsTab) -> None:
    shown = results.opened(values(results), OWNER)
    assert shown[results.study].value == "study"
    assert "<b>3 votes</b>" in shown[results.about] and "Not blind" not in shown[results.about]
    assert "Bo" in shown[results.people] and shown[results.matrix]["opens"]
    desk = results.opened(values(results, study="desk", seen=shown[results.seen]), OWNER)
    assert "<b>1 vote</b>" in desk[results.about] and "Not blind" in desk[results.about]


def test_visitors_see_the_desks_ratings_only(results: ResultsTab) -> None:
    shown = results.opened(values(results), VISITOR)
    assert shown[results.study].choices == [("Desk", "desk")]
    assert "<b>1 vote</b>" in shown[results.about]
    assert "ada" not in shown[results.people] and not shown[results.matrix]["opens"]
    assert shown[results.person].choices == [] and shown[results.person].visible is False
    # Also if they send a study's id.
    forged = values(results, study="study", seen=shown[results.seen])
    assert results.opened(forged, VISITOR)[results.study].value == "desk"
    for handler in (results.narrowed, results.implied_now):
        with pytest.raises(InputError, match="owner of this desk"):
            handler(forged, VISITOR)


def test_pairs_are_the_owners(results: ResultsTab) -> None:
    seen = results.opened(values(results), OWNER)[results.seen]
    opened = results.reading(seen, "1,0", request(OWNER))[results.pairs]
    assert opened["title"] == "B against A" and opened["about"] == "3 pairs, 3 votes."
    assert (opened["items"][0]["first"], opened["items"][0]["second"]) == ("It is not.", "It is.")
    assert [item["tally"] for item in opened["items"]] == ["1 : 0", "0 : 1", "0 : 1"]
    assert opened["items"][0]["votes"] == [
        {"who": "Bo", "verdict": "B", "at": "2026-03-01", "comment": "secret", "flagged": False}
    ]
    for sent, visitor in ((seen, VISITOR), ({}, VISITOR)):
        refused = results.reading(sent, "1,0", request(visitor))
        assert results.pairs not in refused and "for the owner of this desk" in refused[results.about]
    assert "there are no such systems" in results.reading(seen, "7,0", request(OWNER))[results.about]
    assert results.pairs not in results.reading(seen, "x", request(OWNER))


def test_the_same_filters_again_compute_nothing(results: ResultsTab) -> None:
    seen = results.opened(values(results), OWNER)[results.seen]
    same = values(results, study="study", question="overall", seen=seen)
    assert results.narrowed(same, OWNER) == {}
    nothing = results.narrowed({**same, results.since: "2026-03-02"}, OWNER)
    assert (
        nothing[results.content].visible is False
        and "The filters leave out all 3 votes" in nothing[results.empty].value
    )
