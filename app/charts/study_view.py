"""A study on its owner's page as HTML: heading, progress, people, responses. All external text is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape

from app.charts.comparison import Look, line, progress
from app.html import message
from app.schemas.study import Example, ItemKind, StudySettings, StudyState
from app.services.studies import Generation
from app.services.study_pairs import StudyPairs
from app.storage.comparisons import StoredResponse
from app.storage.studies import StudyEntry
from app.storage.study_people import AnnotatorEntry, InvitationEntry

EXPORT_FORMS = (
    ("csv", "CSV"), ("jsonl", "JSONL"), ("parquet", "Parquet"), ("trl", "TRL"), ("kto", "KTO"), ("zip", "dataset"),
)  # fmt: skip
STATES = {
    StudyState.DRAFT: "Draft",
    StudyState.OPEN: "Open",
    StudyState.PAUSED: "Paused",
    StudyState.CLOSED: "Closed",
}
JOINED = {"invitation": "invited", "anonymous": "anonymous", "sign-in": "signed in", "import": "imported"}
VERDICT_WORDS = {"first": "first", "second": "second", "tie": "tie", "both_bad": "both bad"}


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun: "1 pair", "2 pairs"."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def study_label(entry: StudyEntry, generation: Generation | None) -> str:
    """Return a study's label in the list."""
    state = STATES[entry.state].lower()
    if entry.state is StudyState.DRAFT:
        if generation and not generation.finished:
            state += f", {generation.answered} of {generation.prompts} prompts answered"
        else:
            state += ", ready to open"
    else:
        state += f", {entry.answered:,} of {entry.wanted:,} ratings"
        state += f", {counted(entry.annotators, 'person', 'people')}"
    return f"{entry.name} · {state}"


def study_heading(entry: StudyEntry, settings: StudySettings, home: str) -> str:
    """Return the heading of a study, with its settings and its export links, as HTML."""
    questions = " · ".join(question.text for question in settings.questions)
    systems = " · ".join(entry.systems)
    links = "".join(
        f'<a href="{escape(home)}studies/{escape(entry.id)}.{form}" download>{label}</a>'
        for form, label in EXPORT_FORMS
    )
    exports = f'<p class="exports">Export {links}</p>' if entry.state is not StudyState.DRAFT else ""
    return (
        f'<h2>{escape(entry.name)} <span class="state {entry.state.value}">{STATES[entry.state]}</span></h2>'
        f'<p class="hint">{escape(questions)}</p><p class="hint">{escape(systems)}</p>'
        f'<p class="hint">{escape(entry.source)} · {counted(settings.wanted, "rating")} per pair</p>{exports}'
    )


def generation_progress(generation: Generation) -> str:
    """Return how far a draft's responses are, as HTML."""
    job = generation.job
    if job is not None:
        return progress(job.done, job.wanted, job.seconds_left, job.mended, len(job.unscored))
    if generation.finished:
        return ""
    failure = f" It ended because of an error: {generation.failure}." if generation.failure else ""
    return message(
        f"{generation.answered} of {generation.prompts} prompts are answered.{failure} Press Resume to continue.",
        "bad" if failure else "info",
    )


def pairs_line(pairs: StudyPairs, settings: StudySettings) -> str:
    """Return what annotators would be given if a draft was opened now, as HTML."""
    number = len(pairs.items)
    ratings = number * settings.wanted
    if settings.budget is not None:
        ratings = min(ratings, settings.budget)
    said = [f"{counted(number, 'pair')}, which need {counted(ratings, 'rating')}."]
    if pairs.identical:
        was = "is" if pairs.identical == 1 else "are"
        said.append(f"{counted(pairs.identical, 'pair')} of identical responses {was} left out.")
    if pairs.known:
        was = "is" if pairs.known == 1 else "are"
        said.append(f"{counted(pairs.known, 'pair')} for training or gold {was} not among them.")
    said.append("Read the responses, then open the study.")
    return f'<p class="hint">{escape(" ".join(said))}</p>'


def answers_progress(entry: StudyEntry) -> str:
    """Return how many of the wanted ratings are there, as HTML."""
    return (
        f'<p class="hint">{entry.answered:,} of {entry.wanted:,} ratings, '
        f"{counted(entry.items, 'pair')}, {counted(entry.annotators, 'annotator')}.</p>"
        f'<progress max="{max(entry.wanted, 1)}" value="{entry.answered}" aria-label="Ratings"></progress>'
    )


