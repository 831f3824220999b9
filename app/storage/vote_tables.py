"""Reading the votes of studies, and of the desk's own ratings, from the database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlite_utils import Database

from app.schemas.study import OVERALL, AssignmentKind, Choice, ItemKind
from app.storage.database import Store, stored_mixture
from app.storage.study_rows import COUNTS, SYSTEMS

AT_ONCE = 500  # values in one list of a query: older versions of SQLite take up to 999
VOTES = f"""
select a.item_id, i.prompt_key, i.first_system, i.second_system, i.first_id, i.second_id, i.first_text, i.second_text,
    w.choice, a.swapped, a.kind, a.probability, a.annotator_id, a.seconds, a.answered_at
from study_assignments a join study_answers w on w.assignment_id = a.id join study_items i on i.id = a.item_id
where a.study_id = ? and {COUNTS} and i.kind = '{ItemKind.PAIR.value}' and w.question = ?
    and i.first_system is not null and i.second_system is not null
order by a.answered_at, a.rowid
"""
GOLD = f"""
select a.annotator_id, w.question, w.choice, a.swapped, i.expected
from study_assignments a join study_answers w on w.assignment_id = a.id join study_items i on i.id = a.item_id
where a.study_id = ? and {COUNTS} and a.kind = '{AssignmentKind.GOLD.value}'
"""
PAIRS = f"""
select i.id, i.prompt_key, i.prompt_id, a.kind, a.annotator_id, a.comment, a.flagged
from study_items i join study_assignments a on a.item_id = i.id
where i.study_id = ? and i.kind = '{ItemKind.PAIR.value}' and {COUNTS}
    and (i.first_system, i.second_system) in (values (?, ?), (?, ?))
"""
# Of responses that are each of one mixture.
RATINGS = """
select r.id, r.choice, r.annotator_id, r.created_at, r.left_id, r.right_id, l.prompt_id, l.model,
    l.text as left_text, c.text as right_text,
    lm.weights as left_weights, lm.rule as left_rule, lm.gain as left_gain, lm.exponent as left_exponent,
    rm.weights as right_weights, rm.rule as right_rule, rm.gain as right_gain, rm.exponent as right_exponent
