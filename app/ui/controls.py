"""The desk's input controls, and the components that its handlers update."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.html import fader_head, message, mixture_bar
from app.schemas import conversation
from app.schemas.desk_state import UNREADABLE, DeskState, read_state
from app.services.generation_run import RATED
from app.ui.balance_menu import BalanceMenu, build_balance_menu
from app.ui.faders import build_channels, build_marks
from app.ui.mixture_controls import Changes, MixtureControls, Path, check_range
from app.ui.shortcuts import labelled
from engine import RULES, InputError
from engine.config import PolicySettings
from engine.rules.registry import DEFAULT_RULE

FALLBACK_PROMPT = "How do I get a red wine stain out of a white shirt?"
# choice: its button
RATINGS = {
    "left": "Left is better",
    "right": "Right is better",
    "tie": "Tie",
    "both_bad": "Both bad",
}


@dataclass
class Controls:
    """The components whose values a generation reads."""

    prompt: gr.Textbox
    mixture: MixtureControls
    mixtures: dict[str, gr.Dropdown]  # by side
    panels: gr.Textbox  # the open sides
    turns: gr.Textbox  # the conversation before the prompt; unseen
    sampling: dict[str, gr.Slider]  # temperature, min_p, max_new_tokens
    stop: gr.Textbox  # the stop strings
    seed: gr.Textbox
    new_seed: gr.Checkbox
    gathered: gr.Textbox  # the state of all of them, as JSON; unseen

    def by_path(self) -> dict[Path, Any]:
        """Return {path in a `DeskState`: component}; `open` has the open panels, and `panels` the closed ones too."""
        return {
            ("prompt",): self.prompt,
            ("turns",): self.turns,
            **{("mixture", *path): component for path, component in self.mixture.by_path().items()},
            **{("panels", side): choice for side, choice in self.mixtures.items()},
            ("open",): self.panels,
            **{("sampling", name): slider for name, slider in self.sampling.items()},
            ("stop",): self.stop,
            ("seed",): self.seed,
            ("new_seed",): self.new_seed,
        }

    def components(self) -> list[Any]:
        """Return the components in the order of `by_path`."""
        return list(self.by_path().values())

    def gather(self, event: Callable[..., Any], before: str = "") -> Any:
        """Write the state into `gathered` as JSON on an event; return the dependency, for a handler added with `.then`.

        Gradio's page copies every component that an event has read whenever a later event updates its status; one
        gathered value avoids that.

        Args:
            event: The component's event, such as `button.click`.
            before: JavaScript statements to run before.
        """
        paths = json.dumps(list(self.by_path()))
        script = f"(...values) => {{ {before} return JSON.stringify(mixdesk.state.deskState({paths}, values)); }}"
        return event(None, self.components(), [self.gathered], js=script)

    def read(self, gathered: str) -> DeskState:
        """Return the state at the time when it was gathered.

        Raises:
            InputError: if it is malformed or out of range.
        """
        state = self.checked(read_state(gathered))
        if not state.panels or set(self.sampling) - set(state.sampling):
            raise InputError(UNREADABLE)
        return state

    def checked(self, state: DeskState, of: str = "") -> DeskState:
        """Return a state with all of this desk's policies, and without panels that it does not have.

        Args:
            state: A state.
            of: What it is of, which begins the message: "link: ".

        Raises:
            InputError: if it does not fit this desk.
        """
        panels = {side: choice for side, choice in state.panels.items() if side in self.mixtures}
        for side, choice in panels.items():
            if choice not in [value for _, value in self.mixtures[side].choices]:
                raise InputError(f"{of}this desk has no mixture “{choice[:40]}” for its {side} panel.")
        for name, slider in self.sampling.items():
            if name in state.sampling:
                check_range(slider, state.sampling[name], f"{of}{slider.label}")
        return state.model_copy(update={"mixture": self.mixture.checked(state.mixture, of), "panels": panels})

    def changes(self, state: DeskState) -> Changes:
        """Return updates that set the components to a checked state; settings that it lacks stay."""
        opened = [side for side in self.mixtures if side in state.panels or side in RATED]
        return {
            **self.mixture.changes(state.mixture),
            **{choice: state.panels.get(side, choice.value) for side, choice in self.mixtures.items()},
            self.panels: ",".join(opened),
            **{slider: state.sampling[name] for name, slider in self.sampling.items() if name in state.sampling},
            self.turns: conversation.dump(state.turns),
            self.prompt: state.prompt,
            self.stop: state.stop,
            self.seed: state.seed,
            self.new_seed: state.new_seed,
        }


@dataclass
class Steering:
    """The desk's components that other tabs update or read: the mixture's, the status line and the tabs."""

    mixture: MixtureControls
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


@dataclass
class More:
    """The advanced settings; the fields are as in `Controls` and `MixtureControls`."""

    rule: gr.Dropdown
    gain: gr.Slider
    exponent: gr.Slider
    sampling: dict[str, gr.Slider]
    stop: gr.Textbox
    seed: gr.Textbox
    new_seed: gr.Checkbox


def build_more(longest: int) -> More:
    """Build the advanced settings; `longest` is the maximum of max new tokens."""
    with gr.Accordion(labelled("More", "more"), open=False, elem_id="more"):
        rule = gr.Dropdown(list(RULES), value=DEFAULT_RULE, label="Rule", filterable=False, elem_id="rule")
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
        stop = gr.Textbox(
            "",
            label="Stop at",
            lines=2,
            max_lines=4,
            elem_id="stop-at",
            placeholder="A text a line; \\n is a new line",
        )
        seed = gr.Textbox("1", label="Seed (other panels take the next)", elem_id="seed")
        fresh = gr.Checkbox(True, label="New seed each time", elem_id="new-seed")
    powers = json.dumps([name for name, one in RULES.items() if one.takes_exponent])
    shows = f"(rule) => ({{__type__: 'update', visible: {powers}.includes(rule)}})"
    rule.change(None, [rule], [exponent], js=shows)
    sampling = {"temperature": temperature, "min_p": min_p, "max_new_tokens": length}
    return More(rule, gain, exponent, sampling, stop, seed, fresh)


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
