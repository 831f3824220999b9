"""What relies on Gradio's internals: a context for each thread, scripts in front of Gradio's own, unread messages."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import gradio.routes
from fastapi import FastAPI
from gradio.context import Context
from jinja2 import BaseLoader, Environment, TemplateNotFound

PAGE = "frontend/index.html"
GRADIO = '<script type="module"'  # where Gradio's own begin, in its page
MAX_UNREAD = 500  # messages of a session


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
    for route in app.routes:
        blocks = getattr(getattr(route, "app", None), "blocks", None)
        if blocks is None:
            continue
        for messages in list(blocks._queue.pending_messages_per_session.values()):
            if messages.qsize() > MAX_UNREAD:
                while not messages.empty():
                    messages.get_nowait()
