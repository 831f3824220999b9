"""What others made is theirs: only their browser, or the owner, replaces, deletes, stops, resumes or exports it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.server.access import Access
from app.server.guard import guarded
from app.services import comparison_jobs
from app.services.app_state import Desk
from app.services.comparison_jobs import Comparisons
from app.services.visitor import Visitor
from app.storage.owners import Owners
from app.storage.saved_mixtures import SavedMixtures
from app.ui import saved_mixtures
from engine import Engine, InputError, Sampling
from engine.prompts import PromptSet
from tests.app.server.guarding import LOCAL, OWNED, PAGE, TOKEN, URL, app_of, browsing
from tests.app.server.test_configurations import Scene

ANNA, BERT, OWNER = (
    Visitor("anna", "1.1.1.1", False),
    Visitor("bert", "2.2.2.2", False),
    Visitor("own", "3.3.3.3", True),
)
NOBODY = Visitor("", "4.4.4.4", False)


# ------------------------------------------------------------------------------------------------------- the records


def test_who_made_what_is_kept(store) -> None:
    owners, others = Owners(store, "mixture"), Owners(store, "comparison")
    owners.record("one", "anna")
    assert owners.made("one", "anna")
    assert not owners.made("one", "bert") and not owners.made("one", "") and not owners.made("two", "anna")
    assert not others.made("one", "anna")
    assert Owners(store, "mixture").made("one", "anna"), "another process does not know"
    assert "anna" not in str(list(store.db.query("select * from owners"))), "the ids are in the database"
    owners.record("two", "")
    assert not owners.made("two", "")
    owners.forget("one")
    assert not owners.made("one", "anna")


# ------------------------------------------------------------------------------------------------------- comparisons


@pytest.fixture
def comparisons(store) -> Iterator[Comparisons]:
    made = Comparisons(store)
    yield made
    made.close()


def begin(comparisons: Comparisons, engine: Engine, visitor: Visitor, count: int = 1, length: int = 3) -> int:
    prompts = PromptSet("mine.txt", [f"move {i}" for i in range(count)], list(range(1, count + 1)))
    mixtures = {"Reference": engine.mixture({"reference": 1.0}), "plain": engine.mixture({"plain": 1.0})}
    sampling = Sampling(max_new_tokens=length, temperature=1.0)
    return comparisons.start(engine, prompts, mixtures, sampling, visitor=visitor)


def test_a_comparison_is_its_browsers_or_the_owners(comparisons: Comparisons, tiny_engine: Engine) -> None:
    made = begin(comparisons, tiny_engine, ANNA, count=200, length=40)
    for stranger in (BERT, NOBODY):
        for change in (
            lambda who: comparisons.stop(made, who),
            lambda who: comparisons.resume(tiny_engine, made, who),
            lambda who: comparisons.delete(made, who),
        ):
            with pytest.raises(InputError, match="started in another browser"):
                change(stranger)
    assert made in comparisons.jobs and not comparisons.jobs[made].stopping.is_set()
    comparisons.stop(made, ANNA)
    comparisons.jobs[made].thread.join()
    with pytest.raises(InputError, match="started in another browser"):
        comparisons.delete(made, BERT)
    comparisons.delete(made, OWNER)
    assert comparisons.tables.listing() == []
    with pytest.raises(InputError):  # the number may be another's next
        comparisons.check_owner(made, ANNA)


def test_one_address_does_not_take_all_places(
    comparisons: Comparisons, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begin(comparisons, tiny_engine, ANNA, count=200, length=40)
    with pytest.raises(InputError, match="A comparison from your address is under way"):
        begin(comparisons, tiny_engine, Visitor("another", ANNA.address, False))
    second = begin(comparisons, tiny_engine, BERT, count=200, length=40)
    assert len(comparisons.jobs) == 2
    comparisons.stop(first, ANNA)
    comparisons.stop(second, BERT)
    comparisons.close()
    monkeypatch.setattr(comparison_jobs, "MAX_STORED", 2)
    with pytest.raises(InputError, match="There are 2 comparisons, and no room for more: delete one first"):
        begin(comparisons, tiny_engine, OWNER)


def test_a_comparison_is_exported_by_its_browser_or_the_owner(store, tiny_engine: Engine) -> None:
    desk = Desk(tiny_engine, store)
    app = app_of(desk, OWNED)
    try:
        with browsing(app) as mine, browsing(app) as other:
            visitor = Visitor(mine.cookies["mixdesk_browser"], "testclient", False)
            made = begin(desk.comparisons, tiny_engine, visitor)
            desk.comparisons.jobs[made].thread.join()
            assert mine.get(f"/comparisons/{made}.csv").status_code == 200
            for path in (f"/comparisons/{made}.csv", f"/comparisons/0{made}.jsonl", f"/comparisons/{made}.exe"):
                refused = other.get(path)
                assert refused.status_code == 403 and len(refused.text.splitlines()) == 1, path
            other.get(f"/?owner={TOKEN}", headers=PAGE)
            assert other.get(f"/comparisons/{made}.csv").status_code == 200
    finally:
        desk.comparisons.close()


# --------------------------------------------------------------------------------------------------- saved mixtures


class Shelf:
    """The page's saved mixtures, as browsers operate them."""

    def __init__(self, desk: Desk, access: Access) -> None:
        self.app = app_of(desk, access)
        with browsing(self.app) as client:
            self.config = client.get("/config").json()
        self.components = {one["props"].get("elem_id"): one["id"] for one in self.config["components"]}

    def press(self, client: TestClient, button: str, name: str) -> str:
        """Press a button with this name in the box; return the answer's text."""
        target = [self.components[button], "click"]
        event = next(one for one in self.config["dependencies"] if target in one["targets"] and one["backend_fn"])
        initial = {one["id"]: one["props"].get("value") for one in self.config["components"]}
        data: list[Any] = [name if id == self.components["saved"] else initial[id] for id in event["inputs"]]
        asked = {"fn_index": event["id"], "data": data, "session_hash": "abc"}
        answer = client.post("/gradio_api/run/predict", json=asked)
        assert answer.status_code == 200, answer.text
        return answer.text


