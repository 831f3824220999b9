"""The Annotate tab in a real Chromium: an owner makes a study, reads its responses, invites, opens, closes, deletes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from app.schemas.study import StudyState
from app.server.app import Site
from app.server.configurations import Configurations
from app.server.desk_app import web_app
from app.server.guard import guarded
from app.server.study_downloads import study_routes
from app.services.app_state import Desk
from app.storage.assignments import Assignments
from app.storage.database import Store
from app.ui.page import build_page
from engine import Engine
from engine.config import DEMO
from engine.inference.batch import Batch
from tests.app.server.guarding import OWNED, TOKEN
from tests.browser.conftest import UNFOLDING, opened
from tests.browser.serving import running
from tests.browser.test_accessibility import STILL, check
from tests.browser.test_keyboard import Keys
from tests.browser.walking import PHONE, Hand, Hands

expect.set_options(timeout=30_000)

HOSTILE = '<img src=x onerror="window.harmed = 1">{{7*7}} ${window.harmed = 2}'


@contextmanager
def study_site(engine: Engine, folder: Path, hosted: bool = False) -> Iterator[tuple[str, Desk]]:
    """The site with one desk: its address, and what is behind it. hosted: whoever has no token is a visitor."""
    desk = Desk(engine, Store(folder / "mixdesk.db"))
    configurations = Configurations(
        [DEMO], lambda *_: desk, lambda desk, menu, root: web_app(build_page(desk, menu), desk, root)
    )
    configurations.begin(desk)
    site = Site(configurations, more=study_routes(desk.store))
    try:
        with running(guarded(site, OWNED) if hosted else site, grace=1) as (url, _):
            yield url, desk
    finally:
        desk.comparisons.close()
        desk.store.close()


@contextmanager
def annotating(browser: Browser, url: str, **look: object) -> Iterator[Page]:
    """The Annotate tab, just opened; nothing that was typed or uploaded may do anything in it."""
    with opened(browser, url, **look) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.add_style_tag(content=STILL)
        page.locator("#annotate-tab-button").click()
        yield page
        assert page.evaluate("window.harmed") is None


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that a token takes more, in a list."""
    step, pause = Batch.step, [0.0]
    monkeypatch.setattr(Batch, "step", lambda batch, drawn: (time.sleep(pause[0]), step(batch, drawn))[1])
    return pause


def field(page: Page, name: str):
    return page.locator(f"#study-{name} :is(input, textarea)").first


def unfold(page: Page, name: str) -> None:
    page.locator(f"#study-{name} > button").click()
    page.wait_for_timeout(UNFOLDING)


def status(page: Page, words: str) -> None:
    expect(page.locator("#annotate-status")).to_contain_text(words)


