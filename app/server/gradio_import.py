"""Importing Gradio in half the time."""

from __future__ import annotations

import inspect
from typing import Any


def import_gradio() -> None:
    """Import Gradio without the stub files (.pyi) that it writes for editors.

    Gradio parses the source of each of its components as their classes are made, which is half of its import. It
    leaves out a class whose file `inspect.getfile` does not find.
    """
    getfile = inspect.getfile

    def getfile_outside_gradio(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError(f"the source of {thing.__qualname__} is not needed")
        return getfile(thing)

    inspect.getfile = getfile_outside_gradio  # type: ignore[assignment]
    try:
        import gradio  # noqa: F401
    finally:
        inspect.getfile = getfile
