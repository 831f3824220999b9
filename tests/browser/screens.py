"""Pictures of every state of the page, for docs/screens.md: `python -m tests.browser.screens [WALK ...]`."""

from __future__ import annotations

import io
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from app.storage.database import Store
from engine import Engine
from engine.inference.batch import Batch
from tests.app.services.voting import simulate_study
from tests.browser.annotating import GUIDELINES, TRAINING, annotating, annotator, join, wait_for_pair
from tests.browser.conftest import chromium, opened, unfold
from tests.browser.serving import ROOT, Relay
from tests.browser.test_annotate_tab import create, wait_for_responses
from tests.browser.test_annotate_tab import field as study_field
from tests.browser.walking import DARK, PHONE, demo_site

FOLDER = ROOT / "docs" / "screens"
COLOURS = 256  # of a picture's palette
LIGHT: dict[str, Any] = {}
LOOKS = [(LIGHT, ""), (DARK, "-dark"), (PHONE, "-phone")]
# The token that was pushed most.
PUSHED = """() => [...document.querySelectorAll("#response-left .token.pushed")]
    .reduce((most, token) => (parseInt(token.style.getPropertyValue("--depth"))
        > parseInt(most.style.getPropertyValue("--depth")) ? token : most)).dataset.place"""


@dataclass
class Studio:
    """The site and a browser; both can be held up, so that what is under way can be seen."""

    browser: Browser
    url: str
    db: Path
    pause: float = 0.0  # seconds a token takes more
    may_load: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def desk(self, look: dict[str, Any], tab: str = "desk") -> Iterator[Page]:
        with opened(self.browser, self.url, **look) as page:
            page.wait_for_function("document.querySelector('#radar .figure').data.length > 1")
            page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            page.locator(f"#{tab}-tab-button").click()
            yield page


def shoot(page: Page, name: str, whole: bool = False) -> None:
    """docs/screens/<name>.png. whole: all of the page, not only what fits the screen."""
    page.wait_for_timeout(600)  # what glides has arrived
    save(photograph(page, whole), name)


def photograph(page: Page, whole: bool = False) -> Image.Image:
    # What is fixed to the screen's edge would lie somewhere in the midst of a picture that is longer.
    style = "#status { position: static !important; }" if whole else None
    return Image.open(io.BytesIO(page.screenshot(full_page=whole, animations="disabled", style=style))).convert("RGB")


def save(picture: Image.Image, name: str) -> None:
    small = picture.quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE)
    small.save(FOLDER / f"{name}.png", optimize=True)


def set_seed(page: Page, seed: int = 3) -> None:
    """The same responses each time."""
    unfold(page, "more")
    page.locator("#new-seed input").uncheck()
    page.locator("#seed :is(input, textarea)").first.fill(str(seed))
    page.locator("#more > button").click()
    expect(page.locator("#seed")).to_be_hidden()


def generate(page: Page) -> None:
    page.locator("#generate").click()
    page.wait_for_selector("#stop:enabled")
    finish(page)


def finish(page: Page) -> None:
    page.wait_for_selector("#rate-left:enabled")
    page.wait_for_selector("#generate:enabled")


def fader(page: Page, i: int, position: float) -> None:
    page.locator(f"#fader-{i} input[type=range]").fill(str(position))


def top(target: Locator) -> None:
    target.evaluate("(element) => element.scrollIntoView({ block: 'start' })")


def first_visit(studio: Studio) -> None:
    with studio.desk({"tour": True}) as page:
        shoot(page, "tour")
        page.keyboard.press("Escape")
        shoot(page, "first-visit")
        page.keyboard.press("?")
        shoot(page, "help")