def short_time(stamp: str | None) -> str:
    """Return a stored UTC time as it is shown, or a dash."""
    return datetime.fromisoformat(stamp).strftime("%d %b %H:%M") if stamp else "–"


def table(label: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table of cells that are escaped already."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="people">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def annotators_table(annotators: Sequence[AnnotatorEntry]) -> str:
    """Return the annotators with their numbers as HTML."""
    if not annotators:
        return '<p class="hint">Nobody has joined yet.</p>'
    rows = [
        (
            escape(person.name) or "(no name)",
            JOINED.get(person.joined_by, escape(person.joined_by)),
            f"{person.answered:,}",
            f"{person.skipped:,}",
            f"{person.flagged:,}",
            "failed" if person.attempts >= 2 and not person.passed_at else "passed" if person.passed_at else "–",
            short_time(person.last_at),
        )
        for person in annotators
    ]
    return table("Annotators", ("Annotator", "Joined", "Ratings", "Skipped", "Flagged", "Training", "Last (UTC)"), rows)


def invitations_table(invitations: Sequence[InvitationEntry]) -> str:
    """Return the invitations as HTML; app/static/js/annotate.js hears their buttons."""
    if not invitations:
        return '<p class="hint">No invitations yet. Each is for one person, who can use it on any device.</p>'
    rows = []
    for one in invitations:
        name = escape(one.name) or "(gives a name)"
        state = "revoked" if one.revoked_at else "joined" if one.annotator else "not used yet"
        button = "" if one.revoked_at else act_button("revoke", one.id, "Revoke", f"Revoke the invitation of {name}")
        most = "" if one.most is None else f"{one.most:,}"
        rows.append((name, state, most or "–", short_time(one.created_at), button))
    heads = ("For", "State", "Most pairs", "Made (UTC)", '<span class="unseen">Revoke</span>')
    return table("Invitations", heads, rows)


def act_button(act: str, id: str, label: str, name: str) -> str:
    """Return a button that a handler hears of; `name` is escaped already."""
    data = f'data-act="{act}" data-id="{escape(id)}"'
    return f'<button type="button" class="act" {data} aria-label="{name}">{label}</button>'


def reader_value(place: int, prompts: Sequence[str], row: Mapping[int, StoredResponse], looks: Sequence[Look]) -> str:
    """Return one prompt with all its responses as HTML.

    Args:
        place: Index of the prompt.
        prompts: All prompts.
        row: {system: its response} to this prompt.
        looks: One for each system.
    """
    cards = "".join(
        f'<article><h3><span class="line" style="border-top:{line(look)}"></span>{escape(look.name)}</h3>'
        f'<p class="text">{escape(row[system].text.strip()) or "(an empty response)"}</p></article>'
        for system, look in enumerate(looks)
        if system in row
    )
    cards = cards or '<p class="hint">No responses yet: this prompt’s turn is still to come.</p>'
    return (
        f'<p class="hint">Prompt {place + 1} of {len(prompts)}</p><p class="asked">{escape(prompts[place])}</p>'
        f'<div class="cards">{cards}</div>'
    )


def examples_list(examples: Mapping[ItemKind, Sequence[Example]], draft: bool) -> str:
    """Return the training and gold pairs as HTML, with buttons that remove them from a draft."""
    rows = []
    for kind, there in examples.items():
        for number, example in enumerate(there):
            expected = " or ".join(VERDICT_WORDS[verdict] for verdict in example.expected.get("overall", []))
            others = ", ".join(
                f"{key}: {' or '.join(verdicts)}" for key, verdicts in example.expected.items() if key != "overall"
            )
            what = f"Remove {kind.value} pair {number + 1}"
            button = act_button(kind.value, str(number), "Remove", what) if draft else ""
            told = "; ".join(part for part in (expected, others.replace("_", " ")) if part)
            rows.append(
                (
                    f"{kind.value.title()} {number + 1}",
                    f'<span class="clamped" title="{escape(example.prompt)}">{escape(example.prompt)}</span>',
                    escape(told),
                    button,
                )
            )
    if not rows:
        return ""
    return table("Training and gold pairs", ("Pair", "Prompt", "Expected", '<span class="unseen">Remove</span>'), rows)
