"""A study for a browser: the annotators' routes behind the site's checks, on a real store, without an engine.

`python -m tests.browser.annotating PORT DATABASE` serves it from a process that is killed and begun again by lines of
its standard input, without importing everything each time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.schemas.study import Example, Question, StudySettings, StudyState
from app.server.access import find_access
from app.server.annotate import AnnotateRoutes
from app.server.guard import guarded
from app.storage.database import Store
from app.storage.studies import StudyTables
from app.storage.study_items import NewItem
from engine import Mixture
from tests.browser.conftest import close, is_elsewhere
from tests.browser.serving import ROOT, free_port, running

# What no annotator may learn: names, weights and the seed are like nothing else that is sent.
MIXTURES = {
    "Quasarmix": Mixture({"zephyrine": 0.8125, "obsidian": 0.1875}),
    "Nebulamix": Mixture({"zephyrine": 0.40625, "obsidian": 0.59375}),
}
SEED = 918273645546372819
HIDDEN = ("quasarmix", "nebulamix", "zephyrine", "obsidian", "8125", "1875", "40625", "59375", str(SEED), "demo-model")
OVERALL = Question(key="overall", text="Which response is better?")
THREE = [
    OVERALL,
    Question(key="harmless", text="Which response is more harmless?"),
    Question(key="humorous", text="Which response is funnier?"),
]
GUIDELINES = """## What to look for

Prefer the response that **helps the person more**. Ask yourself:

- Does it answer what was asked?
- Is anything in it wrong or unsafe?
- Is it as long as it needs to be, and no longer?

## Ties

Choose *Tie* only if you would not mind which of the two you got, and *Both bad* if neither should be sent to anybody.
"""
TRAINING = [
    Example(
        prompt="How do I boil an egg?",
        first="Put it into boiling water. Seven minutes for a soft yolk, ten for a hard one.",
        second="Eggs are boiled in water.",
        expected={"overall": ["first"]},
        feedback="One says how long it takes, which is what the person needs to know; the other says nothing new.",
    ),
    Example(
        prompt="May I mix bleach with vinegar?",
        first="Sure, it cleans better.",
        second="No: it gives off chlorine gas. Use one of them, and rinse before you use the other.",
        expected={"overall": ["second"]},
        feedback="One of them is dangerous.",
    ),
]
LONG = """Practise putting up the tent at home, where nobody is watching.

1. Peg down the corner nearest the wind first, so that the tent cannot blow away.
2. Click the pole sections together and push them gently through the sleeves.
3. Raise the poles and fix their ends into the eyelets at the corners.

Do this once a month and it will never be a chore again."""
SHORT = "Choose level ground, and count your pegs before you leave.\n\nThe rest is patience."
PROMPTS: list[tuple[Any, str, str]] = [
    ("What should I know before I pitch a tent?", LONG, SHORT),
    ("كيف أحفظ الأعشاب طازجة؟", "ضعها في كوب من الماء.\nغيّر الماء كل يومين.", "Put them into water."),
    ("<img src=x onerror=alert(1)> **What** is this?", "<b>HTML</b>, as text", ""),
    ("word " * 900, "A line that does not end: " + "x" * 400, LONG * 12),
]


@dataclass
class Place:
    """A study, and where its page is."""

    store: Store
    url: str
    id: str
    tables: StudyTables = field(init=False)

    def __post_init__(self) -> None:
        self.tables = StudyTables(self.store)

    @property
    def page(self) -> str:
        return f"{self.url}/annotate/{self.id}"

    def invite(self, name: str = "") -> str:
        """A link for a new person."""
        _, secret = self.tables.invite(self.id, name)
        return f"{self.page}#{secret}"

    def rows(self, table: str = "study_assignments", where: str = "1") -> list[dict[str, Any]]:
        with self.store.reading() as db:
            return list(db.query(f"select * from {table} where {where} order by rowid"))

    def answered(self) -> list[dict[str, Any]]:
        """The stored answers to pairs, in order: each with its assignment's columns."""
        with self.store.reading() as db:
            query = "select * from study_answers s join study_assignments a on a.id = s.assignment_id "
            return list(db.query(f"{query} where a.kind != 'training' order by a.answered_at, a.rowid, s.rowid"))


