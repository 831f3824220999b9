"""The desk in a real Chromium: the app is started as the README says, and used as a person would."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page

from engine import Engine
from tests.browser.conftest import SharedPage, unfold
from tests.browser.serving import Server

# How long each response is, every few milliseconds, from now on.
SAMPLE = """() => {
    const areas = ["left", "right"].map((side) => document.querySelector(`#response-${side} .tokens`));
    window.samples = [];
    window.sampler = setInterval(() => window.samples.push(areas.map((area) => area.textContent.length)), 5);
}"""


@pytest.fixture
def page(shared: SharedPage, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The desk as it is when it is opened."""
    with shared.lent(request.session) as page:
        yield page


@pytest.fixture
def ask(page: Page) -> Callable[..., None]:
    def ask(prompt: str, **settings: float | str) -> None:
        """Type a prompt and set what is under More."""
        page.locator("#prompt textarea").fill(prompt)
        if settings:
            if not page.locator("#seed input, #seed textarea").is_visible():
                unfold(page, "more")
            page.locator("#new-seed input").uncheck()
        for name, value in settings.items():
            page.locator(f"#{name} input[type=number], #{name} textarea, #{name} input[type=text]").first.fill(
                str(value)
            )
            page.keyboard.press("Tab")

    return ask


def text(page: Page, side: str) -> str:
    return page.locator(f"#response-{side} .tokens").text_content() or ""


def status(page: Page) -> str:
    return page.locator("#status").inner_text()


def wait_for_status(page: Page, *words: str) -> None:
    page.wait_for_function(
        "words => words.some((word) => document.querySelector('#status').innerText.includes(word))", arg=list(words)
    )


def wait_until_done(page: Page) -> None:
    page.wait_for_selector("#rate-left:enabled")
    page.wait_for_selector("#generate:enabled")


def shares(page: Page) -> list[float]:
    return page.eval_on_selector_all("[data-share]", "outputs => outputs.map((output) => Number(output.dataset.exact))")


def test_the_whole_way_from_prompt_to_rating(
    page: Page, server: Server, engine: Engine, ask: Callable[..., None]
) -> None:
    before = server.pairs()
    policies = [policy.name for policy in engine.config.policies]
    ask("How do I get rid of ants in the kitchen?", temperature=0, seed=20, length=60)
    assert shares(page) == pytest.approx([1 / len(policies)] * len(policies))
    page.locator("#fader-0 input[type=range]").fill("0.9")
    page.wait_for_function("Math.abs(Number(document.querySelector('[data-share]').dataset.exact) - 0.25) > 0.01")
    moved = shares(page)
    assert moved == pytest.approx(
        [part / (0.9 + 0.5 * (len(policies) - 1)) for part in [0.9, *[0.5] * (len(policies) - 1)]]
    )
    assert page.locator("[data-share]").first.inner_text() == f"{moved[0]:.0%}"

    page.evaluate(SAMPLE)
    page.locator("#prompt textarea").press("Control+Enter")
    wait_until_done(page)
    samples = page.evaluate("() => { clearInterval(window.sampler); return window.samples; }")
    for side in (0, 1):
        lengths = sorted({sample[side] for sample in samples} - {0})
        assert len(lengths) >= 2, "the text did not grow, it was there at once"
    assert any(0 < left < samples[-1][0] and right > 0 for left, right in samples), "one side waited for the other"
    page.wait_for_function("document.querySelectorAll('#radar .scatterlayer .trace').length === 4")
    shown = {side: text(page, side) for side in ("left", "right")}
    assert all(shown.values())

    # What is rated is what was shown, whatever is changed afterwards.
    page.locator("#prompt textarea").fill("Another question, with a 1 in it")
    page.locator("#prompt textarea").press("1")
    assert server.pairs() == before, "a shortcut fired while typing"
    page.locator("#fader-1 input[type=range]").fill("0")
    page.locator("#top h1").click()
    page.keyboard.press("1")
    wait_for_status(page, "Saved")
    assert "left is better" in status(page)
    *others, pair = server.pairs()
    assert others == before
    assert (pair["choice"], pair["prompt"]) == ("left", "How do I get rid of ants in the kitchen?")
    assert {side: pair[side]["text"] for side in shown} == shown
    assert {side: pair[side]["seed"] for side in shown} == {"left": 20, "right": 21}
    assert {name for name, weight in pair["right"]["mixture"]["weights"].items() if weight} == {"reference"}
    stored = pair["left"]["mixture"]["weights"]
    assert [stored[name] for name in policies] == pytest.approx(moved)
    assert pair["left"]["sampling"]["temperature"] == 0
    assert set(pair["left"]["rewards"]) == set(engine.reward_set.objectives)

    page.keyboard.press("1")
    page.wait_for_timeout(300)
    assert server.pairs() == [*before, pair], "a second press stored it twice"

    for side in shown:
        row = pair[side]
        again = engine.generate(row["prompt"], **row["mixture"], **row["sampling"], seed=row["seed"])
        assert again.text == row["text"]


