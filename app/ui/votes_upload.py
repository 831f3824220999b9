"""Import of a file of votes that were made elsewhere, from the Annotate tab."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from app.charts.study_view import counted
from app.html import message
from app.services.app_state import Desk
from app.services.visitor import Visitor
from app.storage.import_votes import MAX_UPLOAD, import_upload
from app.ui.mixture_controls import Changes, Values
from app.ui.owner_only import owner_only
from app.ui.prompt_upload import shown_name
from engine import InputError

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
HINT = f"""<p class="hint">CSV, TSV, JSONL, JSON or Parquet, also gzipped, up to {MAX_UPLOAD // 1_000_000} MB, with one
vote a row: <b>prompt</b> or <b>item</b>, <b>left</b>, <b>right</b> (or <b>model_a</b>, <b>model_b</b>), <b>winner</b>
(left, right, tie or both_bad) and <b>annotator</b>. The votes become a closed study, which Results shows. For other
names of columns, use <b>python -m app import</b>.</p>"""
READING = "Reading the votes…"


class VotesUpload:
    """The components and their handler."""

    def __init__(self, desk: Desk, show: Callable[[str | None], Changes]) -> None:
        """Initialise; `show` returns updates of the list and of a study."""
        self.desk, self.show = desk, show

    def build(self) -> None:
        """Build the components within the current Blocks context."""
        with gr.Accordion("Import votes", open=False, elem_id="study-import-part") as self.part:
            with gr.Row(elem_classes="study-row"):
                self.name = gr.Textbox(
                    label="Name of the imported study", placeholder="empty for the file's name", max_lines=1,
                    elem_id="study-import-name",
                )  # fmt: skip
                self.upload = gr.UploadButton(
                    "Upload votes", size="sm", elem_id="study-import", type="filepath", min_width=150, scale=0
                )
            gr.HTML(HINT)

    def connect(self, status: gr.HTML, view: list[Any]) -> None:
        """Register the handlers, which report in `status`. view: what `show` updates."""
        self.status = status
        self.upload.upload(None, None, [status], js=f"() => {json.dumps(message(READING))}", **QUIET)
        inputs: set[Any] = {self.upload, self.name}
        self.upload.upload(owner_only(self.importing, status), inputs, [*view, self.name], **QUIET)

    def importing(self, values: Values, _: Visitor) -> Changes:
        """Import the uploaded file and show the study that it has become."""
        path = values[self.upload]
        if not path:
            raise InputError("Votes: there is no file; upload one.")
        imported = import_upload(self.desk.store, path, values[self.name] or "", shown_name(path))
        said = (
            f"Imported {counted(imported.votes, 'vote')} by {counted(imported.annotators, 'annotator')} on "
            f"{counted(imported.items, 'pair')} of responses by {counted(imported.systems, 'system')}."
        )
        return {**self.show(imported.study_id), self.name: "", self.status: message(said, "good")}
