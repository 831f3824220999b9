"""A person at the page, with a mouse or a finger: what they press is in sight and large enough, and what they read is
neither cut off nor too faint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from playwright.sync_api import Locator, Page, expect

from app.server.app import Site
from app.server.configurations import Configurations
from app.server.desk_app import web_app
from app.services.app_state import Desk
from app.storage.database import Store
from app.ui.page import build_page
from engine import Engine
from engine.config import DEMO
from tests.browser.conftest import UNFOLDING
from tests.browser.serving import running

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DARK = {"viewport": {"width": 1440, "height": 900}, "color_scheme": "dark"}
# Of the first panel of Explore's pairs: where in the figure the point is that lies furthest from all others, so that
# nothing covers it, and its weights.
LONELY_POINT = """(plot) => {
    const { xaxis, yaxis } = plot._fullLayout;
    const at = ({ x, y }, i) => [xaxis._offset + xaxis.d2p(x[i]), yaxis._offset + yaxis.d2p(y[i])];
    const panel = plot._fullData.filter((trace) => trace.xaxis === "x");
    const every = panel.flatMap((trace) => Array.from(trace.x, (_, i) => [trace, i, ...at(trace, i)]));
    const alone = ([trace, i, left, top]) => Math.min(...every
        .filter(([other, j]) => other !== trace || j !== i)
        .map(([, , otherLeft, otherTop]) => Math.hypot(left - otherLeft, top - otherTop)));
    const own = every.filter(([trace]) => trace.name === "mostly helpful");
    const [trace, i, left, top] = own.reduce((one, two) => (alone(two) > alone(one) ? two : one));
    return [left, top, ...trace.customdata[i].slice(0, 4)];
}"""
SMALLEST, THUMB = 24, 44  # px: what WCAG 2.5.8 asks of any target, and what a thumb hits without looking

# What is seen as text: [{text, word: or a mere sign, clipped: px, contrast: to what is behind it, lighter: than that}].
# What changes its colour is looked at when it has it. (A field that the browser filled in has hours to change its own.)
COLOURED = """() => document.getAnimations().every((moving) => {
    const passing = moving instanceof CSSTransition && moving.effect.getComputedTiming().duration < 5000;
    return !passing || moving.playState !== "running";
})"""
READ = """() => {
    const colour = (text) => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    const over = ([r, g, b, a = 1], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
    const light = (rgb) => rgb
        .map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
    const page = colour(getComputedStyle(document.body).backgroundColor).slice(0, 3);
    const lineage = (element) => (element ? [...lineage(element.parentElement), element] : []);
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const element = node.parentElement, text = node.textContent.trim();
        if (!text || element.closest("script, style, option, :disabled, [aria-disabled=true], .silent")) continue;
        if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        const box = range.getBoundingClientRect();
        const path = lineage(element);
        if (!box.width || path.some((part) => part.getBoundingClientRect().width <= 1)) continue;

        let clipped = 0, cut = true;
        for (const part of [...path].reverse()) {
            const style = getComputedStyle(part), edge = part.getBoundingClientRect();
            // What ends in dots has its whole text in a title, or is opened by a click.
            const overflow = style.overflowX + style.overflowY;
            if (part.title || style.webkitLineClamp !== "none" || /auto|scroll/.test(overflow)) cut = false;
            if (!cut || part.closest("svg") || !/hidden|clip/.test(overflow)) continue;
            clipped = Math.max(clipped, edge.left - box.left, box.right - edge.right);
            clipped = Math.max(clipped, edge.top - box.top, box.bottom - edge.bottom);
        }
        let behind = page, shown = 1;
        for (const part of path) {
            const style = getComputedStyle(part);
            if (style.display !== "contents") behind = over(colour(style.backgroundColor), behind);
            shown *= Number(style.opacity);
        }
        const style = getComputedStyle(element);
        const [r, g, b, a = 1] = colour(element.closest("svg") ? style.fill : style.color);
        const front = over([r, g, b, a * shown], behind);
        const [dim, bright] = [light(front), light(behind)].sort((one, other) => one - other);
        const contrast = (bright + 0.05) / (dim + 0.05);
        const word = /[\\p{L}\\p{N}]/u.test(text);
        found.push({ text: text.slice(0, 60), word, clipped, contrast, lighter: light(front) > light(behind) });
    }
    return found;
}"""


@dataclass(frozen=True)
class Hand:
    """phone: a finger on a narrow screen, else a mouse. dark: what is read must be light on dark."""

    page: Page
    phone: bool
    dark: bool

    def find(self, target: str | Locator) -> Locator:
        return self.page.locator(target) if isinstance(target, str) else target

    def box(self, target: str | Locator) -> dict[str, float]:
        box = self.find(target).bounding_box()
        assert box, f"{target} is not there"
        return dict(box)

    def reach(self, target: str | Locator, main: bool = False) -> Locator:
        """It is where a person can click or tap it. main: what the page is for; a thumb must hit it at once."""
        found = self.find(target)
        expect(found).to_be_enabled()
        found.scroll_into_view_if_needed()
        box, size = self.box(found), self.page.viewport_size
        assert size
        right, bottom = box["x"] + box["width"], box["y"] + box["height"]
        inside = min(box["x"], box["y"]) >= -1 and right <= size["width"] + 1 and bottom <= size["height"] + 1
        assert inside, f"{target} is out of sight: {box}"
        least = THUMB if main and self.phone else SMALLEST
        assert min(box["width"], box["height"]) >= least - 0.5, f"{target} is too small: {box}"
        return found

    def press(self, target: str | Locator, main: bool = False) -> None:
        """Click or tap it, where a person can."""
        found = self.reach(target, main)
        if self.phone:
            found.tap()
        else:
            found.click()

    def unfold(self, name: str) -> None:
        self.press(f"#{name} > button")
        self.page.wait_for_timeout(UNFOLDING)

    def slide(self, fader: int, position: float) -> None:
        """Move a fader: a mouse drags it there, a finger taps there."""
        knob = self.find(f"#fader-{fader} input[type=range]")
        knob.scroll_into_view_if_needed()
        box = self.box(knob)
        assert box["width"] >= 100, f"a fader of {box['width']} px"
        x, y = box["x"] + 8 + position * (box["width"] - 16), box["y"] + box["height"] / 2
        if self.phone:
            self.page.touchscreen.tap(x, y)
            return
        self.page.mouse.move(box["x"] + box["width"] / 2, y)
        self.page.mouse.down()
        self.page.mouse.move(x, y, steps=4)
        self.page.mouse.up()

    def drag(self, target: str | Locator, right: float, down: float) -> None:
        """Take it there; the page stays where it is."""
        found = self.find(target)
        found.scroll_into_view_if_needed()
        box, scrolled = self.box(found), self.page.evaluate("scrollY")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        way = [(x + part * right, y + part * down) for part in (0.0, 0.3, 0.7, 1.0)]
        if self.phone:
            touch = self.page.context.new_cdp_session(self.page)
            for i, (x, y) in enumerate(way):
                kind = "touchMove" if i else "touchStart"
                touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
            touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        else:
            self.page.mouse.move(x, y)
            self.page.mouse.down()
            for x, y in way:
                self.page.mouse.move(x, y)
            self.page.mouse.up()
        assert self.page.evaluate("scrollY") == scrolled, "the page went along"

    def look(self, least: int = 20) -> None:
        """The page as it is now can be read, without scrolling sideways. least: so many texts are more than that."""
        wide = self.page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], f"the page scrolls sideways: {wide}"
        self.page.wait_for_function(COLOURED)
        seen = self.page.evaluate(READ)
        assert len(seen) > least
        refuse("text is cut off", [said for said in seen if said["clipped"] > 1.5])
        if self.dark:
            assert self.page.evaluate("document.body.classList.contains('dark')")
            # A sign need not be as clear as a word.
            refuse("text is too faint", [said for said in seen if said["contrast"] < (4.5 if said["word"] else 3)])
            refuse("dark text on a light ground", [said for said in seen if not said["lighter"]])


class Hands:
    """A person with a mouse on several screens one after another: each part is looked at, and can be reached, on all of
    them, and is pressed on the last. looks: by name, (width, height, colour scheme)."""

    def __init__(self, page: Page, looks: Mapping[str, tuple[int, int, Literal["light", "dark"]]]) -> None:
        self.page, self.looks = page, looks

    def each(self, do: Callable[[Hand], object]) -> None:
        for name, (width, height, scheme) in self.looks.items():
            self.page.set_viewport_size({"width": width, "height": height})
            self.page.emulate_media(color_scheme=scheme)
            dark = scheme == "dark"
            self.page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=dark)
            try:
                do(Hand(self.page, phone=False, dark=dark))
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None

    def look(self) -> None:
        self.each(lambda hand: hand.look())

    def press(self, target: str, main: bool = False) -> None:
        self.each(lambda hand: hand.reach(target, main))
        self.page.locator(target).click()

    def unfold(self, name: str) -> None:
        self.press(f"#{name} > button")
        self.page.wait_for_timeout(UNFOLDING)


def refuse(what: str, found: list[dict[str, Any]]) -> None:
    assert not found, f"{what}: {found}"


def no_network(*_: object, **__: object) -> None:
    raise OSError("no route to host")


@contextmanager
def demo_site(engine: Engine, folder: Path) -> Iterator[str]:
    """The address of the site with the bundled policies, served from this process; its menu has a second configuration,
    which is the same under another name, and one whose base is missing."""
    settings = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    place = DEMO.parent
    settings["base"] = str(place / settings["base"])
    for part in (*settings["policies"], *settings["rewards"]):
        part.update({key: str(place / part[key]) for key in ("adapter", "model") if key in part})
    settings["prompts"] = str(place / settings["prompts"])
    files = [DEMO, folder / "second.yaml", folder / "missing.yaml"]
    files[1].write_text(yaml.safe_dump({**settings, "name": "second"}))
    files[2].write_text(yaml.safe_dump({**settings, "name": "missing", "base": "someone/who-is-not-there"}))
    store = Store(folder / "mixdesk.db")
    configurations = Configurations(
        files,
        lambda config, tell: Desk(Engine(config, tell), store),
        lambda desk, menu, root: web_app(build_page(desk, menu), desk, root),
    )
    first = Desk(engine, store)
    with pytest.MonkeyPatch.context() as patch:
        # The bank that ships, whatever is in the user's own cache.
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr("huggingface_hub.HfApi.model_info", no_network)
        first.warm_up()
        configurations.begin(first)
        try:
            with running(Site(configurations), grace=1) as (url, _):
                yield url
        finally:
            first.comparisons.close()
            for other in list(configurations.all.values())[1:]:
                if other.page:
                    other.page.desk.close()
            store.close()
