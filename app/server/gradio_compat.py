"""Pages built while others are in use."""

from __future__ import annotations

import sys
import threading
from typing import Any

from gradio.context import Context


def of_thread(own: threading.local, name: str, default: Any) -> property:
    """Return a property that has a value of its own in each thread."""
    return property(lambda _: getattr(own, name, default), lambda _, value: setattr(own, name, value))


class Apart(type):
    """Gradio's context with a value of its own in each thread, so that pages can be built side by side."""

    own = threading.local()
    root_block = of_thread(own, "root_block", None)
    block = of_thread(own, "block", None)
    id = of_thread(own, "id", 0)


class ThreadContext(Context, metaclass=Apart):
    """Gradio's Context with the page under construction kept for each thread.

    Gradio has it in class attributes, the same for all threads: while a page is built on one, gr.Button(...) that a
    handler returns on another would be put on that page.
    """


def keep_apart() -> None:
    """From now on any thread may build a page, whatever others do."""
    for name, module in list(sys.modules.items()):
        if name.startswith("gradio.") and vars(module).get("Context") is Context:
            setattr(module, "Context", ThreadContext)  # noqa: B010
