"""What relies on Gradio's internals: a context for each thread, quiet ends, the page's scripts, unread messages."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Container
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import gradio.queueing
import gradio.routes
import gradio.state_holder
from fastapi import FastAPI
from gradio.context import Context
from gradio.state_holder import SessionState
from jinja2 import BaseLoader, Environment, TemplateNotFound

PAGE = "frontend/index.html"
GRADIO = '<script type="module"'  # where Gradio's own begin, in its page
MAX_UNREAD = 500  # messages of a session
ABANDONED = 60.0  # seconds


def of_thread(own: threading.local, name: str, default: Any) -> property:
    """Return a property that stores its value in `own`, separately for each thread."""
    return property(lambda _: getattr(own, name, default), lambda _, value: setattr(own, name, value))


class Apart(type):
    """Metaclass that makes the context's class attributes thread-local."""

    own = threading.local()
    root_block = of_thread(own, "root_block", None)
    block = of_thread(own, "block", None)
    id = of_thread(own, "id", 0)


class ThreadContext(Context, metaclass=Apart):
    """Gradio's Context, with the page under construction stored per thread.

    Gradio stores it in class attributes shared by all threads: while one thread builds a page, a gr.Button(...) that a
    handler returns on another thread would be added to that page.
    """


def keep_apart() -> None:
    """Replace Gradio's Context by `ThreadContext` in all its modules, so that any thread can build a page."""
    for name, module in list(sys.modules.items()):
        if name.startswith("gradio.") and vars(module).get("Context") is Context:
            setattr(module, "Context", ThreadContext)  # noqa: B010


class SmallSession(SessionState):
    """Gradio's state of a session, without a copy of the settings of all components.

    Gradio keeps that copy, half a megabyte, for deep links, which the page does not have.
    """

    def __init__(self, blocks: Any) -> None:
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks=()))  # type: ignore[arg-type]


def keep_less() -> None:
    """Replace Gradio's state of a session by `SmallSession`."""
    gradio.state_holder.SessionState = SmallSession  # type: ignore[misc]


class QuietTraceback:
    """The module `traceback` as Gradio uses it, without the tracebacks of handlers that the server's end has cancelled.

    Gradio prints one for each, although to be cut off is no error.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)

    @staticmethod
    def print_exc() -> None:
        """Print the exception that is being handled, unless it is a cancellation."""
        if not isinstance(sys.exc_info()[1], asyncio.CancelledError):
            traceback.print_exc()


def print_less() -> None:
    """Let Gradio print its handlers' tracebacks through `QuietTraceback`."""
    for module in (gradio.routes, gradio.queueing):
        module.traceback = QuietTraceback()  # type: ignore[attr-defined]


class PageLoader(BaseLoader):
    """Gradio's templates, with the page's scripts in front of Gradio's.

    `mount_gradio_app(head=...)` would add them when Gradio has begun, and wait for no module: the first handlers could
    run before the functions that they call are there. Modules in the page itself run in their order.
    """

    def __init__(self, loader: BaseLoader, tags: Callable[[], str]) -> None:
        """loader: Gradio's; tags: returns the HTML to put in front of Gradio's scripts."""
        self.loader, self.tags = loader, tags

    def get_source(self, environment: Environment, template: str) -> Any:
        source, filename, uptodate = self.loader.get_source(environment, template)
        if template == PAGE:
            before, gradio_tag, after = source.partition(GRADIO)
            if not gradio_tag:
                raise TemplateNotFound(template, f"{template} of this version of Gradio has no {GRADIO}")
            source = f"{before}{{% raw %}}{self.tags()}{{% endraw %}}{gradio_tag}{after}"
        return source, filename, uptodate


def load_before_gradio(tags: Callable[[], str]) -> None:
    """Put HTML in front of Gradio's scripts in every page of this process. tags: returns the HTML."""
    environment = gradio.routes.templates.env
    if not isinstance(environment.loader, PageLoader):
        assert environment.loader is not None
        environment.loader = PageLoader(environment.loader, tags)


def forget_unread(app: FastAPI) -> None:
    """Drop the messages of sessions that do not read them, of all pages that are mounted in an application.

    Gradio keeps the results of a session's events until its page fetches them, however many there are.
    """
    for page in pages_of(app):
        for messages in list(page.blocks._queue.pending_messages_per_session.values()):
            if messages.qsize() > MAX_UNREAD:
                while not messages.empty():
                    messages.get_nowait()


def forget_abandoned(app: FastAPI, open_sessions: Container[str]) -> int:
    """Drop the state and messages of sessions that have no open page and have done nothing for `ABANDONED` seconds.

    Gradio deletes the state of a session after its page is closed; a client that
    never opened the page's heartbeat has none that could be closed.

    Args:
        app: The application in which the pages are mounted.
        open_sessions: Gradio's hashes of the sessions whose page is open.

    Returns:
        The number of sessions that were dropped.
    """
    dropped = 0
    oldest = datetime.now() - timedelta(seconds=ABANDONED)
    for page in pages_of(app):
        queue, states = page.blocks._queue, page.state_holder
        waiting = [event for events in queue.event_queue_per_concurrency_id.values() for event in events.queue]
        handled = [event for events in queue.active_jobs if events for event in events]
        busy = {event.session_hash for event in [*waiting, *handled]}
        for session, used in list(states.time_last_used.items()):
            if used < oldest and session not in open_sessions and session not in busy:
                states.session_data.pop(session, None)
                states.time_last_used.pop(session, None)
                queue.pending_messages_per_session.pop(session, None)
                queue.pending_event_ids_session.pop(session, None)
                dropped += 1
    return dropped


def pages_of(app: FastAPI) -> list[Any]:
    """Return Gradio's applications that are mounted in an application."""
    apps = [getattr(route, "app", None) for route in app.routes]
    return [page for page in apps if getattr(page, "blocks", None) is not None]
