"""A target on the radar in a real Chromium: by mouse, by keyboard; by touch: test_widths.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect

from app import palette
from app.charts import radar as radar_chart
from app.charts.plotly_component import plotted
from app.services import bank_service
from engine import Engine, Sampling
from tests.browser.conftest import TOURED, SharedPage, opened
from tests.browser.serving import Server, served
from tests.browser.test_desk import shares
from tests.browser.test_expected import TRACE, heights
from tests.conftest import Tiny

EVEN = "Math.abs(Number(document.querySelector('[data-share]').dataset.exact) - 0.25) < 0.001"


@pytest.fixture
def new_page(browser: Browser, server: Server) -> Iterator[Page]:
    """A page where nothing can be undone."""
    with opened(browser, server.url) as page:
        page.wait_for_selector("#radar-target .handle >> nth=3")
        yield page


@pytest.fixture
def page(shared: SharedPage, request: pytest.FixtureRequest) -> Iterator[Page]:
    with shared.lent(request.session) as page:
        page.wait_for_selector("#radar-target .handle >> nth=3")
        wait_for_even(page)
        yield page


def handle(page: Page, name: str) -> Locator:
    return page.get_by_role("slider", name=f"Target for {name}")


def middle(box: FloatRect | None) -> tuple[float, float]:
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def grab(page: Page, name: str) -> tuple[float, float]:
    x, y = middle(handle(page, name).locator(".knob").bounding_box())
    page.mouse.move(x, y)
    page.mouse.down()
    return x, y


def asked(page: Page, name: str) -> float:
    return float(str(handle(page, name).get_attribute("aria-valuenow")))


def outline(page: Page) -> str:
    return str(page.locator("#radar-target polygon").get_attribute("points"))


def wait_for_even(page: Page) -> None:
    page.wait_for_function(EVEN)


def test_a_drag_draws_a_target_and_the_faders_follow_in_one_step_of_undo(new_page: Page) -> None:
    page = new_page
    assert shares(page) == pytest.approx([0.25] * 4)
    before, at = heights(page), asked(page, "helpful")
    assert at == pytest.approx(before[0], abs=0.01), "the handles are on the expected polygon"
    assert not outline(page)
    x, y = grab(page, "helpful")
    page.mouse.move(x - 4, y - 4)
    page.mouse.move(x - 12, y - 12)
    # Live: the polygon and the faders follow while the button is down.
    assert len(outline(page).split()) == 4
    page.wait_for_function(f"!({EVEN})")
    page.wait_for_function(f"old => {TRACE}.r[0] > old + 0.05", arg=before[0])
    page.mouse.move(x - 30, y - 30)
    page.mouse.up()
    status = page.locator("#status")
    expect(status).to_contain_text("Beyond reach; nearest to your target: helpful +")
    wish = float(status.inner_text().split("of +")[1].split("σ")[0])
    assert wish == pytest.approx(asked(page, "helpful") - at, abs=0.02)
    assert "of the bank counts" in status.inner_text() and "±" in status.inner_text()
    assert asked(page, "harmless") == pytest.approx(before[1], abs=0.01), "what was not dragged is asked to stay"
    assert shares(page)[0] > 0.5
    # The gain that is told is the one that is drawn.
    gained = float(status.inner_text().split("helpful ")[1].split(" ")[0])
    page.wait_for_function(f"([old, told]) => Math.abs({TRACE}.r[0] - old - told) < 0.05", arg=[before[0], gained])
    assert page.evaluate("document.documentElement.scrollHeight") <= 900, "the desk scrolls"
    page.locator("#undo").click()
    wait_for_even(page)
    assert page.locator("#undo").get_attribute("aria-disabled") == "true", "more than one step"
    page.wait_for_function("!document.querySelector('#radar-target polygon').getAttribute('points')")


SLOW = """() => {
    const { fetch } = window;
    window.requestAnimationFrame = (draw) => setTimeout(() => draw(performance.now()), 400);
    window.fetch = async (...request) => {
        if (String(request[0]).includes("component_server")) await new Promise((resolve) => setTimeout(resolve, 150));
        return fetch(...request);
    };
}"""  # frames, and answers to a target


def test_a_target_set_again_before_the_faders_show_the_last_one_is_solved(new_page: Page) -> None:
    page = new_page
    page.evaluate(SLOW)
    harmless = handle(page, "harmless")
    harmless.focus()
    page.keyboard.press("ArrowUp")
    expect(page.locator("#status")).to_contain_text("of +0.10σ asked")
    page.wait_for_function(f"!({EVEN})", polling=10)
    page.keyboard.press("Home")
    page.keyboard.press("End")
    expect(page.locator("#status")).to_contain_text("Beyond reach", timeout=5000)
    page.wait_for_timeout(1000)
    assert asked(page, "harmless") == pytest.approx(radar_chart.REACH)
    assert outline(page), "the target is lost"


def test_what_can_be_had_is_had(page: Page) -> None:
    """Some less of a reward that is easily lost, and the arrow keys one step at a time."""
    harmless = handle(page, "harmless")
    harmless.focus()
    before = asked(page, "harmless")
    page.keyboard.press("ArrowUp")
    assert asked(page, "harmless") == pytest.approx(before + 0.1, abs=0.011)
    expect(page.locator("#status")).to_contain_text("harmless +")
    expect(page.locator("#status")).to_contain_text("of +0.10σ asked")
    page.wait_for_function(f"!({EVEN})")
    assert "asked " in str(harmless.get_attribute("aria-valuetext"))
    assert "expected " in str(harmless.get_attribute("aria-valuetext"))
    for key, value in (("PageDown", before - 0.4), ("Home", -radar_chart.REACH), ("End", radar_chart.REACH)):
        page.keyboard.press(key)
        assert asked(page, "harmless") == pytest.approx(value, abs=0.011)
    expect(page.locator("#status")).to_contain_text("Beyond reach")
    page.wait_for_function("Number(document.querySelectorAll('[data-share]')[1].dataset.exact) > 0.8")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Target for harmless"
    # Given up, the handles are the polygon's again.
    page.keyboard.press("Delete")
    assert not outline(page)
    page.wait_for_function(f"Math.abs({TRACE}.r[1] - document.activeElement.getAttribute('aria-valuenow')) < 0.02")
    assert shares(page)[1] > 0.8
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    wait_for_even(page)


def test_escape_cancels_a_drag(new_page: Page) -> None:
    page = new_page
    before = heights(page)[3]
    x, y = grab(page, "concise")
    page.mouse.move(x - 20, y + 20)
    page.wait_for_function(f"!({EVEN})")
    page.keyboard.press("Escape")
    assert not outline(page)
    wait_for_even(page)
    page.mouse.move(x - 40, y + 40)
    page.mouse.up()
    page.wait_for_function(f"old => Math.abs({TRACE}.r[3] - old) < 0.001", arg=before)
    assert shares(page) == pytest.approx([0.25] * 4)
    assert "target" not in page.locator("#status").inner_text()
    assert page.locator("#undo").get_attribute("aria-disabled") == "true"


def test_a_second_drag_keeps_the_first_and_a_fader_ends_both(page: Page) -> None:
    for name, by in (("helpful", (-12, -12)), ("harmless", (12, -12))):
        x, y = grab(page, name)
        page.mouse.move(x + by[0], y + by[1], steps=3)
        page.mouse.up()
        expect(page.locator("#status")).to_contain_text(f"{name} +")
    expect(page.locator("#status")).to_contain_text("asked, harmless +")
    assert page.locator("#radar-target .clear").is_visible()
    page.locator("#fader-3 input[type=range]").press("ArrowRight")
    page.wait_for_function("!document.querySelector('#radar-target polygon').getAttribute('points')")
    assert page.locator("#radar-target .clear").is_hidden()


def test_what_is_locked_stays(page: Page) -> None:
    page.locator("#fader-3 input[type=range]").focus()
    page.keyboard.press("l")
    expect(page.locator("#lock-3")).to_have_attribute("aria-pressed", "true")
    position = page.locator("#fader-3 input[type=range]").input_value()
    handle(page, "helpful").focus()
    page.keyboard.press("End")
    expect(page.locator("#status")).to_contain_text("nearest to your target: helpful")
    page.wait_for_function("Number(document.querySelector('[data-share]').dataset.exact) > 0.6")
    assert shares(page)[3] == pytest.approx(0.25)
    assert page.locator("#fader-3 input[type=range]").input_value() == position
    # Around it the others have all of what is left, as the sentence's figure says.
    gained = float(page.locator("#status").inner_text().split("helpful ")[1].split(" ")[0])
    assert 0 < gained < 1.42, "less than with all free"


def markers(page: Page) -> list[tuple[float, float]]:
    """Where plotly drew the expected polygon's corners, the first among the traces."""
    found = page.locator("#radar .scatterlayer .trace").nth(0).locator(".point").all()
    return [middle(point.bounding_box()) for point in found]