from ratings r
join completions l on l.id = r.left_id join mixtures lm on lm.id = l.mixture_id
join completions c on c.id = r.right_id join mixtures rm on rm.id = c.mixture_id
where r.objective is ? and l.steered = '{}' and c.steered = '{}'
order by r.created_at, r.rowid
"""


class StoredVote(NamedTuple):
    """One answer to one question about a pair, as a row of the database.

    `choice` is about the sides as they were seen; `swapped` is 1 if the second response was on the left.
    """

    item: str
    prompt: str
    first: int
    second: int
    first_id: int | None
    second_id: int | None
    first_text: str | None
    second_text: str | None
    choice: Choice
    swapped: int
    kind: str
    probability: float
    annotator: str
    seconds: float | None
    at: str


class GoldAnswer(NamedTuple):
    """An answer to a pair with known verdicts. `expected`: {question: accepted verdicts}."""

    annotator: str
    question: str
    choice: Choice
    swapped: int
    expected: dict[str, list[str]]


@dataclass(frozen=True)
class StudyHead:
    """A study in the list: `settings` is as stored, {} for one that an import made."""

    id: str
    name: str
    state: str
    source: str
    model: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class StoredSystem:
    """A system of a study; `mixture` holds weights, rule, gain and exponent, None if it was imported."""

    name: str
    mixture: dict[str, Any] | None


class VoteTables:
    """Read access to the votes in a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def heads(self) -> list[StudyHead]:
        """Return the studies, newest first."""
        with self.store.reading() as db:
            rows = db.query(
                "select id, name, state, source, model, settings from studies order by created_at desc, rowid desc"
            )
            return [StudyHead(**{**row, "settings": json.loads(row["settings"] or "{}")}) for row in rows]

    def systems(self, study_id: str) -> list[StoredSystem]:
        """Return the systems of a study by their places."""
        with self.store.reading() as db:
            return [
                StoredSystem(row["name"], None if row["weights"] is None else stored_mixture(row))
                for row in db.query(SYSTEMS, [study_id])
            ]

    def people(self, study_id: str) -> dict[str, str]:
        """Return {id: name} of a study's annotators, in the order in which they joined."""
        with self.store.reading() as db:
            query = "select id, name from study_annotators where study_id = ? order by created_at, rowid"
            return {row["id"]: row["name"] for row in db.query(query, [study_id])}

    def questions(self, study_id: str) -> list[str]:
        """Return the keys of the questions that have answers, the overall one first."""
        with self.store.reading() as db:
            query = (
                "select distinct w.question from study_assignments a join study_answers w on w.assignment_id = a.id "
                "where a.study_id = ? order by w.question <> ?, w.question"
            )
            return [row["question"] for row in db.query(query, [study_id, OVERALL])]

    def votes(self, study_id: str, question: str) -> list[StoredVote]:
        """Return the answers to a question about a study's pairs, oldest first; repeats are among them."""
        with self.store.reading() as db:
            return [StoredVote(*row) for row in db.execute(VOTES, [study_id, question])]

    def gold(self, study_id: str) -> list[GoldAnswer]:
        """Return the answers to the gold pairs among a study's work."""
        with self.store.reading() as db:
            return [GoldAnswer._make((*row[:4], json.loads(row[4] or "{}"))) for row in db.execute(GOLD, [study_id])]

    def pairs(self, study_id: str, first: int, second: int) -> list[dict[str, Any]]:
        """Return the answered assignments of the pairs of two systems, with comments, flags and prompts."""
        with self.store.reading() as db:
            rows = list(db.query(PAIRS, [study_id, first, second, second, first]))
            prompts = prompts_of(db, (row["prompt_id"] for row in rows))
        return [{**row, "asked": prompts.get(row["prompt_id"], row["prompt_key"])} for row in rows]

    def ratings(self, objective: str | None) -> list[dict[str, Any]]:
        """Return the desk's own ratings of an objective (None is overall), oldest first."""
        with self.store.reading() as db:
            return list(db.query(RATINGS, [objective]))

    def rated_objectives(self) -> list[str]:
        """Return the objectives that have been rated at the desk."""
        with self.store.reading() as db:
            query = "select distinct objective from ratings where objective is not null order by objective"
            return [row["objective"] for row in db.query(query)]

    def prompts(self, ids: Iterable[int]) -> dict[int, Any]:
        """Return {prompt id: its text, or its messages}."""
        with self.store.reading() as db:
            return prompts_of(db, ids)

    def texts(self, ids: Iterable[int]) -> dict[int, str]:
        """Return {completion id: its text}."""
        with self.store.reading() as db:
            return {row["id"]: row["text"] for row in in_parts(db, "select id, text from completions where id in", ids)}

    def rewards(self, ids: Iterable[int]) -> dict[str, dict[int, float]]:
        """Return {objective: {completion id: reward}} of the rewards that are stored."""
        found: dict[str, dict[int, float]] = {}
        query = "select completion_id, objective, value from rewards where completion_id in"
        with self.store.reading() as db:
            for row in in_parts(db, query, ids):
                found.setdefault(row["objective"], {})[row["completion_id"]] = row["value"]
        return found

    def responses(self, ids: Iterable[int]) -> list[dict[str, Any]]:
        """Return id, model, prompt, tokens and date of completions, as their log-probabilities need them."""
        query = "select id, model, prompt_id, tokens, date, steered from completions where id in"
        with self.store.reading() as db:
            rows = list(in_parts(db, query, ids))
            prompts = prompts_of(db, (row["prompt_id"] for row in rows))
        return [{**row, "tokens": json.loads(row["tokens"]), "prompt": prompts[row["prompt_id"]]} for row in rows]


def in_parts(db: Database, query: str, ids: Iterable[int | None]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a query that ends with "in", for as many ids as there are."""
    every: Sequence[int] = sorted({one for one in ids if one is not None})
    for start in range(0, len(every), AT_ONCE):
        part = every[start : start + AT_ONCE]
        yield from db.query(f"{query} ({','.join('?' * len(part))})", list(part))


def prompts_of(db: Database, ids: Iterable[int | None]) -> dict[int, Any]:
    """Return {prompt id: its text, or its messages} within the caller's reading."""
    rows = in_parts(db, "select id, text, messages from prompts where id in", ids)
    return {row["id"]: json.loads(row["messages"]) or row["text"] for row in rows}
