"""The database's migrations."""

from __future__ import annotations

from collections.abc import Mapping

from sqlite_utils import Database, Migrations

schema = Migrations("mixdesk")


@schema()
def m001_first(db: Database) -> None:
    """Create prompts, mixtures, completions, rewards, annotators and ratings."""
    db.table("prompts").create({"id": int, "text": str}, pk="id", not_null={"text"}, strict=True)
    db.table("prompts").create_index(["text"], unique=True)
    mixtures = {"id": int, "weights": str, "rule": str, "gain": float, "exponent": float}
    db.table("mixtures").create(mixtures, pk="id", not_null=mixtures.keys() - {"id"}, strict=True)
    db.table("mixtures").create_index(["weights", "rule", "gain", "exponent"], unique=True)
    completions = {
        "id": int,
        "prompt_id": int,
        "mixture_id": int,
        "model": str,
        "seed": int,
        "max_new_tokens": int,
        "temperature": float,
        "top_k": int,
        "top_p": float,
        "min_p": float,
        "tokens": str,
        "text": str,
        "finish_reason": str,
        "created_at": str,
    }
    db.table("completions").create(
        completions,
        pk="id",
        foreign_keys=[("prompt_id", "prompts", "id"), ("mixture_id", "mixtures", "id")],
        not_null=completions.keys() - {"id"},
        strict=True,
    )
    db.table("rewards").create(
        {"completion_id": int, "objective": str, "value": float},
        pk=("completion_id", "objective"),
        foreign_keys=[("completion_id", "completions", "id")],
        not_null={"completion_id", "objective", "value"},
        strict=True,
    )
    db.table("annotators").create({"id": str, "created_at": str}, pk="id", not_null={"id", "created_at"}, strict=True)
    ratings = {
        "id": str,
        "left_id": int,
        "right_id": int,
        "choice": str,
        "objective": str,
        "annotator_id": str,
        "created_at": str,
    }
    db.table("ratings").create(
        ratings,
        pk="id",
        foreign_keys=[
            ("left_id", "completions", "id"),
            ("right_id", "completions", "id"),
            ("annotator_id", "annotators", "id"),
        ],
        not_null=ratings.keys() - {"objective"},
        strict=True,
    )


@schema()
def m002_steering(db: Database) -> None:
    """Add the repetition penalty, and where a response was steered: {token index: mixture from there on}."""
    db.table("completions").add_column("repetition_penalty", float, not_null_default=1.0)
    db.table("completions").add_column("steered", str, not_null_default="{}")


@schema()
def m003_particles(db: Database) -> None:
    """Add the number of particles of a response; 1 is token-by-token sampling."""
    db.table("completions").add_column("particles", int, not_null_default=1)


@schema()
def m004_saved_mixtures(db: Database) -> None:
    """Create saved mixtures (app/storage/saved_mixtures.py); settings: JSON."""
    saved = {"name": str, "settings": str, "saved_at": str}
    db.table("saved_mixtures").create(saved, pk="name", not_null=saved.keys(), strict=True)


@schema()
def m005_branches(db: Database) -> None:
    """Add the number of given tokens at the beginning of a response."""
    db.table("completions").add_column("begins_with", int, not_null_default=0)


@schema()
def m006_turns(db: Database) -> None:
    """Add the JSON messages of a prompt that is a conversation, else []; `text` is the last message's."""
    db.table("prompts").add_column("messages", str, not_null_default="[]")
    db.table("prompts").drop_index("idx_prompts_text")
    db.table("prompts").create_index(["text", "messages"], unique=True)


@schema()
def m007_template_dates(db: Database) -> None:
    """Add the date that a chat template wrote into the prompt, else ""."""
    db.table("completions").add_column("date", str, not_null_default="")


@schema()
def m008_missing_rewards(db: Database) -> None:
    """Create the table of reasons why a completion lacks a reward of its configuration."""
    missing = {"completion_id": int, "objective": str, "reason": str}
    db.table("missing_rewards").create(
        missing,
        pk=("completion_id", "objective"),
        foreign_keys=[("completion_id", "completions", "id")],
        not_null=missing.keys(),
        strict=True,
    )


@schema()
def m009_unrated(db: Database) -> None:
    """Create the pairs that may still be rated (app/storage/unrated.py); pair: JSON of both completions."""
    unrated = {"run": str, "browser": str, "model": str, "pair": str, "created_at": str}
    db.table("unrated").create(unrated, pk="run", not_null=unrated.keys(), strict=True)


