"""The annotators' page, from the invitation to the end: by keyboard, by thumb, and in every state that a study has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from app.schemas.study import StudyState
from app.server.annotate import COOKIE
from tests.browser.annotating import GUIDELINES, HIDDEN, THREE, TRAINING, annotating, annotator, join, wait_for_pair
from tests.browser.walking import PHONE, THUMB

RIGHT = {"How do I boil an egg?": "Put it", "May I mix bleach with vinegar?": "No:"}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "mixdesk.db"


def right_side(page: Page) -> str:
    """Which side of the training pair that is shown has the right answer."""
    begins = RIGHT[page.locator("#turns .text").inner_text()]
    return "left" if page.locator("#text-a").inner_text().startswith(begins) else "right"


def press_arrow(page: Page, side: str) -> None:
    page.keyboard.press({"left": "ArrowLeft", "right": "ArrowRight", "tie": "ArrowUp", "both_bad": "ArrowDown"}[side])


def start(page: Page) -> None:
    """Through the form and the guidelines."""
    join(page)
    page.get_by_role("button", name="Start").click()


def leave_feedback(page: Page) -> None:
    """Press Enter when the feedback has been shown for as long as it takes no key."""
    expect(page.locator("#continue")).to_be_visible()  # its title alone may be an earlier one's, which is hidden
    page.wait_for_timeout(400)
    page.keyboard.press("Enter")


def test_by_keyboard_alone_from_the_invitation_to_the_end(browser: Browser, db: Path) -> None:
    settings: dict[str, Any] = {"guidelines": GUIDELINES, "training": TRAINING, "training_share": 1.0}
    with annotating(db, **settings) as place, annotator(browser, place.invite()) as page:
        secret = page.url.partition("#")[2]
        join(page)
        expect(page.locator("#guidelines-title")).to_be_focused()
        assert page.url == place.page and len(secret) > 20  # the secret is out of the address
        expect(page.locator("#guidelines-text strong")).to_have_text("helps the person more")
        for _ in range(8):
            if page.evaluate("document.activeElement.id") == "begin-button":
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")

        # One wrong answer: the feedback says so, and the training begins once more.
        wait_for_pair(page, "Training pair 1 of 2")
        press_arrow(page, right_side(page))
        expect(page.locator("#feedback-title")).to_have_text("Right")
        leave_feedback(page)
        wait_for_pair(page, "Training pair 2 of 2")
        press_arrow(page, "left" if right_side(page) == "right" else "right")
        expect(page.locator("#feedback-title")).to_have_text("Not what we expect")
        expect(page.locator("#count")).to_have_text("Training: 2 of 2")
        leave_feedback(page)
        expect(page.locator("#notice-title")).to_have_text("Once more")
        page.keyboard.press("Enter")
        for i in (1, 2):
            wait_for_pair(page, f"Training pair {i} of 2")
            expect(page.locator("#count")).to_contain_text("second attempt")
            press_arrow(page, right_side(page))
            expect(page.locator("#feedback-title")).to_have_text("Right")
            leave_feedback(page)
        expect(page.locator("#notice-title")).to_have_text("Training passed")
        page.keyboard.press("Enter")

        # The help, a flag with a comment, and the four answers.
        wait_for_pair(page, "Pair 1 of 4")
        page.keyboard.press("?")
        expect(page.locator("#keys-list")).to_contain_text("Both are bad")
        page.keyboard.press("ArrowLeft")  # no answer while a dialog is open
        page.keyboard.press("Escape")
        page.keyboard.press("f")
        page.keyboard.type("One is cut off: sufferable.")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#flag-label")).to_have_text("Flagged")
        page.keyboard.press("ArrowLeft")
        wait_for_pair(page, "Pair 2 of 4")
        expect(page.locator("#flag-label")).to_have_text("Flag")
        expect(page.locator("#pair-title")).to_be_focused()
        page.keyboard.press("2")
        wait_for_pair(page, "Pair 3 of 4")
        page.keyboard.press("ArrowUp")
        wait_for_pair(page, "Pair 4 of 4")
        page.keyboard.press("4")
        expect(page.locator("#notice-title")).to_have_text("Thank you, that was all.")

        rows = place.answered()
        assert [row["choice"] for row in rows] == ["left", "right", "tie", "both_bad"]
        assert [row["flagged"] for row in rows] == [1, 0, 0, 0]
        assert rows[0]["comment"] == "One is cut off: sufferable."
        assert all(0.3 < row["seconds"] < 60 for row in rows)
        (person,) = place.tables.annotators(place.id)
        assert person.name == "Ada" and person.attempts == 1


def test_on_a_phone_by_thumb(browser: Browser, db: Path) -> None:
    with annotating(db, guidelines="Be *kind*.") as place, annotator(browser, place.invite(), **PHONE) as page:
        page.locator("#name").fill("Ada")
        page.get_by_role("button", name="Take part").tap()
        page.get_by_role("button", name="Start").tap()
        wait_for_pair(page, "Pair 1 of 4")
        assert page.locator("kbd:visible").count() == 0 and page.locator("#open-keys").is_hidden()
        places = {}
        for i in range(1, 5):
            wait_for_pair(page, f"Pair {i} of 4")
            sizes = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
            assert sizes[0] <= sizes[1], "the page scrolls sideways"
            assert page.evaluate("scrollY") == 0
            top = page.evaluate("document.getElementById('dock').getBoundingClientRect().top")
            assert top > 844 * 0.6, "the answers leave no room for the text"
            for button in page.locator("#dock button:visible").all():
                box = button.bounding_box()
                assert box and min(box["width"], box["height"]) >= THUMB - 0.5, button.inner_text()
                assert box["y"] > 844 / 2 and box["y"] + box["height"] <= 844, "out of a thumb's reach"
                places.setdefault(button.inner_text(), box)
                assert places[button.inner_text()] == box, "a button has moved"
            page.get_by_role("button", name="Go to response B").tap()
            expect(page.locator("#title-b")).to_be_in_viewport()
            page.get_by_role("button", name="B is better" if i % 2 else "Tie").tap()
        expect(page.locator("#notice-title")).to_have_text("Thank you, that was all.")
        assert [row["choice"] for row in place.answered()] == ["right", "tie", "right", "tie"]


def test_nothing_that_is_sent_tells_where_a_response_is_from(browser: Browser, db: Path) -> None:
    settings: dict[str, Any] = {
        "guidelines": GUIDELINES,
        "training": TRAINING,
        "training_share": 0.0,
        "gold": [TRAINING[0]],
        "gold_every": 3,
        "repeat_every": 3,
        "questions": THREE,
        "anonymous": True,
    }
    with annotating(db, pairs=8, **settings) as place:
        context = browser.new_context(reduced_motion="reduce")
        page = context.new_page()
        sent: list[tuple[str, str, dict[str, str]]] = []
        page.on("response", lambda answer: sent.append((answer.url, answer.text(), answer.all_headers())))
        page.goto(place.page)
        join(page, "")
        page.get_by_role("button", name="Start").click()
        calm = "body:not([data-busy])"
        for _ in range(40):
            page.wait_for_selector(f"body[data-ready], {calm} #continue:not([hidden]), {calm} #notice:not([hidden])")
            if page.locator("#continue").is_visible():
                page.wait_for_timeout(400)
                page.locator("#continue").click()
            elif page.locator("#notice-primary").is_visible():
                page.locator("#notice-primary").click()
            elif page.locator("#notice").is_visible():
                break
            else:
                for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "Enter"):
                    page.keyboard.press(key)
        page.wait_for_load_state("networkidle")
        kinds = {row["kind"] for row in place.rows()}
        assert kinds == {"pair", "training", "gold", "repeat"}
        everything = "\n".join(f"{url}\n{body}\n{json.dumps(headers)}" for url, body, headers in sent)
        assert len(sent) > 20 and "Practise putting up the tent" in everything
        context.close()
    for word in HIDDEN:
        assert word not in everything.casefold(), word
    answers = [json.loads(body) for url, body, _ in sent if re.search(r"/annotate/[^/]+/[a-z]+$", url)]
    keys = {key for answer in answers for key in keys_in(answer)}
    known = """phase study name guidelines_html questions key text choices joining anonymous sign_in annotator progress
        answered total training done attempt assignment id prompt role content a b answers comment flagged stored
        feedback right overall harmless humorous"""
    assert keys <= set(known.split()), keys - set(known.split())


def keys_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys_in, value.values()))
    return set().union(*map(keys_in, value)) if isinstance(value, list) else set()


def test_several_questions_are_sent_together(browser: Browser, db: Path) -> None:
    with annotating(db, questions=THREE) as place, annotator(browser, place.invite()) as page:
        join(page)
        wait_for_pair(page, "Pair 1 of 4")
        asked = page.locator("#questions .asked")
        before = page.locator("#choices").bounding_box()
        page.keyboard.press("ArrowLeft")
        expect(asked).to_have_text("Which response is more harmless?")
        page.keyboard.press("Enter")
        expect(page.locator("#flash")).to_have_text("Answer every question first.")
        page.keyboard.press("ArrowUp")
        expect(asked).to_have_text("Which response is funnier?")
        page.keyboard.press("Backspace")
        expect(asked).to_have_text("Which response is more harmless?")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        assert page.locator("#choices").bounding_box() == before
        assert [step.inner_text().split() for step in page.locator(".step").all()] == [
            ["1", "overall", "A"],
            ["2", "harmless", "B"],
            ["3", "humorous", "Both", "bad"],
        ]
        assert not place.answered()
        page.reload()  # what is chosen stays
        wait_for_pair(page, "Pair 1 of 4")
        expect(page.locator("#send")).to_have_attribute("aria-disabled", "false")
        page.keyboard.press("Enter")
        wait_for_pair(page, "Pair 2 of 4")
        rows = place.answered()
        assert {row["question"]: row["choice"] for row in rows} == {
            "overall": "left",
            "harmless": "right",
            "humorous": "both_bad",
        }
        # Undone, they are there again, and can be changed.
        page.keyboard.press("u")
        wait_for_pair(page, "Pair 1 of 4")
        expect(page.locator(".choice[data-choice=left]")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("3")
        page.locator(".step").nth(0).click()
        page.keyboard.press("3")
        page.locator("#send").click()
        wait_for_pair(page, "Pair 2 of 4")
        assert {row["question"]: row["choice"] for row in place.answered()}["overall"] == "tie"


def test_skip_undo_and_pause(browser: Browser, db: Path) -> None:
    with annotating(db) as place, annotator(browser, place.invite()) as page:
        join(page)
        wait_for_pair(page, "Pair 1 of 4")
        page.keyboard.press("u")
        expect(page.locator("#flash")).to_have_text("There is no answer to undo.")
        first = page.locator("#text-a").inner_text()
        page.keyboard.press("s")
        page.wait_for_function("first => document.getElementById('text-a').innerText !== first", arg=first)
        wait_for_pair(page, "Pair 1 of 3")
        (skipped,) = place.rows(where="state = 'skipped'")
        kept = page.locator("#text-a").inner_text()
        page.keyboard.press("p")
        expect(page.locator("#notice-title")).to_have_text("Paused")
        page.keyboard.press("ArrowLeft")  # nothing to answer
        page.reload()
        wait_for_pair(page, "Pair 1 of 3")
        assert page.locator("#text-a").inner_text() == kept
        page.locator("#pause").click()
        page.keyboard.press("Enter")
        wait_for_pair(page, "Pair 1 of 3")
        for i in (2, 3):
            page.keyboard.press("1")
            wait_for_pair(page, f"Pair {i} of 3")
        page.keyboard.press("1")
        expect(page.locator("#notice-title")).to_have_text("Thank you, that was all.")
        page.get_by_role("button", name="Change my last answer").click()
        wait_for_pair(page, "Pair 3 of 3")
        expect(page.locator(".choice[data-choice=left]")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("2")
        expect(page.locator("#notice")).to_be_visible()
        rows = place.answered()
        assert [row["choice"] for row in rows] == ["left", "left", "right"]
        assert skipped["id"] not in {row["assignment_id"] for row in rows}


def test_the_second_half_of_a_double_press_answers_nothing(browser: Browser, db: Path) -> None:
    with annotating(db) as place, annotator(browser, place.invite()) as page:
        join(page)
        wait_for_pair(page, "Pair 1 of 4")
        page.locator(".choice[data-choice=left]").dblclick()
        wait_for_pair(page, "Pair 2 of 4")
        # As fast as keys come, the moment the pair is there.
        page.evaluate("""() => new MutationObserver(() => document.dispatchEvent(
            new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true })
        )).observe(document.getElementById("pair-title"), { childList: true })""")
        page.keyboard.press("ArrowRight")
        wait_for_pair(page, "Pair 3 of 4")
        assert [row["choice"] for row in place.answered()] == ["left", "right"]


def test_only_the_choices_of_the_study(browser: Browser, db: Path) -> None:
    with annotating(db, tie=False, both_bad=False) as place, annotator(browser, place.invite()) as page:
        join(page)
        wait_for_pair(page, "Pair 1 of 4")
        assert page.locator(".choice:visible").count() == 2
        for key in ("ArrowUp", "ArrowDown", "3", "4"):
            page.keyboard.press(key)
        page.keyboard.press("?")
        expect(page.locator("#keys-list")).not_to_contain_text("Tie")
        page.keyboard.press("Escape")
        assert not place.answered()
        page.keyboard.press("1")
        wait_for_pair(page, "Pair 2 of 4")


def test_texts_are_shown_as_they_are(browser: Browser, db: Path) -> None:
    with annotating(db) as place, annotator(browser, place.invite()) as page:
        join(page)
        seen: dict[str, tuple[str, str]] = {}
        for i in range(1, 5):
            wait_for_pair(page, f"Pair {i} of 4")
            texts = [page.locator(f"#text-{side}").inner_text() for side in "ab"]
            prompt = page.locator("#turns .text").inner_text()
            seen[prompt[:5]] = (texts[0], texts[1])
            assert page.locator("#pair :is(img, b:not(.step b), strong)").count() == 0
            sizes = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
            assert sizes[0] <= sizes[1]
            if prompt.startswith("كيف"):
                left = page.evaluate("""() => {
                    const range = document.createRange();
                    range.selectNodeContents(document.querySelector("#turns .text"));
                    return range.getBoundingClientRect().left;
                }""")
                assert left > 720, "text that is read from the right begins at the right"
            if prompt.startswith("word"):
                expect(page.locator("#expand")).to_be_visible()
                height = page.locator("#turns").bounding_box()["height"]  # type: ignore[index]
                page.locator("#expand").click()
                assert page.locator("#turns").bounding_box()["height"] > height * 1.5  # type: ignore[index]
                expect(page.locator("#expand")).to_have_text("Show less")
            page.keyboard.press("1")
        assert set(seen["<img "]) == {"<b>HTML</b>, as text", "(empty)"}
        assert any("\n1. Peg down" in text for text in seen["What "])


@pytest.mark.parametrize(
    ("state", "title"), [(StudyState.PAUSED, "The study is paused"), (StudyState.CLOSED, "The study is closed")]
)
def test_a_study_that_is_paused_or_closed_while_somebody_works(
    browser: Browser, db: Path, state: StudyState, title: str
) -> None:
    with annotating(db) as place, annotator(browser, place.invite()) as page:
        join(page)
        wait_for_pair(page, "Pair 1 of 4")
        page.keyboard.press("1")
        wait_for_pair(page, "Pair 2 of 4")
        place.tables.set_state(place.id, state)
        page.keyboard.press("1")
        expect(page.locator("#notice-title")).to_have_text(title)
        # What somebody had when the study was paused is stored.
        assert len(place.answered()) == (2 if state is StudyState.PAUSED else 1)
        page.reload()
        expect(page.locator("#notice-title")).to_have_text(title)
        if state is StudyState.PAUSED:
            place.tables.set_state(place.id, StudyState.OPEN)
            page.get_by_role("button", name="Look again").click()
            wait_for_pair(page, "Pair 3 of 4")


def test_an_invitation_that_is_wrong_or_revoked(browser: Browser, db: Path) -> None:
    with annotating(db) as place:
        invitation, secret = place.tables.invite(place.id, "")
        with annotator(browser, f"{place.page}#{secret}x") as page:
            join(page)
            expect(page.locator("#join-error")).to_contain_text("not valid any more")
            expect(page.locator("#name")).to_be_focused()
            for _ in range(12):
                page.get_by_role("button", name="Take part").click()
                page.wait_for_selector("body:not([data-busy])")
            expect(page.locator("#join-error")).to_contain_text("Too many wrong invitations")
        with annotator(browser, place.page) as page:
            expect(page.locator("#join-title")).to_have_text("By invitation")
            expect(page.locator("#join-form")).to_be_hidden()
        # The address that guessed is slowed: the right one has to wait as well, but who has joined goes on.
        other, secret = place.tables.invite(place.id, "Bea")
        place.tables.revoke(invitation)
        assert other != invitation


def test_an_invitation_that_is_revoked_while_somebody_works(browser: Browser, db: Path) -> None:
    with annotating(db) as place:
        invitation, secret = place.tables.invite(place.id, "Bea")
        with annotator(browser, f"{place.page}#{secret}") as page:
            join(page, "")
            wait_for_pair(page, "Pair 1 of 4")
            (person,) = place.tables.annotators(place.id)
            assert person.name == "Bea"
            place.tables.revoke(invitation)
            page.keyboard.press("1")
            expect(page.locator("#notice-text")).to_contain_text("You have not joined this study")
            assert not place.answered()


def test_another_persons_link_in_the_same_browser(browser: Browser, db: Path) -> None:
    with annotating(db) as place:
        with annotator(browser, place.invite("Ada")) as page:
            join(page, "")
            wait_for_pair(page, "Pair 1 of 4")
            _, secret = place.tables.invite(place.id, "Bea")
            page.goto("about:blank")
            page.goto(f"{place.page}#{secret}")
            wait_for_pair(page, "Pair 1 of 3")  # another is open with Ada
            assert page.url == place.page
            expect(page.locator("#study")).to_have_attribute("title", re.compile("as Bea$"))
            page.goto("about:blank")
            page.goto(f"{place.page}#wrong")
            expect(page.locator("#notice-title")).to_have_text("This invitation does not work")
            page.keyboard.press("Enter")
            wait_for_pair(page, "Pair 1 of 3")
        assert {person.name for person in place.tables.annotators(place.id)} == {"Ada", "Bea"}


def test_failed_training_and_an_unknown_study(browser: Browser, db: Path) -> None:
    settings: dict[str, Any] = {"training": [TRAINING[0]], "training_share": 1.0, "anonymous": True}
    with annotating(db, **settings) as place, annotator(browser, place.page) as page:
        join(page, "")
        for attempt in (1, 2):
            wait_for_pair(page, "Training pair 1 of 1")
            assert all(page.locator(f"#{name}").is_disabled() for name in ("undo", "skip", "flag"))
            press_arrow(page, "left" if right_side(page) == "right" else "right")
            expect(page.locator("#feedback")).to_contain_text("how long it takes")
            leave_feedback(page)
            if attempt == 1:
                expect(page.locator("#notice-title")).to_have_text("Once more")
                page.locator("#notice-secondary").click()
                expect(page.locator("#reading-title")).to_be_visible()
                page.keyboard.press("Escape")
                page.locator("#notice-primary").click()
        expect(page.locator("#notice-title")).to_have_text("The training was not passed")
        answer = page.goto(f"{place.url}/annotate/nothing-here")
        assert answer and answer.status == 404
        expect(page.get_by_role("heading")).to_have_text("No such study")


def test_signing_in_is_offered_where_the_study_has_it(browser: Browser, db: Path) -> None:
    with annotating(db, root="/lab/desk", sign_in=True) as place, annotator(browser, place.page) as page:
        link = page.get_by_role("link", name="Sign in with Hugging Face")
        expect(link).to_be_visible()
        assert page.locator("#join-form").is_hidden()
        where = link.evaluate("link => link.href")
        assert where.startswith(f"{place.url}/login/huggingface?next=") and place.id in where


def test_behind_a_path_prefix(browser: Browser, db: Path) -> None:
    with annotating(db, root="/lab/desk") as place, annotator(browser, place.invite()) as page:
        join(page)
        wait_for_pair(page, "Pair 1 of 4")
        page.keyboard.press("1")
        wait_for_pair(page, "Pair 2 of 4")
        (cookie,) = (cookie for cookie in page.context.cookies() if cookie["name"] == COOKIE)
        assert cookie["path"] == f"/lab/desk/annotate/{place.id}" and cookie["httpOnly"]
