"""The token inspector: alternatives at a token's position, under its own mixture and under the faders' current one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from app.format import in_short
from app.services.response_reader import Response
from app.ui.shortcuts import labelled
from engine import InputError, Mixture
from engine.config import REFERENCE
from engine.inference.top_logprobs import TopLogprobs
from engine.models.policy_set import PolicySet

EACH, MIXED, ROWS = 3, 8, 14  # tokens shown: of each policy, of the mixture as it was, at most
HINT = (
    "Before temperature and min-p. “Now” follows the faders; what is not kept of a distribution is mixed as one token, "
    "so it may be a little higher than shown, never by more than the last row."
)


def build_drawer() -> tuple[gr.HTML, gr.Button, gr.Button]:
    """Build the inspector; return its view (with values of `token_table`), Continue and Close."""
    with gr.Column(elem_id="drawer", min_width=280):
        view = gr.HTML(
            None,
            html_template='<div class="drawer" role="region" aria-label="What else could have been said"></div>',
            js_on_load=(
                "const draw = () => mixdesk.drawer.draw(element, props.value); watch('value', draw); draw();"
                " mixdesk.steer.drawer = (value) => { props.value = value; draw(); };"
            ),
            apply_default_css=False,
            elem_id="top-logprobs",
        )
        with gr.Row(elem_id="drawer-buttons"):
            go_on = gr.Button(
                labelled("Continue from here with these weights", "continue"), elem_id="continue", variant="primary"
            )
            close = gr.Button(labelled("Close", "close-drawer"), elem_id="close-drawer", scale=0, min_width=100)
    return view, go_on, close


def token_table(
    title: str,
    response: Response,
    place: int,
    now: Mixture | None,
    colours: Mapping[str, str],
    policy_set: PolicySet,
) -> dict[str, Any]:
    """Return the inspector's value for a token.

    Args:
        title: Heading.
        response: The response.
        place: Index of the token.
        now: The faders' mixture, or None if all are zero.
        colours: {policy: accent colour}.
        policy_set: Decodes the tokens.

    Raises:
        InputError: if there is no such token, or its alternatives were not stored.
    """
    if not 0 <= place < len(response.top_logprobs):
        raise InputError("There is no such token any more: click another.")
    top_logprobs = response.top_logprobs[place]
    if top_logprobs is None:
        raise InputError("Nothing is kept of what else could have been said here.")
    was = top_logprobs.under(top_logprobs.mixture)
    known = [name for name in (REFERENCE, *colours) if name in top_logprobs.policies]
    columns: list[dict[str, Any]] = [
        {"name": "was", "values": was, "hint": in_short(top_logprobs.mixture)},
        {"name": "now", **mixed_rows(top_logprobs, now)},
        *({"name": name, "colour": colours.get(name), "values": top_logprobs.of(name)} for name in known),
    ]
    rows = chosen_token(top_logprobs, known, was)
    for column in columns:
        values = column["values"]
        column["values"] = [None if not values else values[row] for row in rows]
        # Whatever is not listed.
        column["rest"] = None if not values else max(0.0, 1 - sum(values[row] for row in rows))
    texts = policy_set.spell([top_logprobs.ids[row] for row in rows])
    return {
        "title": title,
        "place": place,
        "columns": columns,
        "tokens": [{"text": text, "drawn": row == 0} for row, text in zip(rows, texts, strict=True)],
        "hint": HINT,
    }


def mixed_rows(top_logprobs: TopLogprobs, now: Mixture | None) -> dict[str, Any]:
    """Return the column of the faders' current mixture, or the reason that there is none."""
    if now is None:
        return {"values": [], "hint": "all faders are at zero"}
    try:
        return {"values": top_logprobs.under(now), "hint": in_short(now)}
    except InputError as error:
        return {"values": [], "hint": str(error)}


def chosen_token(top_logprobs: TopLogprobs, policies: list[str], was: list[float]) -> list[int]:
    """Return the rows of the top_logprobs to show, by probability under the original mixture.

    The order does not depend on the faders, so that rows stay in place when they move.
    """
    wanted = dict.fromkeys([0, *best(was[:-1], MIXED)])
    for rank in range(EACH):
        for name in policies:
            wanted |= dict.fromkeys(best(top_logprobs.of(name)[:-1], rank + 1)[rank:])
    return sorted(list(wanted)[:ROWS], key=lambda row: -was[row])


def best(values: list[float], count: int) -> list[int]:
    """Return the indices of the `count` largest values, the largest first."""
    return sorted(range(len(values)), key=lambda i: -values[i])[:count]
