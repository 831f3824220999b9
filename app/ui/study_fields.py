"""The form of a study: what annotators are asked, how often, and who they may be."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from app.html import message
from app.schemas.study import Example, ItemKind
from app.services.guidelines import guidelines_html
from app.services.studies import MAX_EXAMPLES
from app.services.study_examples import MAX_EXAMPLE_BYTES, read_examples
from app.services.study_form import GOLD_EVERY, OVERALL_TEXT, StudyForm, objective_question
from app.services.visitor import Visitor
from app.ui.mixture_controls import Changes, Values
from app.ui.owner_only import owner_only
from app.ui.prompt_upload import read_upload, shown_name

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
PAIRINGS = [
    ("All pairs of mixtures", "all"),
    ("Each against the first", "first"),
    ("Where the ranking is least sure", "uncertain"),
]
EXAMPLES_HINT = """<p class="hint">JSONL or CSV with <b>prompt</b>, <b>first</b>, <b>second</b>, <b>expected</b>
(first, second, tie or both_bad; several as first|tie) and <b>feedback</b>. Pairs of this study can be added when its
responses are there.</p>"""
GUIDELINES = "Read the prompt and both responses before you choose."
# The form of a new study.
BLANK = StudyForm(
    name="",
    guidelines=GUIDELINES,
    numbers={"wanted": "3", "training_percent": "80", "gold_every": str(GOLD_EVERY)},
)


class StudyFields:
    """The components of the settings, apart from prompts, mixtures and sampling."""

    def __init__(self, objectives: list[str], sign_in: bool) -> None:
        """Initialise.

        Args:
            objectives: What can be asked about.
            sign_in: Whether people can sign in here; it is not offered otherwise.
        """
        self.objectives = objectives
        self.ways_in = [("Anybody with the study's address", "anonymous")]
        if sign_in:
            self.ways_in.append(("Hugging Face sign-in", "sign_in"))

    # ---------------------------------------------------------------------------------------------------- the page

    def build_questions(self) -> None:
        """Build the essentials: the questions, and the ratings per pair."""
        self.overall = gr.Textbox(OVERALL_TEXT, label="Question", max_lines=2, elem_id="study-overall")
        self.asked = gr.CheckboxGroup(
            self.objectives,
            label="Also ask about",
            visible=bool(self.objectives),
            elem_id="study-objectives",
        )
        self.texts = {
            name: gr.Textbox(
                objective_question(name),
                label=f"Question about {name}",
                max_lines=2,
                visible=False,
                elem_id=f"study-question-{i}",
            )
            for i, name in enumerate(self.objectives)
        }
        self.wanted = self.number("wanted", "Ratings per pair", BLANK.numbers["wanted"])

    def build_guidelines(self) -> None:
        """Build the guidelines with their preview."""
        with gr.Accordion("Guidelines", open=False, elem_id="study-guidelines-part"):
            self.guidelines = gr.Textbox(
                GUIDELINES, label="Markdown, shown before the first pair", lines=8, max_lines=20,
                elem_id="study-guidelines",
            )  # fmt: skip
            self.preview = gr.Button("Preview", size="sm", elem_id="study-preview", min_width=90)
            self.previewed = gr.HTML("", elem_id="study-previewed", elem_classes="guidelines")

    def build_more(self) -> None:
        """Build what has a good default."""
        with gr.Accordion("Answers, pairs and people", open=False, elem_id="study-more"):
            with gr.Row(elem_classes="study-row"):
                self.choices = gr.CheckboxGroup(
                    [("Tie", "tie"), ("Both bad", "both_bad")],
                    value=["tie", "both_bad"],
                    label="Besides the left and the right one, they may choose",
                    elem_id="study-choices",
                )
                self.joining = gr.CheckboxGroup(
                    self.ways_in,
                    label="Besides people with an invitation, there may join",
                    elem_id="study-joining",
                )
            with gr.Row(elem_classes="study-row"):
                self.pairing = gr.Dropdown(
                    PAIRINGS, value="all", label="Pairs", filterable=False, elem_id="study-pairing"
                )
                self.budget = self.number("budget", "Ratings in all", visible=False)
                self.most = self.number("most", "Pairs per person", placeholder="no limit")
                self.repeats = self.number("repeat-every", "A repeat every … pairs", placeholder="never")
        with gr.Accordion("Training and gold pairs", open=False, elem_id="study-examples-part"):
            with gr.Row(elem_classes="study-row"):
                self.uploads = {kind: self.build_examples(kind) for kind in MAX_EXAMPLES}
                self.percent = self.number("training-percent", "% right that passes the training", "80")
                self.gold_every = self.number("gold-every", "A gold pair every … pairs", str(GOLD_EVERY))
            gr.HTML(EXAMPLES_HINT)
            self.counted = gr.HTML("", elem_id="study-counted")
        self.examples: dict[ItemKind, gr.State] = {kind: gr.State([]) for kind in MAX_EXAMPLES}

    def build_examples(self, kind: ItemKind) -> gr.UploadButton:
        """Build the upload of one kind of examples."""
        return gr.UploadButton(
            f"Upload {kind.value} pairs", size="sm", elem_id=f"study-{kind.value}", type="filepath", min_width=150
        )

    def number(
        self, name: str, label: str, value: str = "", placeholder: str | None = None, visible: bool = True
    ) -> gr.Textbox:
        """Build the field of a number."""
        return gr.Textbox(
            value, label=label, max_lines=1, placeholder=placeholder, visible=visible, min_width=120,
            elem_id=f"study-{name}",
        )  # fmt: skip

    def connect(self, status: gr.HTML) -> None:
        """Register the handlers, which report in `status`."""
        self.status = status
        names = json.dumps(self.objectives)
        self.asked.change(
            None, [self.asked], list(self.texts.values()), js=f"(asked) => mixdesk.annotate.shown({names}, asked)"
        )
        self.pairing.change(
            None, [self.pairing], [self.budget], js="(pairing) => mixdesk.annotate.shown(['uncertain'], [pairing])"
        )
        shown = owner_only(lambda values, _: {self.previewed: guidelines_html(values[self.guidelines] or "")}, status)
        self.preview.click(shown, {self.guidelines}, [self.previewed, status], **QUIET)
        for kind, upload in self.uploads.items():
            handler = owner_only(self.uploading(kind), status)
            inputs: set[Any] = {upload, self.asked, *self.examples.values()}
            upload.upload(handler, inputs, [self.examples[kind], self.counted, status], **QUIET)

    # ------------------------------------------------------------------------------------------------ its contents

    def components(self) -> list[Any]:
        """Return the components whose values `form` reads, and which `changes` sets."""
        return [
            self.overall, self.asked, *self.texts.values(), self.wanted, self.guidelines, self.choices, self.joining,
            self.pairing, self.budget, self.most, self.repeats, self.percent, self.gold_every, *self.examples.values(),
        ]  # fmt: skip

    def numbers(self) -> dict[str, gr.Textbox]:
        """Return {field of `NUMBERS`: its component}."""
        return {
            "wanted": self.wanted,
            "most": self.most,
            "budget": self.budget,
            "training_percent": self.percent,
            "gold_every": self.gold_every,
            "repeat_every": self.repeats,
        }

    def form(self, values: Values, name: str, seed: int) -> StudyForm:
        """Return what is typed and chosen."""
        return StudyForm(
            name=name,
            overall=values[self.overall] or "",
            objectives={key: values[self.texts[key]] or "" for key in values[self.asked] or [] if key in self.texts},
            guidelines=values[self.guidelines] or "",
            choices=values[self.choices] or [],
            pairing=values[self.pairing],
            joining=values[self.joining] or [],
            numbers={field: values[component] for field, component in self.numbers().items()},
            training=values[self.examples[ItemKind.TRAINING]],
            gold=values[self.examples[ItemKind.GOLD]],
            seed=seed,
        )

    def changes(self, form: StudyForm) -> Changes:
        """Return updates that show a form."""
        examples = {ItemKind.TRAINING: list(form.training), ItemKind.GOLD: list(form.gold)}
        return {
            self.overall: form.overall,
            self.asked: [key for key in form.objectives if key in self.texts],
            **{
                text: gr.Textbox(form.objectives.get(key, objective_question(key)), visible=key in form.objectives)
                for key, text in self.texts.items()
            },
            self.guidelines: form.guidelines,
            self.previewed: "",
            self.choices: list(form.choices),
            self.joining: [way for _, way in self.ways_in if way in form.joining],
            self.pairing: form.pairing,
            **{component: form.numbers.get(field, "") for field, component in self.numbers().items()},
            self.budget: gr.Textbox(form.numbers.get("budget", ""), visible=form.pairing == "uncertain"),
            **{state: examples[kind] for kind, state in self.examples.items()},
            self.counted: counted_examples(examples),
        }

    def uploading(self, kind: ItemKind) -> Any:
        """Return the handler that reads a file of examples, which replaces those that were there."""

        def upload(values: Values, _: Visitor) -> Changes:
            path = values[self.uploads[kind]]
            questions = ["overall", *(values[self.asked] or [])]
            data = read_upload(path, MAX_EXAMPLE_BYTES)
            found = read_examples(shown_name(path), data, questions, MAX_EXAMPLES[kind])
            every = {one: values[state] for one, state in self.examples.items()} | {kind: found}
            said = message(f"{shown_name(path)}: {len(found)} {kind.value} pairs.", "good")
            return {self.examples[kind]: found, self.counted: counted_examples(every), self.status: said}

        return upload


def counted_examples(examples: dict[ItemKind, list[Example]]) -> str:
    """Return how many examples there are, as HTML; "" if there are none."""
    said = [f"{len(there)} {kind.value} pairs" for kind, there in examples.items() if there]
    return f'<p class="hint">There are {" and ".join(said)}. An upload replaces those of its kind.</p>' if said else ""
