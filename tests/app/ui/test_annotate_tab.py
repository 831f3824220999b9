"""The Annotate tab's handlers: for the owner only, with errors in one line, and forms that say what is meant."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.schemas.study import ItemKind, StudySettings, StudyState
from app.services.app_state import Desk
from app.services.visitor import KEY, Visitor
from app.ui.annotate_tab import COMPARISON, AnnotateTab
from app.ui.desk_tab import build_desk_tab
from app.ui.owner_only import OWNERS_ONLY_LINE, acted, owner_only
from app.ui.study_fields import BLANK, StudyFields
from app.ui.study_people_part import StudyPeoplePart
from engine import Engine, InputError
from tests.app.services.test_comparison_jobs import SHORT, mixtures, prompts, wait_for

# Handlers that read a file of prompts or typed weights, as on Compare, and change nothing that is stored.
HARMLESS = {"PromptUpload.taking", "PromptUpload.choosing", "MixtureChoice.adding", "AnnotateTab.arriving"}
VOTES = "prompt,left,right,winner,annotator\nA stain?,ours,theirs,left,anna\nA stain?,ours,theirs,tie,ben\n"


@pytest.fixture
def desk(store, tiny_engine: Engine) -> Iterator[Desk]:
    desk = Desk(tiny_engine, store)
    yield desk
    desk.comparisons.close()


@pytest.fixture
def built(desk: Desk) -> tuple[AnnotateTab, list[Any]]:
    """The tab, and the handlers that it registered."""
    with gr.Blocks() as blocks, gr.Tabs() as tabs, gr.Tab() as first:
        steering = build_desk_tab(desk, first, tabs)
        before = set(blocks.fns)
        with gr.Tab() as tab:
            annotate = AnnotateTab(desk, steering)
            annotate.build(tab)
    return annotate, [event.fn for number, event in blocks.fns.items() if number not in before and event.fn]


def asked_by(owner: bool) -> Any:
    visitor = Visitor("browser", "1.1.1.1", owner)
    return SimpleNamespace(request=SimpleNamespace(scope={KEY: visitor}), session_hash="one")


def form(tab: AnnotateTab, **changes: Any) -> dict[Any, Any]:
    """The values of an empty form with these changes, by the names of its fields."""
    values: dict[Any, Any] = {
        tab.editing: None, tab.name: "", tab.given.prompts: "file", tab.given.file: prompts(2), tab.most: "",
        tab.choice.mixtures: ["reference", "uniform"], tab.sampling.temperature: "1", tab.sampling.length: "6",
        tab.sampling.seed: "5", **tab.fields.changes(BLANK),
    }  # fmt: skip
    values |= {component: update.value for component, update in values.items() if isinstance(update, gr.Textbox)}
    for path, component in tab.choice.controls.by_path().items():
        values[component] = component.value if path != ("rule",) else "geometric"
    named = {"name": tab.name, "prompts": tab.given.prompts, "wanted": tab.fields.wanted, "length": tab.sampling.length}
    return values | {named[name]: value for name, value in changes.items()}


def line(changes: dict[Any, Any], tab: AnnotateTab) -> str:
    return unescape(str(changes[tab.status]))


def test_every_handler_refuses_a_visitor(desk: Desk, built: tuple[AnnotateTab, list[Any]]) -> None:
    tab, handlers = built
    refusing = 0
    for handler in handlers:
        name = handler.__qualname__
        if name.startswith("owner_only"):
            changes = handler({}, asked_by(owner=False))
            (said,) = changes.values()
            assert OWNERS_ONLY_LINE in unescape(said), name
            refusing += 1
        else:
            assert name in HARMLESS or name.endswith("connect.<locals>.<lambda>"), f"{name} asks nobody"
    assert refusing >= 19
    arrived = tab.arriving({tab.listing: None, tab.study.reader.place: 0}, asked_by(owner=False))
    assert set(arrived) == {tab.visitors, tab.content}


def test_a_study_is_made_from_the_form(desk: Desk, built: tuple[AnnotateTab, list[Any]]) -> None:
    tab, _ = built
    create = owner_only(tab.creating, tab.status)
    for changes, says in (
        ({}, "name: give a name that is not empty"),
        ({"name": "x", "wanted": "0"}, "ratings per pair: found 0"),
        ({"name": "x", "length": "many"}, "max tokens: found 'many'"),
    ):
        assert says in line(create(form(tab, **changes), asked_by(owner=True)), tab)
    assert desk.studies.tables.listing() == [] and desk.comparisons.tables.listing() == []
    shown = create(form(tab, name="Round 1"), asked_by(owner=True))
    assert line(shown, tab) == ""
    wait_for(lambda: not desk.comparisons.jobs)
    (entry,) = desk.studies.tables.listing()
    assert (entry.name, entry.systems) == ("Round 1", ["Reference", "Uniform"])
    settings = desk.studies.tables.settings(entry.id)
    assert settings == StudySettings(
        name="Round 1", wanted=3, gold_every=10, seed=5, guidelines=BLANK.guidelines, training_share=0.8
    )
    assert desk.comparisons.tables.plan(1).seed == 5


def test_a_draft_is_changed_and_a_comparison_becomes_a_study(desk: Desk, built: tuple[AnnotateTab, list[Any]]) -> None:
    tab, _ = built
    number = desk.comparisons.start(desk.engine, prompts(1), mixtures(desk.engine), SHORT, seed=7)
    assert tab.given.choices() == []
    wait_for(lambda: not desk.comparisons.jobs)
    assert [value for _, value in tab.given.choices()] == [f"{COMPARISON}{number}"]
    tab.creating(form(tab, name="From it", prompts=f"{COMPARISON}{number}"), Visitor())
    (entry,) = desk.studies.tables.listing()
    assert desk.studies.tables.settings(entry.id).seed == 7 and entry.comparison_id == number
    desk.studies.add_example(entry.id, ItemKind.GOLD, 0, (0, 1), ["first"])

    edited = tab.editing_draft({tab.listing: entry.id}, Visitor())
    values = form(tab) | {component: value for component, value in edited.items() if component in form(tab)}
    values |= {component: update.value for component, update in values.items() if isinstance(update, gr.Textbox)}
    tab.creating({**values, tab.fields.wanted: "4", tab.editing: entry.id}, Visitor())
    after = desk.studies.tables.settings(entry.id)
    assert (after.name, after.wanted, len(after.gold), after.seed) == ("From it", 4, 1, 7)
    assert len(desk.studies.tables.listing()) == 1


def test_errors_are_one_line_each() -> None:
    status = gr.HTML()

    def fail(error: Exception) -> Any:
        def handler(*_: Any) -> Any:
            raise error

        return owner_only(handler, status)

    assert "Not that." in fail(InputError("Not that."))({}, asked_by(owner=True))[status]
    assert "retry" in fail(sqlite3.OperationalError("disk I/O error"))({}, asked_by(owner=True))[status]


def test_a_button_of_a_table_says_what_it_is_of(desk: Desk, built: tuple[AnnotateTab, list[Any]]) -> None:
    tab, _ = built
    assert (acted("revoke abc"), acted(None)) == (("revoke", "abc"), ("", ""))
    study = desk.studies.tables.add(StudySettings(name="One"), {"a": None, "b": None})
    other = desk.studies.tables.add(StudySettings(name="Two"), {"a": None, "b": None})
    desk.studies.invite(other, "Anna")
    (invitation,) = desk.studies.tables.invitations(other)
    people = tab.study.people
    for text in ("", "delete x", f"revoke {invitation.id}", "revoke"):  # of another study, or of none
        assert people.revoking({people.study: study, people.acted: text}, Visitor()) == {}
    assert desk.studies.tables.invitations(other)[0].revoked_at is None
    people.revoking({people.study: other, people.acted: f"revoke {invitation.id}"}, Visitor())
    assert desk.studies.tables.invitations(other)[0].revoked_at is not None
    reader = tab.study.reader
    for text in ("", "pair 0", "gold x", "gold -1"):
        assert reader.removing({reader.study: study, reader.acted: text}, Visitor()) == {}


def test_votes_become_a_closed_study_that_is_shown(
    desk: Desk, built: tuple[AnnotateTab, list[Any]], tmp_path: Path
) -> None:
    tab, _ = built
    older = desk.studies.tables.add(tab.settings(form(tab, name="Older"), 5), {"a": None, "b": None})
    file = tmp_path / "round one.csv"
    file.write_text(VOTES, encoding="utf-8")
    changes = tab.votes.importing({tab.votes.upload: str(file), tab.votes.name: "  Crowd "}, Visitor())
    assert "Imported 2 votes by 2 annotators on 1 pair of responses by 2 systems." in line(changes, tab)
    imported = next(one for one in desk.studies.tables.listing() if one.id != older)
    assert (imported.name, imported.state, imported.source) == ("Crowd", StudyState.CLOSED, "round one.csv")
    assert (imported.systems, imported.answered) == (["ours", "theirs"], 2)
    listing = changes[tab.listing]
    assert listing.value == imported.id
    assert ("Crowd · closed, 2 of 2 ratings, 2 people", imported.id) in listing.choices
    assert changes[tab.votes.name] == "" and changes[tab.form].visible is False
    assert "imported" in changes[tab.study.people.annotators]

    # Without a name, the study has that of the file.
    tab.votes.importing({tab.votes.upload: str(file), tab.votes.name: ""}, Visitor())
    assert {one.name for one in desk.studies.tables.listing()} == {"Older", "Crowd", "round one"}


@pytest.mark.parametrize(
    ("file", "content", "name", "says"),
    [
        ("votes.csv", VOTES + "A stain?,ours,theirs,maybe,carl\n", "Crowd", "votes.csv, line 4: winner: found 'maybe'"),
        ("votes.csv", "prompt,left,right\na,b,c\n", "Crowd", "votes.csv: it has no column for the winner"),
        ("votes.csv", VOTES, "Taken", "name: there is a study called 'Taken'; give another name"),
        ("votes.csv", VOTES, "two\nlines", "name: found 'two\\nlines'"),
        ("votes.exe", VOTES, "Crowd", "votes.exe: give a file of votes that ends in .csv"),
        ("gone.csv", None, "Crowd", "gone.csv: No such file or directory; choose the file again"),
        (None, None, "Crowd", "Votes: there is no file; upload one."),
    ],
)
def test_what_cannot_be_imported_is_said_in_one_line(
    desk: Desk,
    built: tuple[AnnotateTab, list[Any]],
    tmp_path: Path,
    file: str | None,
    content: str | None,
    name: str,
    says: str,
) -> None:
    tab, _ = built
    desk.studies.tables.add(tab.settings(form(tab, name="Taken"), 5), {"a": None, "b": None})
    path = str(tmp_path / file) if file else None
    if path and content:
        Path(path).write_text(content, encoding="utf-8")
    upload = owner_only(tab.votes.importing, tab.status)
    changes = upload({tab.votes.upload: path, tab.votes.name: name}, asked_by(owner=True))
    said = line(changes, tab)
    assert set(changes) == {tab.status} and says in said and "\n" not in said and "--name" not in said
    assert str(tmp_path) not in said, "where the server keeps it is nobody's business"
    assert [one.name for one in desk.studies.tables.listing()] == ["Taken"]


@pytest.mark.parametrize("sign_in", [False, True])
def test_signing_in_is_offered_where_people_can(desk: Desk, sign_in: bool) -> None:
    desk.sign_in = sign_in
    with gr.Blocks():
        fields = StudyFields(["helpful"], desk.sign_in)
        fields.build_more()
        people = StudyPeoplePart(desk, gr.Radio(), "./")
        people.build()
    offered = [value for _, value in fields.joining.choices]
    assert offered == ["anonymous", "sign_in"] if sign_in else offered == ["anonymous"]
    # A draft may be from when the desk was started with it.
    study = desk.studies.tables.add(StudySettings(name="One", sign_in=True), {"a": None, "b": None})
    assert (people.shown(study)[people.link] is not None) == sign_in


@pytest.mark.parametrize("sign_in", [False, True])
def test_a_draft_from_when_people_could_sign_in_is_shown(desk: Desk, sign_in: bool) -> None:
    desk.sign_in = sign_in
    with gr.Blocks() as _, gr.Tabs() as tabs, gr.Tab() as first:
        tab = AnnotateTab(desk, build_desk_tab(desk, first, tabs))
        tab.build(first)
    settings = StudySettings(name="One", anonymous=True, sign_in=True)
    study = desk.studies.tables.add(settings, {"a": None, "b": None})
    edited = tab.editing_draft({tab.listing: study}, Visitor())
    assert edited[tab.fields.joining] == (["anonymous", "sign_in"] if sign_in else ["anonymous"])