def test_a_saved_mixture_is_its_browsers_or_the_owners(
    store, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, saved = Shelf(Desk(tiny_engine, store), OWNED), SavedMixtures(store)
    with browsing(shelf.app) as mine, browsing(shelf.app) as other:
        assert "Saved: " in shelf.press(mine, "save", "mine")
        assert "Replace it?" in shelf.press(mine, "save", "mine")
        for button in ("save", "replace", "delete", "remove"):
            assert "saved in another browser" in shelf.press(other, button, "mine"), button
        assert saved.names() == ["mine"]
        assert "The faders are at" in shelf.press(other, "load", "mine")
        assert "Saved over" in shelf.press(mine, "replace", "mine")
        other.get(f"/?owner={TOKEN}", headers=PAGE)
        assert "Delete “mine”" in shelf.press(other, "delete", "mine")
        assert "Deleted" in shelf.press(other, "remove", "mine")
        # The name is free again, and the next one's.
        assert "Saved: " in shelf.press(other, "save", "mine")
        assert "saved in another browser" in shelf.press(mine, "remove", "mine")
        monkeypatch.setattr(saved_mixtures, "MAX_SAVED", 1)
        assert "no room for more" in shelf.press(mine, "save", "second")
        assert saved.names() == ["mine"]


def test_on_this_machine_everybody_changes_everything(store, tiny_engine: Engine) -> None:
    shelf = Shelf(Desk(tiny_engine, store), LOCAL)
    with browsing(shelf.app) as mine, browsing(shelf.app) as other:
        shelf.press(mine, "save", "mine")
        assert "Saved over" in shelf.press(other, "replace", "mine")
        assert "Deleted" in shelf.press(other, "remove", "mine")


# --------------------------------------------------------------------------------------- configurations and fetches


def test_other_configurations_are_the_owners_to_load(tiny, store) -> None:
    scene = Scene(tiny, store)
    with TestClient(guarded(scene.site, OWNED), base_url=URL, follow_redirects=False) as client:
        answer = client.post("/configurations/two")
        assert answer.status_code == 403 and len(answer.text.splitlines()) == 1
        assert scene.opened == [] and client.get("/configurations/two").json()["state"] == "closed"
        assert client.post("/configurations/one").json()["state"] == "ready"  # it is loaded
        client.get("/", headers=PAGE)
        client.get(f"/?owner={TOKEN}", headers=PAGE)
        assert client.post("/configurations/two").json()["state"] == "loading"


def test_fetches_are_the_owners_to_start(tiny, store) -> None:
    scene = Scene(tiny, store)
    changed: list[str] = []

    class Fetches:
        all = {"two": None}  # noqa: RUF012
        start = cancel = changed.append

    scene.site.configurations.fetching = Fetches()  # type: ignore[assignment]
    client = TestClient(guarded(scene.site, OWNED), base_url=URL)
    for send in (client.post, client.delete):
        assert send("/fetch/two").status_code == 403
    assert changed == []