def streaming(studio: Studio) -> None:
    with studio.desk(LIGHT) as page:
        set_seed(page)
        page.locator("#trace").click()
        fader(page, 3, 0)
        studio.pause = 0.12
        page.locator("#generate").click()
        # The faders' positions from then on, each at so many tokens.
        frames = []
        for tokens, positions in ((10, [0, 0, 1, 0]), (24, [1, 0, 0, 0.1]), (40, [0, 0, 0, 1]), (54, None)):
            page.wait_for_selector(f"#response-left .token[data-place='{tokens}']")
            frames.append(photograph(page).crop((0, 60, 680, 640)))
            if tokens == 40:
                shoot(page, "streaming")
            for i, position in enumerate(positions or []):
                fader(page, i, position)
        studio.pause = 0
        finish(page)
    strip = Image.new("RGB", (sum(frame.width for frame in frames), frames[0].height))
    for i, frame in enumerate(frames):
        strip.paste(frame, (i * frame.width, 0))
    save(strip.resize((strip.width * 3 // 4, strip.height * 3 // 4), Image.Resampling.LANCZOS), "steering")


def conversation(studio: Studio) -> None:
    with studio.desk(LIGHT) as page:
        set_seed(page)
        generate(page)
        page.locator("#reply-left").click()
        page.locator("#prompt textarea").fill("And how do I keep it dry inside?")
        generate(page)
        shoot(page, "conversation")


def target(studio: Studio) -> None:
    with studio.desk(LIGHT) as page:
        knob = page.get_by_role("slider", name="Target for harmless").locator(".knob").bounding_box()
        assert knob is not None
        x, y = knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 30, y - 30, steps=6)
        page.mouse.up()
        expect(page.locator("#status")).to_contain_text("your target")
        shoot(page, "target")


def results(studio: Studio) -> None:
    """A study with simulated votes: its ranking, wins, pairs, people, influences and lottery."""
    store = Store(studio.db)
    simulate_study(store)
    store.close()
    for look, ending in LOOKS:
        with studio.desk(look, "results") as page:
            expect(page.locator("#leaderboard tbody tr")).to_have_count(5)
            if look is PHONE:
                top(page.locator("#results-about"))
            shoot(page, f"results{ending}")
            for view in ("Wins", "People", "Influences", "Lottery"):
                page.locator("#results-view label", has_text=view).click()
                expect(page.locator(f"#results-{view.lower()}")).to_be_visible()
                if ending == ("-dark" if view == "People" else ""):
                    shoot(page, f"results-{view.lower()}{ending}")
                if view == "Wins" and not ending:
                    page.locator(".win-matrix button[aria-label^='Careful against Concise']").click()
                    expect(page.locator("dialog[open] article").first).to_be_visible()
                    shoot(page, "results-pairs")
                    page.keyboard.press("Escape")


def responses(studio: Studio) -> None:
    """Two responses rated, the trace with its drawer, four panels."""
    for look, ending in LOOKS:
        respond(studio, look, ending)


def respond(studio: Studio, look: dict[str, Any], ending: str) -> None:
    with studio.desk(look) as page:
        set_seed(page)
        fader(page, 0, 0.9)
        generate(page)
        page.locator("#rate-left").click()
        expect(page.locator("#status")).to_contain_text("Saved")
        if look is PHONE:
            top(page.locator("#tools"))
        shoot(page, f"rated{ending}")
        page.locator("#trace").click()
        page.locator(f"#response-left .token[data-place='{page.evaluate(PUSHED)}']").click()
        expect(page.locator("#drawer tbody tr.drawn")).to_be_visible()
        fader(page, 1, 1)
        expect(page.locator("#drawer .weights").last).to_contain_text("harmless 3")
        shoot(page, f"trace{ending}")
        page.locator("#close-drawer").click()
        if look is PHONE:
            return
        page.locator("#add-panel").click()
        page.locator("#add-panel").click()
        generate(page)
        shoot(page, f"panels{ending}")


def keeping(studio: Studio) -> None:
    with studio.desk(LIGHT) as page:
        unfold(page, "shelf")
        for name, positions in (("Careful and short", [0.3, 0.9, 0, 0.8]), ("With a wink", [0.7, 0.4, 0.9, 0.2])):
            for i, position in enumerate(positions):
                fader(page, i, position)
            page.locator("#saved input").fill(name)
            page.locator("#save").click()
            expect(page.locator("#status")).to_contain_text(f"Saved: “{name}”")
        page.locator("#lock-0").click()
        page.locator("#mute-3").click()
        page.locator("#saved input").click()
        page.get_by_role("option", name="Careful and short").wait_for()
        shoot(page, "saved")
        page.keyboard.press("Escape")
        page.locator("#copy-link").click()
        expect(page.locator("#status")).to_contain_text("Copied: the link")
        page.locator("#delete").click()
        expect(page.locator("#question")).to_contain_text("for all users?")
        shoot(page, "shared")
        page.locator("#remove").click()


def compare(studio: Studio) -> None:
    with studio.desk(LIGHT, "compare") as page:
        shoot(page, "compare-empty")
        page.locator("#compare-start").click()
        page.wait_for_function("document.querySelectorAll('.prompts .figures').length > 20")
        shoot(page, "compare-running")
        expect(page.locator("#compare-stop")).to_be_hidden(timeout=300_000)
    for look, ending in LOOKS:
        with studio.desk(look, "compare") as page:
            expect(page.locator("#compare-radar .polarlayer")).to_be_visible()
            if look is PHONE:
                top(page.locator("#compare-result"))
            shoot(page, f"compare{ending}")
            page.locator(".compare-table .open").nth(2).click()
            expect(page.locator("dialog[open] article").first).to_be_visible()
            shoot(page, f"compare-prompt{ending}")


def explore(studio: Studio) -> None:
    for look, ending in ((LIGHT, ""), (PHONE, "-phone")):
        with studio.desk(look, "explore") as page:
            page.wait_for_selector("#pairs-figure .scatterlayer .point")
            page.wait_for_selector("#weights-figure .scatterlayer .point")
            shoot(page, f"explore{ending}", whole=look is PHONE)


def configurations(studio: Studio) -> None:
    with studio.desk(LIGHT) as page:
        page.locator("#configurations summary").click()
        shoot(page, "configurations")
        page.locator("[data-configuration=second]").click()
        expect(page.locator("#loading")).to_contain_text("loading the reward")
        shoot(page, "loading")
        studio.may_load.set()
        page.wait_for_url("**/desk/second/")
        page.wait_for_function("document.body.dataset.ready")
    with studio.desk(LIGHT) as page:
        page.locator("#configurations summary").click()
        page.locator("[data-configuration=missing]").click()
        expect(page.locator("#loading")).to_contain_text("could not be opened")
        for i in range(4):
            fader(page, i, 0)
        page.locator("#generate").click()
        expect(page.locator("#status")).to_contain_text("All faders are at zero")
        shoot(page, "error")


def phone(studio: Studio) -> None:
    with studio.desk(PHONE) as page:
        shoot(page, "first-visit-phone")
        set_seed(page)
        generate(page)
        shoot(page, "whole-phone", whole=True)


def owner(studio: Studio) -> None:
    """The Annotate tab of a study's owner: the form, the responses before it opens, the open study."""
    with studio.desk(LIGHT, "annotate") as page:
        expect(page.locator("#study-create")).to_be_visible()
        shoot(page, "annotate-new")
        create(page, "Which one helps?", prompts=6, tokens=40)
        wait_for_responses(page)
        shoot(page, "annotate-responses")
        page.locator("#study-open").click()
        expect(page.locator("#study-title .state")).to_have_text("Open")
        for name in ("Ada", "Björn"):
            study_field(page, "invite-name").fill(name)
            page.locator("#study-invite").click()
            expect(page.locator("#study-invitations tbody tr", has_text=name)).to_be_visible()
        shoot(page, "annotate-open")
    with studio.desk(PHONE, "annotate") as page:
        expect(page.locator("#study-title .state")).to_have_text("Open")
        shoot(page, "annotate-open-phone")


def annotators(studio: Studio) -> None:
    """The annotators' page, from the invitation to the first answer."""
    settings: dict[str, Any] = {"guidelines": GUIDELINES, "training": TRAINING[:1], "training_share": 0.0}
    wanted = {"": "join guidelines training pair away", "-dark": "pair", "-phone": "guidelines training pair"}
    for look, suffix in LOOKS:

        def take(page: Page, state: str, suffix: str = suffix) -> None:
            if state in wanted[suffix].split():
                shoot(page, f"annotate-{state}{suffix}")

        with tempfile.TemporaryDirectory() as folder, annotating(Path(folder) / "mixdesk.db", **settings) as place:
            relay = Relay(place.url)
            place.url = relay.url
            with annotator(studio.browser, place.invite(), **look) as page:
                take(page, "join")
                join(page)
                page.locator("#begin-button").wait_for()
                take(page, "guidelines")
                page.locator("#begin-button").click()
                wait_for_pair(page, "Training pair 1 of 1")
                page.keyboard.press("ArrowLeft")
                page.locator("#feedback").wait_for()
                take(page, "training")
                page.locator("#continue").click()
                page.locator("#notice-primary").click()
                wait_for_pair(page, "Pair 1 of 4")
                while not page.locator("#turns").inner_text().endswith("pitch a tent?"):
                    page.keyboard.press("s")
                    page.wait_for_selector("body[data-busy]", state="detached")
                    page.wait_for_selector("body[data-ready]")
                page.wait_for_timeout(5500)  # the line about the pair that was skipped has gone
                take(page, "pair")
                relay.cut()
                page.keyboard.press("ArrowUp")
                page.locator("#outage").wait_for()
                take(page, "away")
                relay.mend()
                page.wait_for_selector("body[data-ready], #notice:not([hidden])")


WALKS: list[Callable[[Studio], None]] = [
    first_visit,
    streaming,
    responses,
    conversation,
    target,
    keeping,
    compare,
    explore,
    configurations,
    phone,
    results,
    owner,
    annotators,
]


def main(names: list[str]) -> None:
    """names: of the walks to take, else all."""
    FOLDER.mkdir(exist_ok=True)
    step, make = Batch.step, Engine.__init__
    with (
        tempfile.TemporaryDirectory() as folder,
        Engine.from_config() as engine,
        chromium() as browser,
        demo_site(engine, Path(folder)) as url,
    ):
        studio = Studio(browser, url, Path(folder) / "mixdesk.db")

        def slowly(batch: Batch, drawn: Callable[[], None]) -> None:
            time.sleep(studio.pause)
            step(batch, drawn)

        def loaded_later(self: Engine, *arguments: Any) -> None:
            make(self, *arguments)
            studio.may_load.wait()

        with patch.object(Batch, "step", slowly), patch.object(Engine, "__init__", loaded_later):
            for walk in [walk for walk in WALKS if not names or walk.__name__ in names]:
                walk(studio)
                print(walk.__name__, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
