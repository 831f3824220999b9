"""The panels: each with its choice of mixture, its response as tokens, and a caption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import gradio as gr

from app.services.generation_run import RATED, SIDES
from app.services.panel_choice import EXACT, FADERS, POLICY, UNIFORM
from app.ui.shortcuts import labelled
from engine.config import REFERENCE

FIRST = {"left": FADERS, "right": REFERENCE, "third": EXACT, "fourth": UNIFORM}  # what each panel begins with

KEYS = "Left and right: its tokens; Enter on one: what else could have been said there."


@dataclass
class Panels:
    """The panels' components, by panel.

    Attributes:
        mixtures: The choice of mixture.
        responses: The response, whose tokens can be selected.
        captions: The line on how the response was generated.
        open: Hidden text with the open panels, separated by commas.
        replies: The Reply button.
    """

    mixtures: dict[str, gr.Dropdown]
    responses: dict[str, gr.HTML]
    captions: dict[str, gr.HTML]
    open: gr.Textbox
    replies: dict[str, gr.Button]


def build_panels(policies: Mapping[str, str]) -> Panels:
    """Build the panels; the first two are always open, the others can be added and removed.

    Args:
        policies: {name: accent colour}.
    """
    panels = Panels({}, {}, {}, gr.Textbox(",".join(RATED), visible="hidden", label="Open panels"), {})
    with gr.Row(elem_id="tools"):
        trace = gr.Button(labelled("Trace", "trace"), size="sm", elem_id="trace", min_width=80, scale=0)
        gr.HTML(panel_legend(policies), elem_id="legend")
        add = gr.Button(labelled("Add panel", "add-panel"), size="sm", elem_id="add-panel", min_width=110, scale=0)
    trace.click(None, js="() => mixdesk.trace.toggle()")
    add.click(None, [panels.open], [panels.open], js="(open) => mixdesk.panels.add(open)")
    with gr.Row(elem_id="panels"):
        for side in SIDES:
            build_panel(panels, side, policies)
    # The server opens one when a response branches.
    panels.open.change(None, [panels.open], js="(open) => mixdesk.panels.show(open)")
    return panels


def build_panel(panels: Panels, side: str, policies: Mapping[str, str]) -> None:
    """Build one panel and add its components to `panels`."""
    choices = [("Faders", FADERS), ("Faders exact", EXACT), *((name, f"{POLICY}{name}") for name in policies)]
    choices += [("Reference", REFERENCE), ("Uniform", UNIFORM)]
    with gr.Column(elem_id=f"panel-{side}", elem_classes="panel", min_width=200):
        with gr.Row(elem_classes="panel-head"):
            gr.HTML(f'<h2><span class="line {side}"></span>{side.title()}</h2>')
            panels.mixtures[side] = gr.Dropdown(
                choices,
                value=FIRST[side],
                label=f"{side.title()} mixture",
                show_label=False,
                container=False,
                filterable=False,
                elem_id=f"mixture-{side}",
                min_width=100,
            )
            panels.replies[side] = gr.Button(
                labelled("Reply", f"reply-{side}"), size="sm", interactive=False, elem_id=f"reply-{side}",
                elem_classes="reply", min_width=76, scale=0,
            )  # fmt: skip
            if side not in RATED:
                remove = gr.Button(
                    "×", size="sm", elem_id=f"remove-{side}", elem_classes="remove", min_width=30, scale=0
                )
                remove.click(
                    None, [panels.open], [panels.open], js=f"(open) => mixdesk.panels.remove(open, {json.dumps(side)})"
                )
        panels.responses[side] = response(side, policies)
        panels.captions[side] = gr.HTML("", elem_id=f"caption-{side}", elem_classes="caption")


def response(side: str, policies: Mapping[str, str]) -> gr.HTML:
    """Build a response's component, which triggers `select` with a token's index."""
    accents = json.dumps([{"name": name, "colour": colour} for name, colour in policies.items()])
    return gr.HTML(
        None,
        html_template=(
            f'<div class="response" role="group" tabindex="0" '
            f'aria-label="{side.title()} response" aria-description="{KEYS}">'
            '<p class="empty">The response appears here.</p><div class="tokens"></div></div>'
            '<div class="sums"><svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img"></svg><ul></ul></div>'
        ),
        js_on_load=f"mixdesk.trace.panel({json.dumps(side)}, element, {accents}, trigger);",
        apply_default_css=False,
        elem_id=f"response-{side}",
    )


def panel_legend(policies: Mapping[str, str]) -> str:
    """Return the legend of the policies' colours for the trace."""
    parts = "".join(
        f'<span style="--accent:{colour}"><i class="dot"></i>{escape(name)}</span>' for name, colour in policies.items()
    )
    return f'<p class="legend"><b>pushed most by</b>{parts}</p>'