def upload(page: Page, button: str, path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    with page.expect_file_chooser() as chooser:
        page.locator(f"#study-{button}").click()
    chooser.value.set_files(path)


def create(page: Page, name: str = "Round 1", prompts: int = 4, tokens: int = 12) -> None:
    """Fill in the essentials and make the study."""
    expect(page.locator("#study-create")).to_be_visible()
    field(page, "name").fill(name)
    field(page, "prompt-count").fill(str(prompts))
    if not field(page, "length").is_visible():
        unfold(page, "sampling")
    field(page, "length").fill(str(tokens))
    page.locator("#study-create").click()


def wait_for_responses(page: Page) -> None:
    """All responses of the study are there; on a busy machine that takes a while."""
    expect(page.locator("#study-open")).to_be_visible(timeout=120_000)


def link_parts(page: Page) -> tuple[str, str]:
    """The study's id and the secret, of the link that is shown."""
    address, _, secret = page.locator("#study-link input").input_value().partition("#")
    return address.rpartition("/")[2], secret


def answer_one(desk: Desk, study: str, secret: str) -> None:
    """Somebody comes by an invitation, and answers one pair."""
    assignments = Assignments(desk.store)
    person = assignments.join_by_invitation(study, secret)
    assert person
    assignments.mark_read(study, person.id)
    questions = desk.studies.tables.settings(study).questions
    while not desk.studies.tables.entry(study).answered:  # a gold pair may come first, and is no rating
        given = assignments.next(study, person.id)
        assert given
        assignments.answer(study, person.id, given.id, {question.key: "left" for question in questions})


def test_a_study_from_its_form_to_its_end(engine: Engine, browser: Browser, tmp_path: Path, slow: list[float]) -> None:
    with study_site(engine, tmp_path) as (url, desk), annotating(browser, url) as page:
        # The form: what is wrong is said in one line, and what was typed stays.
        expect(page.locator("#annotate-list")).to_be_hidden()
        field(page, "prompt-count").fill("6")
        page.locator("#study-create").click()
        status(page, "name: give a name that is not empty")
        expect(field(page, "prompt-count")).to_have_value("6")
        page.locator("#study-objectives label", has_text="harmless").click()
        expect(field(page, "question-1")).to_have_value("Which response is more harmless?")
        field(page, "question-1").fill("Which one does less harm?")
        unfold(page, "guidelines-part")
        field(page, "guidelines").fill("**Read** both")
        page.locator("#study-preview").click()
        expect(page.locator("#study-previewed strong")).to_have_text("Read")
        unfold(page, "examples-part")
        row = {"prompt": "A stain?", "first": "Water.", "second": "Bleach!", "expected": "first"}
        upload(page, "gold", tmp_path / "gold.jsonl", json.dumps(row) + "\n{nope\n")
        status(page, "gold.jsonl, line 2: not JSON")
        upload(page, "gold", tmp_path / "gold.jsonl", json.dumps(row) + "\n")
        expect(page.locator("#study-counted")).to_contain_text("There are 1 gold pairs.")
        assert desk.studies.tables.listing() == []

        # Its responses: watched, stopped, resumed.
        slow[0] = 0.1
        create(page, prompts=6)
        expect(page.locator("#study-progress progress")).to_be_visible()
        expect(page.locator("#study-list")).to_contain_text("Round 1 · draft, 0 of 6 prompts answered")
        expect(page.locator("#study-open")).to_be_hidden()
        page.locator("#study-title").click()
        page.keyboard.press("Escape")
        expect(page.locator("#study-resume")).to_be_visible()
        expect(page.locator("#study-progress")).to_contain_text("of 6 prompts are answered. Press Resume")
        slow[0] = 0
        page.keyboard.press("c")
        wait_for_responses(page)
        expect(page.locator("#study-list")).to_contain_text("Round 1 · draft, ready to open")
        (entry,) = desk.studies.tables.listing()
        kept = desk.studies.tables.settings(entry.id)
        assert [(one.key, one.text) for one in kept.questions] == [
            ("overall", "Which response is better?"), ("harmless", "Which one does less harm?"),
        ]  # fmt: skip
        assert (kept.guidelines, kept.wanted, len(kept.gold)) == ("**Read** both", 3, 1)

        # Read, and used as gold.
        texts = [one.text.strip() for one in desk.studies.responses(entry.id) if one.place == 1]
        page.locator("#study-next").click()
        expect(page.locator("#study-reader article .text")).to_have_text(texts)
        page.locator("#study-use-add").click()
        status(page, "one of the gold pairs now")
        expect(page.locator("#study-examples tbody tr")).to_have_count(2)
        expect(page.locator("#study-progress")).to_contain_text("for training or gold")
        page.get_by_role("button", name="Remove gold pair 1").click()
        expect(page.locator("#study-examples tbody tr")).to_have_count(1)
        assert [one.first.strip() for one in desk.studies.tables.settings(entry.id).gold] == texts[:1]

        page.locator("#compare-tab-button").click()
        expect(page.locator("#compare-empty")).to_be_visible()
        page.locator("#annotate-tab-button").click()

        # Changed while it is a draft.
        page.locator("#study-edit").click()
        expect(field(page, "name")).to_have_value("Round 1")
        expect(page.locator("#study-prompts")).to_be_hidden()
        field(page, "wanted").fill("2")
        page.locator("#study-create").click()
        status(page, "Saved.")
        assert desk.studies.tables.settings(entry.id) == desk.studies.tables.settings(entry.id).model_copy(
            update={"wanted": 2, "guidelines": "**Read** both"}
        )

        # Opened; somebody is invited and answers.
        page.locator("#study-open").click()
        expect(page.locator("#study-title .state")).to_have_text("Open")
        field(page, "invite-name").fill("Anna")
        page.locator("#study-invite").click()
        link = page.locator("#study-link input")
        page.locator("#study-link button").click()
        expect(page.locator("#study-link")).to_contain_text("Copied.")
        address = page.evaluate("navigator.clipboard.readText()")
        assert address == link.input_value() and address.startswith(f"{url}/annotate/{entry.id}#")
        expect(page.locator("#study-invitations tbody tr")).to_contain_text("not used yet")
        answer_one(desk, entry.id, address.partition("#")[2])
        expect(page.locator("#study-annotators tbody tr")).to_contain_text("Anna")
        pairs = desk.studies.tables.entry(entry.id).items
        expect(page.locator("#study-progress")).to_contain_text(
            f"1 of {2 * pairs} ratings, {pairs} pairs, 1 annotator."
        )
        page.get_by_role("button", name="Revoke the invitation of Anna").click()
        status(page, "Revoked")
        expect(page.locator("#study-invitations tbody tr")).to_contain_text("revoked")
        expect(link).to_have_count(0)

        # Paused, opened again, closed.
        page.locator("#study-pause").click()
        expect(page.locator("#study-title .state")).to_have_text("Paused")
        page.locator("#study-open").click()
        expect(page.locator("#study-title .state")).to_have_text("Open")
        page.locator("#study-close").click()
        expect(page.locator("#study-question")).to_contain_text("for good?")
        page.locator("#study-keep").click()
        expect(page.locator("#study-question")).to_be_hidden()
        page.locator("#study-close").click()
        page.locator("#study-sure-close").click()
        expect(page.locator("#study-title .state")).to_have_text("Closed")
        expect(page.locator("#study-invite")).to_be_hidden()
        with page.expect_download() as export:
            page.locator("#study-title .exports a", has_text="JSONL").first.click()
        assert "left" in Path(export.value.path()).read_text(encoding="utf-8")

        # Once more with the same responses; and both deleted, the one with a rating not before it is exported.
        page.locator("#study-duplicate").click()
        expect(page.locator("#study-title h2")).to_contain_text("Round 1 (copy) Draft")
        page.locator("#study-list label", has_text="closed").click()
        expect(page.locator("#study-title .state")).to_have_text("Closed")
        page.locator("#study-delete").click()
        expect(page.locator("#study-question")).to_contain_text("with its 1 rating? Export them first.")
        page.locator("#study-sure-delete").click()
        status(page, "has 1 rating: export it first")
        page.locator("#study-delete").click()
        page.locator("#study-unwanted input").check()
        page.locator("#study-sure-delete").click()
        status(page, "Deleted.")
        expect(page.locator("#study-title h2")).to_contain_text("Round 1 (copy) Draft")
        page.locator("#study-delete").click()
        expect(page.locator("#study-unwanted")).to_be_hidden()
        page.locator("#study-sure-delete").click()
        status(page, "Deleted.")
        expect(page.locator("#annotate-list")).to_be_hidden()
        expect(page.locator("#study-form")).to_be_visible()
        assert desk.studies.tables.listing() == []
        assert desk.store.db.table("completions").count == 0


def test_generation_goes_on_after_a_restart(
    engine: Engine, browser: Browser, tmp_path: Path, slow: list[float]
) -> None:
    slow[0] = 0.1
    with study_site(engine, tmp_path) as (url, desk), annotating(browser, url) as page:
        create(page, prompts=12)
        expect(page.locator("#study-progress progress")).to_be_visible()
    slow[0] = 0
    with study_site(engine, tmp_path) as (url, desk), annotating(browser, url) as page:
        expect(page.locator("#study-list")).to_contain_text("of 12 prompts answered")
        page.locator("#study-resume").click()
        wait_for_responses(page)
        page.locator("#study-open").click()
        expect(page.locator("#study-title .state")).to_have_text("Open")
        assert desk.studies.tables.listing()[0].state is StudyState.OPEN


def test_a_finished_comparison_becomes_a_study(engine: Engine, browser: Browser, tmp_path: Path) -> None:
    with study_site(engine, tmp_path) as (url, desk), annotating(browser, url) as page:
        page.locator("#compare-tab-button").click()
        for name, value in (("most", "3"), ("length", "8")):
            page.locator(f"#compare-{name} :is(input, textarea)").first.fill(value)
        page.locator("#compare-start").click()
        expect(page.locator("#compare-delete")).to_be_visible()
        page.locator("#annotate-tab-button").click()
        page.locator("#study-prompts input").click()
        page.get_by_role("option", name="Comparison 1: demo.jsonl, 6 mixtures").click()
        expect(page.locator("#study-mixtures")).to_be_hidden()
        field(page, "name").fill("From a comparison")
        page.locator("#study-create").click()
        wait_for_responses(page)
        assert desk.studies.tables.listing()[0].systems[:2] == ["Reference", "Uniform"]


def test_votes_made_elsewhere_are_a_study_that_results_shows(engine: Engine, browser: Browser, tmp_path: Path) -> None:
    votes = "prompt,left,right,winner,annotator\n" + "".join(
        f"Question {i},ours,theirs,{'left' if i else 'tie'},anna\n" for i in range(8)
    )
    with study_site(engine, tmp_path) as (url, desk), annotating(browser, url) as page:
        unfold(page, "import-part")
        field(page, "import-name").fill(HOSTILE)
        upload(page, "import", tmp_path / "crowd.csv", votes + "Question 9,ours,theirs,perhaps,anna\n")
        status(page, "crowd.csv, line 10: winner: found 'perhaps'")
        assert desk.studies.tables.listing() == []
        upload(page, "import", tmp_path / "crowd.csv", votes)
        status(page, "Imported 8 votes by 1 annotator on 8 pairs of responses by 2 systems.")
        expect(page.locator("#study-list")).to_contain_text(f"{HOSTILE} · closed, 8 of 8 ratings, 1 person")
        expect(page.locator("#study-title .state")).to_have_text("Closed")
        expect(page.locator("#study-form")).to_be_hidden()
        page.locator("#results-tab-button").click()
        expect(page.locator("#results-about")).to_contain_text("8 votes · 2 systems · 1 person")
        expect(page.locator("#leaderboard tbody th")).to_contain_text(["ours", "theirs"])


def test_what_is_typed_is_text(engine: Engine, browser: Browser, tmp_path: Path) -> None:
    with study_site(engine, tmp_path) as (url, _), annotating(browser, url) as page:
        upload(page, "upload", tmp_path / "hostile.txt", f"{HOSTILE}\nWhat is rain?\n")
        status(page, "hostile.txt: 2 prompts")
        unfold(page, "guidelines-part")
        field(page, "guidelines").fill(HOSTILE)
        page.locator("#study-preview").click()
        expect(page.locator("#study-previewed")).to_contain_text(HOSTILE)
        field(page, "overall").fill(HOSTILE)
        create(page, name=HOSTILE, prompts=2, tokens=6)
        wait_for_responses(page)
        expect(page.locator("#study-title h2")).to_contain_text(HOSTILE)
        expect(page.locator("#study-reader .asked")).to_have_text(HOSTILE)
        page.locator("#study-use-add").click()
        expect(page.locator("#study-examples .clamped")).to_have_text(HOSTILE)
        unfold(page, "people")
        field(page, "invite-name").fill(HOSTILE)
        page.locator("#study-invite").click()
        expect(page.locator("#study-invitations tbody th")).to_have_text(HOSTILE)
        expect(page.locator("#study-link .label")).to_have_text(f"Link of {HOSTILE}")


def test_a_visitor_sees_one_sentence_and_the_owner_the_tab(engine: Engine, browser: Browser, tmp_path: Path) -> None:
    with study_site(engine, tmp_path, hosted=True) as (url, _):
        with annotating(browser, url) as page:
            expect(page.locator("#annotate-visitors")).to_contain_text("Studies are made here by the desk's owner.")
            expect(page.locator("#annotate")).to_be_hidden()
        with annotating(browser, f"{url}/?owner={TOKEN}") as page:
            expect(page.locator("#study-form")).to_be_visible()
            expect(page.locator("#annotate-visitors")).to_be_hidden()


# A page that is opened by day and becomes each of these.
SCREENS: Any = {"1440": (1440, 900, "light"), "1366": (1366, 768, "light"), "dark": (1440, 900, "dark")}


@pytest.mark.parametrize("phone", [False, True], ids=["laptop", "phone"])
def test_it_can_be_read_and_pressed(engine: Engine, browser: Browser, tmp_path: Path, phone: bool) -> None:
    look = PHONE if phone else {}
    with study_site(engine, tmp_path) as (url, desk), annotating(browser, url, **look) as page:
        hand = Hand(page, phone=True, dark=False) if phone else Hands(page, SCREENS)
        expect(page.locator("#study-create")).to_be_visible()
        hand.look()
        for part in ("sampling", "guidelines-part", "more", "examples-part", "import-part"):
            hand.unfold(f"study-{part}")
        hand.look()
        field(page, "name").fill("Round 1")
        field(page, "prompt-count").fill("3")
        field(page, "length").fill("12")
        hand.press("#study-create", main=True)
        wait_for_responses(page)
        hand.look()
        for button in ("next", "use-add"):
            hand.press(f"#study-{button}")
        expect(page.locator("#study-examples tbody tr")).to_have_count(1)
        hand.press("#study-open")
        expect(page.locator("#study-title .state")).to_have_text("Open")
        field(page, "invite-name").fill("Anna")
        hand.press("#study-invite")
        hand.press("#study-link button")
        answer_one(desk, *link_parts(page))
        expect(page.locator("#study-annotators tbody tr")).to_have_count(1)
        hand.press("#study-delete")
        expect(page.locator("#study-question")).to_be_visible()
        hand.look()


def test_axe_finds_nothing(engine: Engine, browser: Browser, tmp_path: Path) -> None:
    with study_site(engine, tmp_path) as (url, desk), annotating(browser, url) as page:
        expect(page.locator("#study-create")).to_be_visible()
        for part in ("guidelines-part", "more", "examples-part", "import-part"):
            unfold(page, part)
        page.locator("#study-objectives label", has_text="harmless").click()
        check(page, "with the form")
        create(page, prompts=3)
        wait_for_responses(page)
        page.locator("#study-use-add").click()
        expect(page.locator("#study-examples tbody tr")).to_have_count(1)
        check(page, "with a draft")
        page.locator("#study-open").click()
        expect(page.locator("#study-title .state")).to_have_text("Open")
        field(page, "invite-name").fill("Anna")
        page.locator("#study-invite").click()
        expect(page.locator("#study-link input")).to_be_visible()
        answer_one(desk, *link_parts(page))
        expect(page.locator("#study-annotators tbody tr")).to_have_count(1)
        page.locator("#study-delete").click()
        expect(page.locator("#study-unwanted")).to_be_visible()
        check(page, "with an open study that may be deleted")


def test_with_the_keyboard_alone(engine: Engine, browser: Browser, tmp_path: Path, slow: list[float]) -> None:
    with study_site(engine, tmp_path) as (url, _), annotating(browser, url) as page:
        keys = Keys(page)
        keys.press("d")
        keys.press("a")
        keys.expect_at("#annotate-tab-button")
        keys.to("#study-name :is(input, textarea)")
        keys.type("Round 1")
        keys.to("#study-prompt-count :is(input, textarea)")
        keys.type("3")
        keys.to("#study-sampling > button")
        keys.press("Enter")
        page.wait_for_timeout(UNFOLDING)
        keys.to("#study-length :is(input, textarea)")
        keys.type("8")
        slow[0] = 0.1
        keys.press("Control+Enter")
        expect(page.locator("#study-stop")).to_be_visible()
        keys.expect_at("#study-stop")
        keys.press("Enter")
        keys.expect_at("#study-resume")
        slow[0] = 0
        keys.press("Enter")
        wait_for_responses(page)
        keys.expect_at("#study-open")
        keys.press("Enter")
        keys.expect_at("#study-pause")
        keys.to("#study-invite-name :is(input, textarea)")
        keys.type("Anna")
        keys.press("Enter")
        expect(page.locator("#study-link input")).to_be_visible()
        keys.to("#study-link button")
        keys.to(".act")
        keys.press("Enter")
        status(page, "Revoked")
        keys.to("#study-close", back=True)
        keys.press("Enter")
        keys.to("#study-sure-close")
        keys.press("Enter")
        expect(page.locator("#study-title .state")).to_have_text("Closed")
        keys.expect_at("#study-duplicate")
        keys.to("#study-delete")
        keys.press("Enter")
        keys.to("#study-sure-delete")
        keys.press("Enter")
        status(page, "Deleted.")
        keys.expect_at("#study-create")
