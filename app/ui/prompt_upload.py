"""Prompts from an uploaded file: the upload, the choice of its column, and the menu of prompt sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from app.html import message
from app.ui.mixture_controls import Changes, Values
from app.ui.shortcuts import labelled
from engine import Engine, InputError
from engine.prompt_files import GZ
from engine.prompts import MAX_BYTES, MAX_PROMPTS, ColumnError, PromptSet, read_prompts, uploaded

FIRST_PROMPTS = 24  # so many are asked, unless the form says otherwise
HINT = f"""<p class="hint">JSONL, JSON, CSV, TSV, Parquet or text, also gzipped: a <b>prompt</b> on each line, or in a
column that you choose. Up to {MAX_PROMPTS:,} prompts, UTF-8, {MAX_BYTES // 1_000_000} MB.</p>"""


class PromptUpload:
    """The upload's components and handlers. `file` is the session's uploaded PromptSet, or None."""

    def __init__(self, engine: Engine, prefix: str, more: Callable[[], list[tuple[str, str]]] = list) -> None:
        """Initialise with the configuration's own prompts, if it has any.

        Args:
            engine: The engine.
            prefix: Begins the elements' ids.
            more: Returns further choices of the menu as (label, value).
        """
        self.prefix, self.more = prefix, more
        self.bundled: PromptSet | None = None
        if file := engine.config.prompts:
            every = list(dict.fromkeys(read_prompts(file)))[:MAX_PROMPTS]
            self.bundled = PromptSet(Path(file).name, every, list(range(1, len(every) + 1)))

    def build(self) -> None:
        """Build the components within the current Blocks context."""
        self.prompts = gr.Dropdown(
            self.choices(),
            value="bundled" if self.bundled else None,
            label="Prompts",
            filterable=False,
            elem_id=f"{self.prefix}-prompts",
        )
        self.upload = gr.UploadButton(
            labelled("Upload prompts", f"{self.prefix}-upload"),
            size="sm",
            elem_id=f"{self.prefix}-upload",
            file_count="single",
            type="filepath",
        )
        self.column = gr.Dropdown(
            [], label="Column of the prompts", filterable=False, visible=False, elem_id=f"{self.prefix}-column"
        )
        gr.HTML(HINT)
        self.file: gr.State = gr.State(None)
        self.path: gr.State = gr.State(None)  # where Gradio keeps the file, for another column of it

    def choices(self, file: PromptSet | None = None) -> list[tuple[str, str]]:
        """Return the menu's choices with an uploaded file, or with none."""
        own = [(label_of(found), value) for found, value in ((self.bundled, "bundled"), (file, "file")) if found]
        return own + self.more()

    def chosen(self, values: Values) -> PromptSet:
        """Return the chosen prompts.

        Raises:
            InputError: if there are none.
        """
        prompts = values[self.file] if values[self.prompts] == "file" else self.bundled
        if prompts is None:
            raise InputError("Prompts: there are none yet; upload a file of them.")
        return prompts

    def connect(self, status: gr.HTML) -> None:
        """Register the handlers, which report the file that was read in `status`."""
        self.status = status
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        changed = [self.file, self.path, self.prompts, self.column, status]
        self.upload.upload(self.taking, [self.upload, self.prompts], changed, **quiet)
        self.column.input(self.choosing, [self.column, self.path], changed, **quiet)

    def taking(self, path: str | None, chosen: str | None) -> Changes:
        """Read an uploaded file. Gradio refuses paths outside its upload folder."""
        return self.read(path, None) if path else {}

    def choosing(self, column: str | None, path: str | None) -> Changes:
        """Read another column of the same file; its path comes from server-side state, never from the page."""
        return self.read(path, column) if path and column else {}

    def read(self, path: str, column: str | None) -> Changes:
        """Read a file and return updates with its prompts, a choice of columns, or an error message."""
        name = shown_name(path)
        try:
            prompts = uploaded(name, read_upload(path, MAX_BYTES), column)
        except ColumnError as error:
            return {
                self.path: path,
                self.column: gr.Dropdown(choices=error.columns, value=None, visible=True),
                self.status: message(f"{name}: choose the column that the prompts are in."),
            }
        except (InputError, OSError) as error:
            return {self.status: message(str(error), "bad")}
        twice = f"; {prompts.duplicates} that came twice are left out" if prompts.duplicates else ""
        said = f"{prompts.name}: {len(prompts.prompts)} prompts{twice}."
        return {
            self.file: prompts,
            self.path: path,
            self.prompts: gr.Dropdown(choices=self.choices(prompts), value="file"),
            self.column: gr.Dropdown(
                choices=list(prompts.columns), value=prompts.column or None, visible=len(prompts.columns) > 1
            ),
            self.status: message(said, "good"),
        }


def label_of(prompts: PromptSet) -> str:
    """Return a prompt set's label in the menu."""
    return f"{prompts.name} · {len(prompts.prompts)} prompts"


def shown_name(path: str) -> str:
    """Return an uploaded file's name as it is shown: a long one would push everything else away."""
    given = Path(path)
    ending = "".join(given.suffixes[-2:] if given.suffix.lower() == GZ else given.suffixes[-1:])
    return given.name.removesuffix(ending)[-40:] + ending[-16:]


def read_upload(path: str, most: int) -> bytes:
    """Return the content of an uploaded file, or its first `most` + 1 bytes if it is longer.

    Raises:
        InputError: if Gradio has deleted it.
    """
    try:
        with Path(path).open("rb") as file:
            return file.read(most + 1)
    except FileNotFoundError:
        raise InputError(f"{shown_name(path)} was uploaded too long ago: upload it again.") from None