@schema()
def m010_stop_strings(db: Database) -> None:
    """Add the stop strings and the biases of tokens that a response was sampled with, as JSON."""
    db.table("completions").add_column("stop", str, not_null_default="[]")
    db.table("completions").add_column("logit_bias", str, not_null_default="[]")


comparison_schema = Migrations("mixdesk-comparisons")


@comparison_schema(name="m001_first")
def m001_comparisons(db: Database) -> None:
    """Create comparisons, and in their order their mixtures, prompts and completions."""
    comparisons = {
        "id": int,
        "model": str,
        "source": str,
        "scale": str,
        "max_new_tokens": int,
        "temperature": float,
        "seed": int,
        "created_at": str,
        "finished_at": str,
    }
    db.table("comparisons").create(comparisons, pk="id", not_null=comparisons.keys() - {"finished_at"}, strict=True)
    own = {"comparison_id": int, "place": int}
    add_part(db, "comparison_mixtures", {**own, "name": str, "mixture_id": int}, ("comparison_id", "place"))
    add_part(db, "comparison_prompts", {**own, "prompt_id": int}, ("comparison_id", "place"))
    answered = {**own, "mixture_place": int, "completion_id": int}
    add_part(db, "comparison_completions", answered, ("comparison_id", "place", "mixture_place"))


def add_part(db: Database, name: str, columns: Mapping[str, type], key: tuple[str, ...]) -> None:
    """Create a table of a comparison's parts; its last column references another table."""
    other = list(columns)[-1]
    db.table(name).create(
        dict(columns),
        pk=key,
        foreign_keys=[("comparison_id", "comparisons", "id"), (other, f"{other.removesuffix('_id')}s", "id")],
        not_null=set(columns),
        strict=True,
    )
    # Deleting asks who else has this prompt or this completion.
    db.table(name).create_index([other])


owner_schema = Migrations("mixdesk-owners")


@owner_schema(name="m001_first")
def m001_owners(db: Database) -> None:
    """Create owners: the browser that made a saved mixture (by name) or a comparison (by number)."""
    db.table("owners").create(
        {"kind": str, "key": str, "browser": str}, pk=("kind", "key"), not_null={"browser"}, strict=True
    )


study_schema = Migrations("mixdesk-studies")


@study_schema(name="m001_first")
def m001_studies(db: Database) -> None:
    """Create studies (app/schemas/study.py), and what annotators are given and answer.

    Ids are random text, except those of comparisons. A system that was imported has no mixture, and an item of imported
    votes has no completions: `prompt_key` groups the items of one prompt. Training and gold items have texts of their
    own. `expected` is JSON: {question: [verdicts]}. An assignment's `probability` is the one with which its item was
    chosen. An answer's `choice` is about the sides as they were seen: `swapped` is 1 if the second was on the left.
    """
    studies = {
        "id": str,
        "name": str,
        "state": str,
        "model": str,
        "source": str,
        "settings": str,
        "comparison_id": int,
        "owns_comparison": int,
        "created_at": str,
        "opened_at": str,
        "closed_at": str,
    }
    optional = {"comparison_id", "opened_at", "closed_at"}
    create(db, "studies", studies, ("id",), optional, comparison_id="comparisons")
    systems = {"study_id": str, "place": int, "name": str, "mixture_id": int}
    create(
        db, "study_systems", systems, ("study_id", "place"), {"mixture_id"}, study_id="studies", mixture_id="mixtures"
    )
    items = {
        "id": str,
        "study_id": str,
        "place": int,
        "kind": str,
        "prompt_key": str,
        "prompt_id": int,
        "first_system": int,
        "second_system": int,
        "first_id": int,
        "second_id": int,
        "first_text": str,
        "second_text": str,
        "expected": str,
        "feedback": str,
        "wanted": int,
    }
    optional = {"prompt_id", "first_system", "second_system", "first_id", "second_id", "first_text", "second_text"}
    own = {"study_id": "studies", "prompt_id": "prompts", "first_id": "completions", "second_id": "completions"}
    create(db, "study_items", items, ("id",), optional, **own)
    db.table("study_items").create_index(["study_id", "kind", "place"])
    for column in ("prompt_id", "first_id", "second_id"):
        db.table("study_items").create_index([column])
    invitations = {
        "id": str,
        "study_id": str,
        "digest": str,
        "name": str,
        "most": int,
        "created_at": str,
        "revoked_at": str,
    }
    create(db, "study_invitations", invitations, ("id",), {"most", "revoked_at"}, study_id="studies")
    db.table("study_invitations").create_index(["study_id", "digest"], unique=True)
    annotators = {
        "id": str,
        "study_id": str,
        "name": str,
        "joined_by": str,
        "invitation_id": str,
        "key": str,
        "attempts": int,
        "read_at": str,
        "passed_at": str,
        "created_at": str,
    }
    optional = {"invitation_id", "read_at", "passed_at"}
    create(db, "study_annotators", annotators, ("id",), optional, study_id="studies", invitation_id="study_invitations")
    db.table("study_annotators").create_index(["study_id", "key"], unique=True)
    assignments = {
        "id": str,
        "study_id": str,
        "item_id": str,
        "annotator_id": str,
        "kind": str,
        "attempt": int,
        "swapped": int,
        "probability": float,
        "state": str,
        "leased_at": str,
        "expires_at": str,
        "answered_at": str,
        "seconds": float,
        "comment": str,
        "flagged": int,
    }
    own = {"study_id": "studies", "item_id": "study_items", "annotator_id": "study_annotators"}
    create(db, "study_assignments", assignments, ("id",), {"answered_at", "seconds"}, **own)
    # A person gets an item once of a kind, and in training once an attempt.
    db.table("study_assignments").create_index(["annotator_id", "item_id", "kind", "attempt"], unique=True)
    db.table("study_assignments").create_index(["item_id", "kind", "state"])
    db.table("study_assignments").create_index(["study_id", "state", "expires_at"])
    answers = {"assignment_id": str, "question": str, "choice": str}
    create(db, "study_answers", answers, ("assignment_id", "question"), set(), assignment_id="study_assignments")


