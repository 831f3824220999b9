"""The people of a study: invitations, the link of each shown once, and the annotators."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.charts import study_view
from app.html import message
from app.schemas.study import StudyState
from app.services.app_state import Desk
from app.services.studies import annotator_path
from app.services.study_form import NUMBERS, parse_whole
from app.services.visitor import Visitor
from app.ui.mixture_controls import Changes, Values
from app.ui.owner_only import acted, owner_only

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


class StudyPeoplePart:
    """The components and their handlers. `study` holds the id of the study that is shown."""

    def __init__(self, desk: Desk, study: gr.Radio, home: str) -> None:
        self.desk, self.studies, self.study, self.home = desk, desk.studies, study, home

    def build(self) -> None:
        """Build the components within the current Blocks context."""
        with gr.Accordion("People", open=False, elem_id="study-people") as self.part:
            with gr.Row(elem_id="study-invite-row", elem_classes="study-row") as self.inviting:
                self.name = gr.Textbox(
                    label="Invite", placeholder="name, or empty", max_lines=1, elem_id="study-invite-name"
                )
                self.most = gr.Textbox(
                    label="Most pairs", placeholder="as all", max_lines=1, elem_id="study-invite-most", min_width=90
                )
                self.invite = gr.Button(
                    "Make a link", size="sm", elem_id="study-invite", min_width=110, scale=0
                )  # fmt: skip
            self.link = gr.HTML(
                None,
                html_template='<div class="invitation" role="status" aria-live="polite"></div>',
                js_on_load="const show = () => mixdesk.annotate.invitation(element, props.value);"
                "watch('value', show); show();",
                elem_id="study-link",
            )
            self.invitations = gr.HTML(
                "",
                js_on_load="element.addEventListener('click', (event) => mixdesk.annotate.act(event, trigger));",
                elem_id="study-invitations",
            )
            self.annotators = gr.HTML("", elem_id="study-annotators")

    def outputs(self) -> list[Any]:
        """Return the components that `shown` updates."""
        return [self.part, self.inviting, self.link, self.invitations, self.annotators]

    def connect(self, status: gr.HTML) -> None:
        """Register the handlers, which report in `status`."""
        self.status = status
        # Here, and not in what is shown and hidden: Gradio would show it with the rest.
        self.acted = gr.Textbox(visible="hidden", label="Revoked invitation")
        gr.on(
            [self.invite.click, self.name.submit],
            owner_only(self.making, status),
            {self.study, self.name, self.most},
            [self.name, self.link, self.invitations, status],
            **QUIET,
        )
        self.invitations.select(
            owner_only(self.revoking, status),
            {self.study, self.acted},
            [self.link, self.invitations, status],
            js="(study, _) => [study, mixdesk.annotate.acted()]",
            **QUIET,
        )

    def making(self, values: Values, _: Visitor) -> Changes:
        """Make an invitation and show its link, this once."""
        study, name = values[self.study], (values[self.name] or "").strip()
        path = self.studies.invite(study, name, parse_whole(values[self.most], *NUMBERS["most"]))
        said = f"The link of {name or 'the invitation'} is shown only now: copy it, and send it to one person."
        return {
            self.name: "",
            self.link: {"path": self.home + path, "label": f"Link of {name or 'the invitation'}"},
            self.invitations: self.listed(study),
            self.status: message(said),
        }

    def revoking(self, values: Values, _: Visitor) -> Changes:
        """Revoke an invitation."""
        act, invitation = acted(values[self.acted])
        known = {one.id for one in self.studies.tables.invitations(values[self.study])}
        if act != "revoke" or invitation not in known:
            return {}
        self.studies.tables.revoke(invitation)
        said = message("Revoked: the link lets nobody in any more. Ratings that came by it stay.", "good")
        return {self.link: None, self.invitations: self.listed(values[self.study]), self.status: said}

    def listed(self, study: str) -> str:
        """Return the invitations as HTML."""
        return study_view.invitations_table(self.studies.tables.invitations(study))

    def counted(self, study: str) -> Changes:
        """Return updates of the annotators' numbers."""
        return {self.annotators: study_view.annotators_table(self.studies.tables.annotators(study))}

    def shown(self, study: str) -> Changes:
        """Return updates that show a study's people, and where others may join, the address for them."""
        entry, settings = self.studies.tables.entry(study), self.studies.tables.settings(study)
        without_invitation = settings.anonymous or (settings.sign_in and self.desk.sign_in)
        joinable = without_invitation and entry.state is not StudyState.CLOSED
        address = {"path": self.home + annotator_path(study), "label": "Address for people without an invitation"}
        return {
            self.part: gr.Accordion(open=entry.state is not StudyState.DRAFT),
            self.inviting: gr.Row(visible=entry.state is not StudyState.CLOSED),
            self.link: address if joinable else None,
            self.invitations: self.listed(study),
            **self.counted(study),
        }
