"""Thread-local Gradio context, so that pages can be built while others are in use."""

from __future__ import annotations

import sys
import threading
from typing import Any

from gradio.context import Context


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