def add_study(store: Store, pairs: int = 4, state: StudyState = StudyState.OPEN, **settings: Any) -> str:
    """Add a study and return its id. settings: of StudySettings, where they are to be others."""
    tables = StudyTables(store)
    whole = StudySettings(**{"name": "Camping advice, spring round", "seed": SEED, **settings})
    study = tables.add(whole, dict(MIXTURES), model="demo-model", source="prompts.txt")
    items = []
    for i in range(pairs):
        prompt, first, second = PROMPTS[i % len(PROMPTS)]
        again = "" if i < len(PROMPTS) else f" ({i})"
        items.append(NewItem(prompt + again, 0, 1, first_text=first, second_text=second))
    tables.add_items(study, items)
    if state is not StudyState.DRAFT:
        tables.set_state(study, StudyState.OPEN)
    if state not in (StudyState.DRAFT, StudyState.OPEN):
        tables.set_state(study, state)
    return study


def annotate_app(store: Store, root: str = "") -> ASGIApp:
    """The annotators' routes, as the site has them behind its checks. root: the path where a proxy shows them."""
    routes = Starlette(routes=AnnotateRoutes(store, root, sign_in=True).routes())

    async def below_root(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and root:
            path = scope["path"].removeprefix(root)
            scope = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
        await routes(scope, receive, send)

    return guarded(below_root, find_access("127.0.0.1", owner_token="an owner's secret", env={}))


@contextmanager
def annotating(db: Path, root: str = "", **settings: Any) -> Iterator[Place]:
    """A study with these settings, served from this process."""
    store = Store(db)
    try:
        with running(annotate_app(store, root)) as (url, _):
            yield Place(store, f"{url}{root}", add_study(store, **settings))
    finally:
        store.close()


@contextmanager
def annotator(browser: Browser, url: str, **look: Any) -> Iterator[Page]:
    """The page of a study in a browser of its own. Errors of scripts, what the policy refuses, and requests to
    elsewhere fail the test. look: of the browser's context; a laptop's screen by day unless told."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **look})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
    page.on("request", lambda request: wrong.append(f"asks for {request.url}") if is_elsewhere(request.url) else None)
    page.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    page.goto(url)
    yield page
    close(context)
    assert not wrong


def wait_for_pair(page: Page, title: str) -> None:
    """Until this pair is shown and takes an answer."""
    expect(page.locator("#pair-title")).to_have_text(title)
    page.wait_for_selector("body[data-ready]")


def join(page: Page, name: str = "Ada") -> None:
    """Join by the form, with the keyboard."""
    expect(page.locator("#name")).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Enter")


class Mortal:
    """A server in a process of its own, which can be killed."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.url, self.process = f"http://127.0.0.1:{port}", process

    def tell(self, command: str) -> None:
        """kill; or start, start before, start after: it dies of the next answer, before or after it has stored it."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"{command}\n"


@contextmanager
def mortal(db: Path) -> Iterator[Mortal]:
    """A server of this database that does not run yet."""
    port = free_port()
    command = [sys.executable, "-m", "tests.browser.annotating", str(port), str(db)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    try:
        yield Mortal(port, process)
    finally:
        process.communicate()
        assert process.returncode == 0


def dying(app: ASGIApp, when: str) -> ASGIApp:
    """The application, whose process is killed by the next answer that it gets: before it is stored, or after that."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def mortal_app(scope: Scope, receive: Receive, send: Send) -> None:
        answered = scope["type"] == "http" and scope["path"].endswith("/answer")
        if answered and when == "before":
            die()

        async def send_or_die(message: Message) -> None:
            if answered and when == "after":
                die()
            await send(message)

        await app(scope, receive, send_or_die)

    return mortal_app


def main() -> None:
    port, db = sys.argv[1:]
    child = 0
    for line in sys.stdin:
        command, _, when = line.strip().partition(" ")
        if child and command == "kill":
            os.kill(child, signal.SIGKILL)
        if child:
            os.waitpid(child, 0)
            child = 0
        if command == "start" and not (child := os.fork()):
            app = dying(annotate_app(Store(Path(db))), when)
            uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")
            os._exit(0)
        print(line, end="", flush=True)
    if child:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
