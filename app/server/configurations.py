"""The configurations of the page's menu: which exist, which are loaded, and when they are closed.

Each configuration has its own page, since a desk's page is built from one engine's configuration. Configurations are
loaded on request. All except the first, with which the app started, are closed again when others need the memory.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from fastapi import FastAPI

from app.server.gradio_compat import keep_apart, keep_less, print_less
from app.services.app_state import Desk
from app.services.policy_fetch import Fetching, check_memory
from app.ui.header import Choice, Menu
from engine import InputError
from engine.config import Config, load_config
from engine.daemon_thread import on_daemon_thread
from engine.models.hub import check_hub
from engine.names import check_label, slug_of
from engine.yaml_file import peek_yaml

T = TypeVar("T")
log = logging.getLogger("mixdesk")

LOADED = 2  # configurations in memory at once, the first included
LARGEST = 100_000  # bytes: a larger YAML file in the folder is something else


@dataclass
class Page:
    """A desk and its web application while they are loaded."""

    desk: Desk
    app: FastAPI
    requests: int = 0  # under way
    used: float = field(default_factory=time.monotonic)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    running: AsyncExitStack = field(default_factory=AsyncExitStack)  # what the application runs beside its requests

    @property
    def busy(self) -> bool:
        """True while a request is being served or the desk is working."""
        return self.requests > 0 or self.desk.busy


@dataclass
class Configuration:
    """One configuration of the menu and its state. `says` describes what is being loaded, or why loading failed."""

    file: Path
    name: str
    slug: str
    path: str
    state: Literal["closed", "loading", "ready", "failed"] = "closed"
    says: str = ""
    began: float = 0.0
    page: Page | None = None

    def described(self) -> dict[str, Any]:
        """Return the state for the browser; `seconds` is the time since the request while loading, else None."""
        seconds = round(time.monotonic() - self.began, 1) if self.state == "loading" else None
        return {"slug": self.slug, "path": self.path, "state": self.state, "says": self.says, "seconds": seconds}


class Configurations:
    """All configurations by slug, in menu order. Their state changes only on the event loop."""

    def __init__(
        self,
        files: Sequence[Path],
        open_desk: Callable[[Config, Callable[[str], None]], Desk],
        build_app: Callable[[Desk, Menu | None, str], FastAPI],
        loaded: int = LOADED,
        root: str = "",
    ) -> None:
        """Initialise the menu without loading anything.

        Args:
            files: The configurations, the first one first.
            open_desk: Opens a desk from a configuration; its second argument takes progress messages.
            build_app: Builds the web application from a desk, its menu (or None), and its root path.
            loaded: Maximum number of configurations in memory.
            root: Public path or URL of the site.
        """
        keep_apart()
        keep_less()
        print_less()
        self.all: dict[str, Configuration] = {}
        self.open_desk, self.build_app, self.loaded, self.root = open_desk, build_app, loaded, root.rstrip("/")
        for file in files:
            name = name_of(file)
            slug = slug_of(name, self.all)
            self.all[slug] = Configuration(file, name, slug, f"desk/{slug}/" if self.all else "")
        self.first = next(iter(self.all.values()))
        self.fetching = Fetching((slug, configuration.file) for slug, configuration in self.all.items())
        self._turn = asyncio.Lock()
        self._loading: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------------------- the pages

    def begin(self, desk: Desk) -> None:
        """Set the first configuration's desk, which exists when the app starts, and build its page."""
        self.first.page, self.first.state = Page(desk, self._build(self.first, desk)), "ready"

    def ask(self, configuration: Configuration) -> None:
        """Start loading a configuration unless it is loading or loaded; its `state` reports the progress."""
        if configuration.state in ("loading", "ready"):
            return
        configuration.state, configuration.says = "loading", "waiting for another configuration"
        configuration.began = time.monotonic()
        task = asyncio.create_task(self._load(configuration))
        self._loading.add(task)  # the loop itself would forget it
        task.add_done_callback(self._loading.discard)

    def take_up_fetches(self) -> None:
        """Load configurations as their downloads complete, and resume an interrupted download.

        Call it on the event loop. Nothing is loaded if only one configuration may be in memory.
        """
        loop = asyncio.get_running_loop()

        def fetched(slug: str) -> None:
            if self.loaded > 1 and not loop.is_closed():
                loop.call_soon_threadsafe(self.ask, self.all[slug])

        self.fetching.done = fetched
        self.fetching.go_on()

    async def start(self, page: Page) -> None:
        """Enter the lifespan of the page's application."""
        await page.running.enter_async_context(page.app.router.lifespan_context(page.app))

    def close(self) -> None:
        """Close all engines, after the server has stopped."""
        for configuration in self.all.values():
            if configuration.page:
                configuration.page.desk.close()

    # ------------------------------------------------------------------------------------------------------ loading

    async def _load(self, configuration: Configuration) -> None:
        # Seen at once by pages that poll.
        report = partial(setattr, configuration, "says")
        try:
            async with self._turn:
                report("reading the configuration")
                # Nothing large is fetched without a click.
                if missing := self.fetching.missing(configuration.slug):
                    raise InputError(f"{configuration.file.name}: {missing}; press Get in the line at the top")
                config = await aside(partial(read, configuration.file))
                await self._make_room()
                if fetchable := self.fetching.all.get(configuration.slug):
                    check_memory(fetchable.manifest)
                desk = await aside(partial(self.open_desk, config, report))
                report("warming up")
                await aside(desk.warm_up)
                report("building its desk")
                page = Page(desk, await aside(partial(self._build, configuration, desk)))
                await self.start(page)
                configuration.page, configuration.state, configuration.says = page, "ready", ""
        except InputError as error:
            log.warning("the configuration %s could not be loaded: %s", configuration.file, error)
            configuration.state, configuration.says = "failed", for_visitors(str(error), configuration.file)
        except Exception as error:
            log.exception("the configuration %s could not be loaded", configuration.file)
            configuration.state = "failed"
            configuration.says = f"{configuration.name}: {type(error).__name__}; the app's log says more"

    def _build(self, configuration: Configuration, desk: Desk) -> FastAPI:
        root = f"{self.root}/{configuration.path}".rstrip("/")
        choices = [Choice(other.name, other.slug, other.path) for other in self.all.values()]
        if len(choices) == 1 or self.loaded == 1:
            choices = []
        raw = peek(configuration.file)
        about = raw.get("about") if isinstance(raw, dict) else None
        fetchables = [other for slug, other in self.fetching.all.items() if slug != configuration.slug]
        offers = [
            replace(other.offer, about=about if isinstance(about, str) else "", opens=self.loaded > 1)
            for other in fetchables
        ]
        if not choices and not offers:
            return self.build_app(desk, None, root)
        home = "../" * configuration.path.count("/") or "./"
        return self.build_app(desk, Menu(choices, configuration.slug, home, offers), root)

    async def _make_room(self) -> None:
        """Close the least recently used idle pages until one more fits.

        Raises:
            InputError: if all other pages are in use.
        """
        while len(there := [other for other in self.all.values() if other.page]) >= self.loaded:
            idle = [other for other in there if other is not self.first and other.page and not other.page.busy]
            if not idle:
                raise InputError(
                    f"{len(there)} configurations are in use, and no more are kept in memory at once; "
                    "try again when their responses are done"
                )
            await self._close(min(idle, key=lambda other: other.page.used if other.page else 0.0))

    async def _close(self, configuration: Configuration) -> None:
        page, configuration.page, configuration.state = configuration.page, None, "closed"
        assert page is not None
        page.closed.set()
        await page.running.aclose()
        # Gradio may hold the page for a while yet.
        await aside(partial(let_go, page.desk))