def on_corners(page: Page, count: int) -> None:
    drawn_at = markers(page)[:count]
    placed_at = [middle(knob.bounding_box()) for knob in page.locator("#radar-target .knob").all()]
    assert len(placed_at) == count
    for (x, y), (px, py) in zip(drawn_at, placed_at, strict=True):
        assert abs(x - px) < 1 and abs(y - py) < 1


def test_the_handles_are_where_plotly_draws_on_any_screen_with_any_number(new_page: Page) -> None:
    page = new_page
    page.wait_for_function(TRACE)
    on_corners(page, 4)
    for width, height in ((1100, 800), (390, 844), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(600)
        on_corners(page, 4)
    page.evaluate("document.body.classList.toggle('dark')")
    on_corners(page, 4)
    for count in (3, 5, 8):
        names = [f"objective {i}" for i in range(count)]
        standard = {name: i - 2.0 for i, name in enumerate(names)}
        colours = [palette.colour(i) for i in range(count)]
        figure = plotted(radar_chart.radar(names, colours, {}))
        trace = radar_chart.expected(
            names, radar_chart.SideRewards(standard, standard), dict.fromkeys(names, 0.1), True
        )
        axes = [
            {"name": name, "colour": shade, "angle": angle}
            for name, shade, angle in zip(names, colours, radar_chart.angles_of(names), strict=True)
        ]
        page.evaluate(
            """([figure, trace, axes, standard]) => {
                mixdesk.target.begin(axes, 3, null, () => {});
                mixdesk.target.expect(standard);
                mixdesk.underlay("radar", [trace]);
                mixdesk.figure("radar", document.getElementById("radar"), figure, () => {});
            }""",
            [figure, trace, axes, standard],
        )
        corners = f"({TRACE})?.r.length === {count + 1} && document.querySelectorAll('#radar-target .knob').length"
        page.wait_for_function(f"({corners}) === {count}")
        page.wait_for_timeout(200)
        on_corners(page, count)


def test_without_a_bank_there_is_nothing_to_drag_and_two_objectives_have_bars(
    browser: Browser, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bank_service, "SAMPLING", Sampling(max_new_tokens=6, temperature=1.0))
    (tiny.folder / "prompts.txt").write_text("mix\nmove the faders")
    with (
        Engine.from_config(tiny.write("with-prompts.yaml", prompts="prompts.txt")) as engine,
        served(engine, tmp_path / "mixdesk.db") as (url, _),
    ):
        page = browser.new_page()
        page.add_init_script(TOURED)
        page.goto(url)
        page.wait_for_function("document.body.dataset.ready")
        expect(page.locator("#expected")).to_contain_text("press Balance, which samples a bank", timeout=60_000)
        assert page.locator("#radar-target").is_hidden()
        assert "Drag" not in page.locator("#expected").inner_text()

        page.locator("#balance").click()
        expect(page.locator("#status")).to_contain_text("Balanced: ", timeout=60_000)
        page.wait_for_selector("#radar-target .handle >> nth=1")
        expect(page.locator("#expected")).to_contain_text("Drag a dot to ask for more.")
        # Before it is grabbed: then the faders may move, and the bars with them.
        drawn_as = "bar => bar.getBoundingClientRect().toJSON()"  # without its outline
        bar = page.locator("#radar .barlayer .point path").nth(0).evaluate(drawn_as)
        x, y = grab(page, "plain")
        assert min(abs(bar["y"] - y), abs(bar["y"] + bar["height"] - y)) < 1 and bar["x"] < x < bar["x"] + bar["width"]
        page.mouse.move(x, y - 30, steps=3)
        page.mouse.up()
        expect(page.locator("#status")).to_contain_text("plain +")
        page.close()