@study_schema(name="m002_sessions")
def m002_sessions(db: Database) -> None:
    """Create the sessions of annotators: a digest of the secret that a browser has in its cookie."""
    sessions = {"digest": str, "annotator_id": str, "created_at": str}
    create(db, "study_sessions", sessions, ("digest",), set(), annotator_id="study_annotators")
    db.table("study_sessions").create_index(["annotator_id", "created_at"])


@study_schema(name="m003_counts")
def m003_counts(db: Database) -> None:
    """Add the index by which the ratings of all items of a study are counted."""
    db.table("study_assignments").create_index(["study_id", "kind", "state", "item_id"])


@study_schema(name="m004_taken")
def m004_taken(db: Database) -> None:
    """Add to items how many of their places are taken, and a random number that mixes their order.

    `taken` is the number of a pair's assignments that are answered or leased. Triggers keep it, so that whatever writes
    an assignment changes it in the same transaction. The indexes hold what is read for each next pair: those pairs that
    need more, and what an annotator has had.
    """
    db.table("study_items").add_column("taken", int, not_null_default=0)
    db.table("study_items").add_column("shuffle", int, not_null_default=0)
    db.execute(
        "update study_items set shuffle = abs(random() % 2147483647), taken = (select count(*) from "
        "study_assignments a where a.item_id = study_items.id and a.kind = 'pair' "
        "and a.state in ('leased', 'answered'))"
    )
    taken = "({0}.kind = 'pair' and {0}.state in ('leased', 'answered'))"
    old, new = taken.format("old"), taken.format("new")
    for event, change, when in (
        ("insert", "+ 1 where id = new.item_id", new),
        ("delete", "- 1 where id = old.item_id", old),
        ("update of state", f"+ {new} - {old} where id = new.item_id", f"{new} != {old}"),
    ):
        db.execute(
            f"create trigger study_assignments_{event.split()[0]} after {event} on study_assignments when {when} "
            f"begin update study_items set taken = taken {change}; end"
        )
    db.execute(
        "create index study_items_open on study_items "
        "(study_id, kind, taken, wanted, shuffle, id, first_system, second_system) "
        "where kind = 'pair' and taken < wanted"
    )
    db.table("study_assignments").create_index(["annotator_id", "state", "kind", "item_id", "swapped"])


def create(
    db: Database, name: str, columns: Mapping[str, type], key: tuple[str, ...], optional: set[str], **references: str
) -> None:
    """Create a strict table whose columns are not null but for the optional ones; references: {column: table}."""
    db.table(name).create(
        dict(columns),
        pk=key if len(key) > 1 else key[0],
        foreign_keys=[(column, table, "id") for column, table in references.items()],
        not_null=columns.keys() - optional,
        strict=True,
    )


SCHEMAS = (schema, comparison_schema, owner_schema, study_schema)