def let_go(desk: Desk) -> None:
    """Free the models of a desk, which are in reference cycles with their own layers."""
    desk.release()
    gc.collect()


def for_visitors(said: str, file: Path) -> str:
    """Return an error message on one line without this machine's paths.

    Paths become relative to the configuration's folder; of files elsewhere, only the name remains.
    """
    folder = file.resolve().parent
    for up, parent in enumerate((folder, *folder.parents[:-1])):
        said = said.replace(f"{parent}{os.sep}", "../" * up)
    said = re.sub(r"(?<![\w./~])/(?:[\w.~ -]+/)*([\w.~-]+)", r"\1", said)
    return " ".join(said.split())


def read(file: Path) -> Config:
    """Return a configuration that can be loaded now.

    Raises:
        InputError: if it is invalid or needs Hub files that are not available.
    """
    config = load_config(file)
    check_hub(config)
    return config


async def aside(call: Callable[[], T]) -> T:
    """Run a call on a daemon thread and await its result: a long download does not prevent the end of the process."""
    return await on_daemon_thread(call, "mixdesk-loading")


# ------------------------------------------------------------------------------------------------- which there are


def find(first: Path, others: Sequence[Path] = ()) -> list[Path]:
    """Return the files of the menu: the first, the named ones, and the other configurations in the first one's folder.

    A file in that folder that is broken, unreadable or no file at all is left out, whatever it is.

    Raises:
        InputError: if a named file is not a valid configuration.
    """
    named = [load_config(file).file for file in (first, *others)]
    try:
        there = sorted(file for kind in ("*.yaml", "*.yml") for file in named[0].parent.glob(kind))
    except OSError as error:
        log.warning("%s cannot be listed: %s; the menu has the named configurations", named[0].parent, error.strerror)
        there = []
    return list(dict.fromkeys([*named, *filter(looks_like_one, there)]))


def looks_like_one(file: Path) -> bool:
    """Return whether a YAML file is a configuration, valid or not; an invalid one reports its error when chosen."""
    raw = peek(file)
    return isinstance(raw, dict) and {"base", "policies"} <= raw.keys()


def peek(file: Path) -> Any:
    """Return a YAML file's content, or None if it cannot be read or is too large."""
    return peek_yaml(file, LARGEST)


def name_of(file: Path) -> str:
    """Return a configuration's name; its file's stem, with ? for what is no text, if it has none that can be shown."""
    raw = peek(file)
    name = raw.get("name") if isinstance(raw, dict) else None
    try:
        return check_label(name) if isinstance(name, str) else shown_stem(file)
    except ValueError:
        return shown_stem(file)


def shown_stem(file: Path) -> str:
    """Return a file's name without its suffix, as text that a page can have: file names may be any bytes."""
    return file.stem.encode("utf-8", "replace").decode()
