"""The trace, the drawer behind every token, and branches, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from app.services.app_state import Desk
from engine.inference.batch import Batch
from tests.browser.conftest import SharedPage, unfold
from tests.browser.test_steering import newest, wait_until_done


@pytest.fixture
def page(shared_place: SharedPage, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The desk with two finished responses."""
    with shared_place.lent(request.session) as page:
        unfold(page, "more")
        page.locator("#length input[type=number]").fill("40")
        page.keyboard.press("Tab")
        page.locator("#generate").click()
        wait_until_done(page)
        yield page


def test_tokens_take_the_colour_of_who_pushed_them_most(page: Page, place: tuple[str, Desk]) -> None:
    desk = place[1]
    response = newest(desk).responses["left"]
    accents = [desk.colours[policy.objective] for policy in desk.engine.config.policies]
    expected = {}
    for at, (log_probs, text) in enumerate(zip(response.completion.trace, response.texts, strict=True)):
        pushes = [log_probs[name] - log_probs["reference"] for name in desk.policies]
        if text and max(pushes) > 0.06:
            expected[at] = accents[pushes.index(max(pushes))]
    find = """() => Object.fromEntries([...document.querySelectorAll("#response-left .token.pushed")]
        .map((span) => [span.dataset.place, span.style.getPropertyValue("--push")]))"""
    shown = {int(at): colour for at, colour in page.evaluate(find).items()}
    assert expected and {at: shown.get(at) for at in expected} == expected
    assert len(shown) < len(response.texts), "tokens that nobody pushed are coloured"

    coloured = """() => [...document.querySelectorAll("#response-left .token.pushed")]
        .some((span) => getComputedStyle(span).backgroundColor !== "rgba(0, 0, 0, 0)")"""
    assert not page.evaluate(coloured), "the trace is on before anybody asked"
    before = page.locator("#ratings").bounding_box()
    page.keyboard.press("t")
    assert page.evaluate(coloured)
    expect(page.locator("#trace")).to_have_attribute("aria-pressed", "true")
    assert page.locator("#ratings").bounding_box() == before, "the layout jumps"
    sums = page.locator("#response-left .sums li").all_inner_texts()
    whole = [sum(t[name] - t["reference"] for t in response.completion.trace) for name in desk.policies]
    assert [float(text.replace("−", "-")) for text in sums] == pytest.approx(whole, abs=0.3)


def test_the_drawer_follows_the_faders_without_a_forward_pass(
    page: Page, place: tuple[str, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, step, begin = [], Batch.step, Batch.begin
    monkeypatch.setattr(Batch, "step", lambda batch, drawn: (steps.append(1), step(batch, drawn))[1])
    monkeypatch.setattr(Batch, "begin", lambda batch, new: (steps.append(1), begin(batch, new))[1])
    desk = place[1]
    page.locator("#response-left").locator(".response").focus()
    page.keyboard.press("Enter")  # to the first token
    page.keyboard.press("Enter")
    expect(page.locator("#drawer")).to_be_visible()
    now, was = page.locator("#drawer tbody td.now"), page.locator("#drawer tbody td.was")
    before, then = now.all_inner_texts(), was.all_inner_texts()
    assert before == then, "nothing was moved yet"
    for fader in (1, 2, 3):
        page.locator(f"#fader-{fader} input[type=range]").fill("0")
    expect(page.locator("#drawer .weights").last).to_have_text("Now: helpful")
    moved = now.all_inner_texts()
    assert moved != before and was.all_inner_texts() == then
    # One policy alone: what the mixture says is what the policy says.
    assert moved == page.locator("#drawer tbody td:nth-child(5)").all_inner_texts()
    exact = newest(desk).responses["left"].top_logprobs[0].of("helpful")[0]
    drawn = page.locator("#drawer tr.drawn td.now").inner_text()
    assert float(drawn.rstrip("%")) == pytest.approx(100 * exact, abs=0.6)
    assert not steps, "the engine computed something"
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()


def test_a_branch_keeps_the_tokens_before(page: Page, place: tuple[str, Desk]) -> None:
    desk = place[1]
    at = 8
    page.locator(f"#response-left .token[data-place='{at}']").click()
    expect(page.locator("#drawer")).to_be_visible()
    for fader in (0, 1, 3):
        page.locator(f"#fader-{fader} input[type=range]").fill("0")
    expect(page.locator("#drawer .weights").last).to_have_text("Now: humorous")
    page.locator("#continue").click()
    expect(page.locator("#panel-third")).to_be_visible()
    expect(page.locator("#caption-third")).to_contain_text(f"from token {at + 1} on")
    page.wait_for_selector("#generate:enabled")
    made = newest(desk).completions
    assert made["third"].tokens[:at] == made["left"].tokens[:at]
    assert made["third"].prefix_length == at
    assert made["third"].mixture.weights["humorous"] == 1
    assert page.locator("#response-third .tokens").text_content() == made["third"].text
    assert page.locator("#response-third .token.kept").count() == at
    expect(page.locator("#response-third .mark.branch")).to_have_count(1)
    again = desk.engine.submit(
        *(made["third"].prompt, made["third"].mixture, made["third"].sampling, made["third"].seed),
        tokens=made["third"].tokens[:at],
    )
    assert again.completion().tokens == made["third"].tokens
    # The tokens that were kept have their top_logprobs as well.
    page.locator("#response-third .token[data-place='3']").click()
    expect(page.locator("#drawer h2")).to_contain_text("Third, token 4")
