"""What the browser tests share: a real Chromium, the app as the README starts it, the bundled Engine; and pages that
report what goes wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect, sync_playwright

from app.services.app_state import Desk
from engine import Engine
from tests.browser.serving import Server, running_app, served

QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
)
# For a page that is opened: somebody was here before. A download's document has no storage.
TOURED = "try { localStorage.setItem('mixdesk-tour', 'seen'); } catch {}"

UNFOLDING = 500  # ms
# How long something that must come may take: a busy machine is no failure.
expect.set_options(timeout=30_000)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's Chromium, headless, until the block is left."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "this needs Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET.split())
        yield browser
        browser.close()


# For this package, not the session: Playwright's event loop would be in the way of tests that run one of their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app as the README starts it. Its store is shared: a test looks at what it added itself."""
    db = tmp_path_factory.mktemp("app") / "mixdesk.db"
    with running_app(db) as url:
        yield Server(url, db)


@pytest.fixture(scope="package")
def engine() -> Iterator[Engine]:
    """The bundled policies, for tests that look into the engine, or serve a desk with a store of their own."""
    with Engine.from_config() as engine:
        yield engine


@pytest.fixture(scope="module")
def place(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Desk]]:
    """A desk with a store of the module's own: its address, and what is behind it."""
    with served(engine, tmp_path_factory.mktemp("place") / "mixdesk.db") as place:
        yield place


@contextmanager
def watched(page: Page) -> Iterator[None]:
    """Errors in the page's scripts, and its requests to elsewhere, fail the test at the end of the block."""
    wrong: list[str] = []

    def note_error(error: Any) -> None:
        wrong.append(f"script error: {error}")

    def note_request(request: Any) -> None:
        if is_elsewhere(request.url):
            wrong.append(f"asks for {request.url}")

    page.on("pageerror", note_error)
    page.on("request", note_request)
    yield
    page.remove_listener("pageerror", note_error)
    page.remove_listener("request", note_request)
    assert not wrong


@contextmanager
def opened(browser: Browser, url: str, tour: bool = False, **look: Any) -> Iterator[Page]:
    """The desk at this address, ready. Errors in its scripts and requests to elsewhere fail the test.

    tour: it is the first visit, and the tour comes. look: of the browser's context; a laptop's screen by day unless
    told.
    """
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **look})
    if not tour:
        context.add_init_script(TOURED)
    page = context.new_page()
    page.set_default_timeout(60_000)
    with watched(page):
        page.goto(url)
        page.wait_for_selector("#radar .polarlayer")
        # Filled in when the page's own load event has run: before that its buttons do nothing.
        page.wait_for_function("document.body.dataset.ready")
        yield page
        close(context)


@contextmanager
def without_dialogs(page: Page) -> Iterator[None]:
    """The page may use the clipboard; a dialog, as only somebody else's script would open, fails the test."""
    dialogs: list[str] = []

    def note(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", note)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield
    page.remove_listener("dialog", note)
    assert not dialogs


class SharedPage:
    """One page for the tests of a module, which is opened anew only after a test that failed. Opening takes five
    seconds of a core; what a page had when it was opened is put back in a tenth of that."""

    def __init__(self, browser: Browser, url: str, **look: Any) -> None:
        self.browser, self.url, self.look = browser, url, look
        self.stack = ExitStack()
        self.page: Page | None = None

    @contextmanager
    def lent(self, session: pytest.Session) -> Iterator[Page]:
        """The page as it was when it was opened, for one test, which fails if something is wrong in its scripts."""
        failed = session.testsfailed
        if self.page is None:
            page = self.stack.enter_context(opened(self.browser, self.url, **self.look))
            self.size, self.link, self.page = page.viewport_size, page.evaluate(KEEP), page
        else:
            assert self.size
            self.page.set_viewport_size(self.size)
            put_back(self.page, self.link)
        with watched(self.page):
            yield self.page
        if session.testsfailed > failed:
            self.close()

    def close(self) -> None:
        stack, self.stack, self.page = self.stack, ExitStack(), None
        stack.close()


# A link to the desk as it is now.
KEEP = """() => {
    mixdesk.restore.save();
    const { state } = JSON.parse(sessionStorage.getItem("mixdesk-desk:" + location.pathname));
    const bytes = new TextEncoder().encode(JSON.stringify({ ...state, v: 1, turns: [], seed: state.seed || "0" }));
    return "#mix=" + btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}"""


def put_back(page: Page, link: str) -> None:
    """Settings, panels and folded parts as they were when the page was opened, and no responses. As after any link, the
    seed stays the same from run to run; Undo knows what was before."""
    for _ in range(2):
        page.keyboard.press("Escape")
    page.locator("#desk-tab-button").click()
    status = page.locator("#status")
    page.locator("#new-conversation").dispatch_event("click")
    expect(status).to_contain_text("A new conversation")
    page.evaluate("link => { location.hash = link; }", link)
    expect(status).to_contain_text("The desk is as the link has it.")
    page.evaluate("history.replaceState(null, '', location.pathname + location.search)")
    for name, inside in (("more", "#new-seed"), ("shelf", "#copy-link")):
        if page.locator(inside).is_visible():
            page.locator(f"#{name} > button").click()
            page.wait_for_timeout(UNFOLDING)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    expect(page.locator("#rate-left")).to_be_disabled()
    page.wait_for_function("!document.querySelector('#panels .token')")


@pytest.fixture(scope="module")
def shared_place(browser: Browser, place: tuple[str, Desk]) -> Iterator[SharedPage]:
    """A page of the module's own desk that its tests use one after another."""
    page = SharedPage(browser, place[0])
    yield page
    page.close()


@pytest.fixture(scope="module")
def shared(browser: Browser, server: Server) -> Iterator[SharedPage]:
    """A page of the app, likewise."""
    page = SharedPage(browser, server.url)
    yield page
    page.close()


def close(context: BrowserContext) -> None:
    """Chromium may answer that it closes a page while it is on its way elsewhere, and never close it: Playwright would
    wait for ever. So each is brought to rest first."""
    for page in context.pages:
        page.goto("about:blank")
    context.close()


def unfold(page: Page, name: str) -> None:
    """Open what is folded away ("more", "shelf"), and wait until it can be filled in: just after it is opened Gradio
    may set what is in it once more. No hand is as fast."""
    page.locator(f"#{name} > button").click()
    page.wait_for_timeout(UNFOLDING)


def is_elsewhere(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))
