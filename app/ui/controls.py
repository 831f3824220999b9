"""The desk's input controls, and the components that its handlers update."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.html import fader_head, message, mixture_bar
from app.schemas import conversation
from app.schemas.solo_mute_lock import Channels
from app.ui.balance_menu import BalanceMenu, build_balance_menu
from app.ui.faders import build_channels, build_marks
from app.ui.shortcuts import labelled
from engine import RULES, InputError, Sampling
from engine.config import PolicySettings
from engine.messages import Prompt
from engine.rules.registry import DEFAULT_RULE

FALLBACK_PROMPT = "How do I get a red wine stain out of a white shirt?"
# choice: its button
RATINGS = {
    "left": "Left is better",
    "right": "Right is better",
    "tie": "Tie",
    "both_bad": "Both bad",
}
Changes = dict[Any, Any]
Values = dict[Any, Any]


@dataclass
class Controls:
    """The components whose values a generation reads."""

    prompt: gr.Textbox
    faders: dict[str, gr.Slider]
    channels: gr.Textbox  # Lock, Solo and Mute; unseen
    mixtures: dict[str, gr.Dropdown]  # by side
    panels: gr.Textbox  # the sides that are there
    turns: gr.Textbox  # the conversation before the prompt; unseen
    rule: gr.Dropdown
    exponent: gr.Slider
    gain: gr.Slider
    temperature: gr.Slider
    min_p: gr.Slider
    max_new_tokens: gr.Slider
    seed: gr.Textbox
    new_seed: gr.Checkbox
    gathered: gr.Textbox  # what all of them have, as JSON; unseen

    def all(self) -> list[Any]:
        """Return the components in the order in which `gather` collects their values."""
        return [
            self.prompt,
            *self.faders.values(),
            *self.mixtures.values(),
            self.channels,
            self.panels,
            self.turns,
            self.rule,
            self.exponent,
            self.gain,
            self.temperature,
            self.min_p,
            self.max_new_tokens,
            self.seed,
            self.new_seed,
        ]

    def gather(self, event: Callable[..., Any], first: str = "") -> Any:
        """Collect all values into `gathered` on an event, and return the dependency for a handler attached by `.then`.

        Gradio's page copies every component that an event has read whenever a later event updates its status; one
        gathered value avoids that.

        Args:
            event: The component's event, such as `button.click`.
            first: JavaScript statements to run before.
        """
        return event(
            None, self.all(), [self.gathered], js=f"(...values) => {{ {first} return JSON.stringify(values); }}"
        )

    def read(self, gathered: str) -> Values:
        """Return the values at the time they were gathered, by component.

        Raises:
            InputError: if they cannot be parsed.
        """
        try:
            values = dict(zip(self.all(), json.loads(gathered), strict=True))
        except (TypeError, ValueError):
            raise InputError("The page's settings cannot be read: load it again.") from None
        return {component: component.preprocess(value) for component, value in values.items()}

    def mixing(self) -> list[Any]:
        """Return the components that define the faders' mixture, for Undo, saved mixtures and links."""
        return [*self.faders.values(), self.channels, self.rule, self.gain, self.exponent]

    def choices(self, values: Values) -> dict[str, str]:
        """Return {panel: its choice} of the open panels."""
        there = values[self.panels].split(",")
        return {panel: values[choice] for panel, choice in self.mixtures.items() if panel in there}

    def weights(self, values: Values) -> dict[str, float]:
        """Return the faders' weights after Lock, Solo and Mute; all zero if every policy is silent.

        Raises:
            InputError: if Lock, Solo and Mute cannot be parsed.
        """
        faders = {name: float(values[fader]) for name, fader in self.faders.items()}
        return Channels.parse(values[self.channels]).weights(faders)

    def heard(self, values: Values) -> dict[str, float]:
        """Return `weights`, at least one of which is above zero.

        Raises:
            InputError: if all are zero, or they cannot be parsed.
        """
        weights = self.weights(values)
        if any(weights.values()):
            return weights
        if any(values[fader] for fader in self.faders.values()):
            raise InputError("No policy is heard: raise a fader that is not silent, or release Solo and Mute.")
        raise InputError("All faders are at zero: raise at least one, or press Even.")

    def asked(self, values: Values) -> Prompt:
        """Return the prompt with the conversation before it.

        Raises:
            InputError: if the conversation is malformed, or the prompt is empty within one.
        """
        return conversation.question_turns(conversation.parse(values[self.turns]), values[self.prompt] or "")

    def sampling(self, values: Values) -> Sampling:
        """Return the sampling settings.

        Raises:
            InputError: if a setting is out of range.
        """
        return Sampling(
            max_new_tokens=int(values[self.max_new_tokens]),
            temperature=float(values[self.temperature]),
            min_p=float(values[self.min_p]),
        )


@dataclass
class Steering:
    """The desk's components that other tabs update or read: faders, mixture settings, status line and tabs."""

    faders: dict[str, gr.Slider]
    channels: gr.Textbox
    mixing: dict[str, Any]  # rule, gain, exponent
    status: gr.HTML
    tabs: gr.Tabs