def test_responses_end_at_a_text_that_was_typed(page: Page, server: Server, ask: Callable[..., None]) -> None:
    ask("How do I get rid of ants in the kitchen?", temperature=0, seed=20, length=60)
    page.locator("#generate").click()
    wait_until_done(page)
    whole = {side: text(page, side) for side in ("left", "right")}
    stop = whole["left"][30:37]
    ask("How do I get rid of ants in the kitchen?", **{"stop-at": f"never said\n{stop}\n"})
    page.locator("#generate").click()
    page.wait_for_function("document.querySelector('#stage').innerText.includes('reached a stop string')")
    wait_until_done(page)
    assert {side: text(page, side) for side in whole} == {side: said.split(stop)[0] for side, said in whole.items()}
    page.locator("#top h1").click()
    page.keyboard.press("1")
    wait_for_status(page, "Saved")
    pair = server.pairs()[-1]
    assert pair["left"]["sampling"]["stop"] == ["never said", stop]
    assert (pair["left"]["text"], pair["left"]["finish_reason"]) == (whole["left"].split(stop)[0], "stop_string")


def test_one_click_gives_a_newcomer_a_good_look(page: Page) -> None:
    assert page.locator("#prompt textarea").input_value()
    page.locator("#generate").click()
    wait_until_done(page)
    assert text(page, "left") and text(page, "right")
    page.wait_for_function("document.querySelectorAll('#radar .scatterlayer .trace').length === 4")
    size = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size[0] <= 1440 and size[1] <= 900, "the desk scrolls"


def test_stop_keeps_the_partial_texts_and_they_can_be_rated(
    page: Page, server: Server, ask: Callable[..., None]
) -> None:
    before = len(server.pairs())
    ask("Tell me all you know about cleaning windows.", length=500, temperature=1.5)
    page.evaluate(
        """() => { const timer = setInterval(() => {
            if (["left", "right"].some((side) => !document.querySelector(`#response-${side} .token`))) return;
            clearInterval(timer);
            document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
        }, 5); }"""
    )
    page.locator("#generate").click()
    wait_until_done(page)
    assert "Stopped" in status(page)
    shown = {side: text(page, side) for side in ("left", "right")}
    page.locator("#rate-both_bad").click()
    wait_for_status(page, "Saved")
    pair = server.pairs()[-1]
    assert len(server.pairs()) == before + 1
    assert pair["choice"] == "both_bad"
    assert "stopped" in (pair["left"]["finish_reason"], pair["right"]["finish_reason"])
    assert {side: pair[side]["text"] for side in shown} == shown


def test_html_in_a_prompt_is_text(page: Page, server: Server, ask: Callable[..., None]) -> None:
    evil = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> ${window.hacked=1} {{constructor}}'
    ask(evil)
    page.locator("#generate").click()
    wait_until_done(page)
    page.locator("#rate-tie").click()
    wait_for_status(page, "Saved")
    assert server.pairs()[-1]["prompt"] == evil
    ask("A question", seed=evil)
    page.locator("#generate").click()
    wait_for_status(page, "seed:")
    assert "<img src=x" in status(page)
    assert page.evaluate("window.hacked") is None
    assert page.locator("#desk img[src=x], #desk script").count() == 0


def test_bad_input_is_told_and_the_engine_goes_on(page: Page, server: Server, ask: Callable[..., None]) -> None:
    before = server.pairs()
    generate = page.locator("#generate")
    for prompt, word in (("", "prompt:"), ("   ", "empty"), ("word " * 20_000, "100,000 characters")):
        ask(prompt)
        generate.click()
        wait_for_status(page, word)
    ask("A question")
    for i in range(page.locator("[data-share]").count()):
        page.locator(f"#fader-{i} input[type=range]").fill("0")
    generate.click()
    wait_for_status(page, "All faders are at zero")
    page.locator("#even").click()
    ask("A question", seed="many")
    generate.click()
    wait_for_status(page, "seed: found 'many'")
    assert page.locator("#rate-left").is_disabled()
    assert server.pairs() == before
    ask("How do I store herbs?", seed=1)
    generate.click()
    wait_until_done(page)
    assert text(page, "left") and text(page, "right")


def test_each_panel_has_its_own_mixture(page: Page, server: Server, ask: Callable[..., None]) -> None:
    ask("How do I wash a wool jumper?", temperature=0, length=20)
    for side, choice in (("left", "Uniform"), ("right", "Uniform")):
        page.locator(f"#mixture-{side} input").click()
        option = page.get_by_role("option", name=choice, exact=True)
        option.click()
        option.wait_for(state="detached")
    page.locator("#generate").click()
    wait_until_done(page)
    assert text(page, "left") == text(page, "right")
    page.keyboard.press("3")
    wait_for_status(page, "Saved")
    pair = server.pairs()[-1]
    weights = pair["left"]["mixture"]["weights"]
    assert weights == pair["right"]["mixture"]["weights"]
    assert set(weights.values()) == {1 / len(weights)}


def test_the_annotator_stays_the_same_after_a_reload(page: Page, server: Server, ask: Callable[..., None]) -> None:
    for reloaded in (False, True):
        if reloaded:
            page.reload()
            page.wait_for_function("document.body.dataset.ready")
        ask("How do I sharpen a knife?", length=5)
        page.locator("#generate").click()
        wait_until_done(page)
        page.locator("#rate-right").click()
        wait_for_status(page, "Saved")
    first, second = server.pairs()[-2:]
    assert first["annotator"] == second["annotator"]
    assert first["id"] != second["id"]