@dataclass
class Outputs:
    """The components that a generation or a rating updates.

    `run` holds `Run.stage`; when it changes, static/js/text.js requests the run's text.
    """

    run: gr.Textbox
    captions: dict[str, gr.HTML]  # by side
    radar: gr.HTML
    table: gr.HTML
    status: gr.HTML
    drawer: gr.HTML
    generate: gr.Button
    balance: gr.Button
    stop: gr.Button
    ratings: dict[str, gr.Button]  # by choice
    replies: dict[str, gr.Button]  # by side
    turning: list[gr.Button]  # Back and New conversation

    def all(self) -> list[Any]:
        """Return all components."""
        return [
            self.run,
            *self.captions.values(),
            self.radar,
            self.table,
            self.status,
            self.drawer,
            self.generate,
            self.balance,
            self.stop,
            *self.ratings.values(),
            *self.replies.values(),
            *self.turning,
        ]

    def buttons(self, running: bool, rateable: bool, answered: Collection[str] = ()) -> Changes:
        """Return updates that enable or disable the buttons; `answered` lists the panels that can be replied to."""
        changes = {button: gr.Button(interactive=rateable) for button in self.ratings.values()}
        changes |= {button: gr.Button(interactive=side in answered) for side, button in self.replies.items()}
        changes |= {button: gr.Button(interactive=not running) for button in self.turning}
        return {
            self.generate: gr.Button(interactive=not running),
            self.balance: gr.Button(interactive=not running),
            self.stop: gr.Button(interactive=running),
            **changes,
        }

    def say(self, text: str, kind: str = "info") -> Changes:
        """Return an update of the status line; `kind` is info, good or bad."""
        return {self.status: message(text, kind)}


def build_faders(
    policies: list[PolicySettings], colours: list[str], objectives: list[str]
) -> tuple[dict[str, gr.Slider], gr.Textbox, BalanceMenu]:
    """Build one fader per policy with its share of the mixture, which the browser computes.

    Returns:
        {policy: fader}, the hidden text with Lock, Solo and Mute, and the Balance menu.
    """
    with gr.Row(elem_classes="heading"):
        gr.HTML("<h2>Faders</h2>")
        even = gr.Button(labelled("Even", "even"), size="sm", elem_id="even", min_width=70, scale=0)
        balance = gr.Button(labelled("Balance", "balance"), size="sm", elem_id="balance", min_width=90, scale=0)
    menu = build_balance_menu(balance, objectives)
    gr.HTML(mixture_bar(colours))
    faders, marks = {}, []
    for i, policy in enumerate(policies):
        with gr.Column(elem_classes=["fader", f"accent-{i}"]):
            with gr.Row(elem_classes="fader-row"):
                gr.HTML(fader_head(i, policy.name, colours[i], 1 / len(policies)))
                marks.append(build_marks(i))
            faders[policy.name] = gr.Slider(
                0, 1, 0.5, step=0.01, label=policy.name, show_label=False, container=False,
                interactive=True, buttons=[], elem_id=f"fader-{i}",
            )  # fmt: skip
    moved = list(faders.values())
    channels = build_channels(moved, marks)
    even.click(None, [*moved, channels], moved, js="(...now) => mixdesk.mixer.even(now)")
    return faders, channels, menu


def build_more(longest: int) -> dict[str, Any]:
    """Build the advanced settings; `longest` is the maximum of max new tokens."""
    with gr.Accordion(labelled("More", "more"), open=False, elem_id="more"):
        rule = gr.Dropdown(list(RULES), value=DEFAULT_RULE, label="Rule", filterable=False)
        exponent = gr.Slider(
            -5,
            5,
            1,
            step=0.1,
            label="Exponent (1 adds, 0 multiplies)",
            buttons=[],
            visible=False,
            elem_id="exponent",
        )
        gain = gr.Slider(0, 4, 1, step=0.1, label="Gain (1 is the mixture)", buttons=[], elem_id="gain")
        temperature = gr.Slider(
            0, 2, 0.7, step=0.05, label="Temperature (0 is greedy)", buttons=[], elem_id="temperature"
        )
        min_p = gr.Slider(0, 0.5, 0.1, step=0.01, label="Min-p (0 is off)", buttons=[], elem_id="min-p")
        length = gr.Slider(
            1, longest, min(160, longest), step=1, precision=0, label="Max new tokens", buttons=[], elem_id="length"
        )
        seed = gr.Textbox("1", label="Seed (other panels take the next)", elem_id="seed")
        fresh = gr.Checkbox(True, label="New seed each time", elem_id="new-seed")
    powers = json.dumps([name for name, one in RULES.items() if one.takes_exponent])
    shows = f"(rule) => ({{__type__: 'update', visible: {powers}.includes(rule)}})"
    rule.change(None, [rule], [exponent], js=shows)
    return {
        "rule": rule, "exponent": exponent, "gain": gain, "temperature": temperature, "min_p": min_p,
        "max_new_tokens": length, "seed": seed, "new_seed": fresh,
    }  # fmt: skip


def build_prompt(examples: list[str]) -> tuple[gr.Textbox, gr.Button, gr.Button]:
    """Build the prompt with its examples; return the prompt, Generate and Stop."""
    first = examples[0] if examples else FALLBACK_PROMPT
    with gr.Row(elem_id="ask", equal_height=True):
        prompt = gr.Textbox(
            first, label="Prompt", lines=2, max_lines=2, elem_id="prompt", scale=5, placeholder="Ask something"
        )
        with gr.Column(elem_id="go", min_width=200, scale=0):
            generate = gr.Button(labelled("Generate", "generate"), variant="primary", elem_id="generate", min_width=120)
            stop = gr.Button(labelled("Stop", "stop"), interactive=False, elem_id="stop", min_width=120)
    if examples:
        with gr.Row(elem_id="examples"):
            for text in examples:
                chip = gr.Button(text, size="sm", elem_classes="chip", min_width=60)
                chip.click(None, outputs=[prompt], js=f"() => {json.dumps(text)}")
    return prompt, generate, stop


def whole_number(text: str | None) -> int:
    """Parse a typed seed.

    Raises:
        InputError: if it is not a whole number.
    """
    try:
        return int((text or "").strip())
    except ValueError:
        found = (text or "nothing").strip()[:40]
        raise InputError(f"seed: found '{found}'; give a whole number, 0 or more, or tick New seed each time") from None
