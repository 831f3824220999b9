"""The store's tables of studies, as their owner sees them: settings, systems, items."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from app.schemas.study import ItemKind, StudySettings, StudyState
from app.storage.comparisons import delete_comparison, delete_unused_prompts, studies_with
from app.storage.database import mixture_id, stored_mixture
from app.storage.study_items import NewItem, StudyItem, example_item, insert_items, read_items
from app.storage.study_people import StudyPeople
from app.storage.study_rows import COUNTS, SYSTEMS, end_leases, new_id, stamp, study_row
from engine import InputError, Mixture

NEXT = {
    StudyState.DRAFT: {StudyState.OPEN},
    StudyState.OPEN: {StudyState.PAUSED, StudyState.CLOSED},
    StudyState.PAUSED: {StudyState.OPEN, StudyState.CLOSED},
    StudyState.CLOSED: set(),
}


@dataclass(frozen=True)
class StudyEntry:
    """One study in the list.

    Attributes:
        id: Its id, the last part of the annotators' link.
        name: Its name.
        state: Its state.
        model: Name of the configuration that its responses are from.
        source: Where its prompts or its votes are from.
        systems: Names of its systems, in order.
        items: Number of its pairs, without training and gold.
        wanted: Number of ratings that it needs in all.
        answered: Number of ratings that it has.
        annotators: Number of its annotators.
        comparison_id: The comparison that its responses are of, or None.
        created_at, opened_at, closed_at: UTC times in ISO format; None of what has not been.
    """

    id: str
    name: str
    state: StudyState
    model: str
    source: str
    systems: list[str]
    items: int
    wanted: int
    answered: int
    annotators: int
    comparison_id: int | None
    created_at: str
    opened_at: str | None
    closed_at: str | None


class StudyTables(StudyPeople):
    """The studies of a store, and their people. Thread-safe, like the store.

    Methods that take a study's id raise `UnknownStudyError`, an InputError, if there is none with it.
    """

    # ---------------------------------------------------------------------------------------------------- the studies

    def add(
        self,
        settings: StudySettings,
        systems: Mapping[str, Mixture | None],
        model: str = "",
        source: str = "",
        comparison_id: int | None = None,
        owns_comparison: bool = False,
        state: StudyState = StudyState.DRAFT,
    ) -> str:
        """Store a study without items and return its id; for the arguments see `insert_study`."""
        now = stamp(self.clock())
        with self.store.writing() as db:
            return insert_study(db, now, settings, systems, model, source, comparison_id, owns_comparison, state)

    def listing(self) -> list[StudyEntry]:
        """Return all studies, the newest first."""
        with self.store.reading() as db:
            return [entry_of(row) for row in db.query(f"{ENTRIES} order by s.created_at desc, s.rowid desc")]

    def entry(self, study_id: str) -> StudyEntry:
        """Return a study as it is in the list."""
        with self.store.reading() as db:
            study_row(db, study_id)
            return entry_of(next(iter(db.query(f"{ENTRIES} where s.id = ?", [study_id]))))

    def settings(self, study_id: str) -> StudySettings:
        """Return a study's settings."""
        with self.store.reading() as db:
            return StudySettings.model_validate_json(study_row(db, study_id)["settings"])

    def set_settings(self, study_id: str, settings: StudySettings) -> None:
        """Replace the settings of a draft, and with them how many ratings each of its pairs needs.

        Raises:
            InputError: if the study has been opened.
        """
        with self.store.writing() as db:
            check_draft(db, study_id)
            values = {"name": settings.name, "settings": settings.model_dump_json()}
            db.table("studies").update(study_id, values)
            db.execute(
                "update study_items set wanted = ? where study_id = ? and kind = ?",
                [settings.wanted, study_id, ItemKind.PAIR.value],
            )

    def systems(self, study_id: str) -> dict[str, Mixture | None]:
        """Return {name: mixture} of a study's systems in order; None for imported ones."""
        with self.store.reading() as db:
            study_row(db, study_id)
            return {
                row["name"]: None if row["weights"] is None else Mixture(**stored_mixture(row))
                for row in list(db.query(SYSTEMS, [study_id]))
            }

    def set_state(self, study_id: str, state: StudyState) -> None:
        """Open, pause or close a study. Opening a draft adds its training and gold pairs; closing ends all leases.

        Raises:
            InputError: if the study cannot go from its state to this one, or has no pairs to open it with.
        """
        now = stamp(self.clock())
        with self.store.writing() as db:
            row = study_row(db, study_id)
            before = StudyState(row["state"])
            if state is before:
                return
            if state not in NEXT[before]:
                raise InputError(f"The study “{row['name']}” is {before.value}: it cannot become {state.value}.")
            values = {"state": state.value}
            if before is StudyState.DRAFT:
                settings = StudySettings.model_validate_json(row["settings"])
                pairs = [study_id, ItemKind.PAIR.value]
                if not db.table("study_items").count_where("study_id = ? and kind = ?", pairs):
                    raise InputError(f"The study “{row['name']}” has no pairs: generate its responses first.")
                add_examples(db, study_id, settings)
                values["opened_at"] = now
            if state is StudyState.CLOSED:
                end_leases(db, "study_id = :study", {"study": study_id})
                values["closed_at"] = now
            db.table("studies").update(study_id, values)

    def delete(self, study_id: str) -> None:
        """Delete a study with all its rows, and its comparison if it owns that and no other study uses it."""
        with self.store.writing() as db:
            row = study_row(db, study_id)
            prompts = db.execute(
                "select distinct prompt_id from study_items where study_id = ? and prompt_id is not null", [study_id]
            ).fetchall()
            of_annotators = "annotator_id in (select id from study_annotators where study_id = ?)"
            of_assignments = "assignment_id in (select id from study_assignments where study_id = ?)"
            db.execute(f"delete from study_answers where {of_assignments}", [study_id])
            db.execute(f"delete from study_sessions where {of_annotators}", [study_id])
            for part in ("assignments", "annotators", "invitations", "items", "systems"):
                db.execute(f"delete from study_{part} where study_id = ?", [study_id])
            db.execute("delete from studies where id = ?", [study_id])
            comparison = row["comparison_id"]
            if comparison is not None and row["owns_comparison"]:
                if studies_with(db, comparison):
                    # Another study that has its responses from there deletes it.
                    heir = "select id from studies where comparison_id = ? order by created_at, rowid limit 1"
                    db.execute(f"update studies set owns_comparison = 1 where id = ({heir})", [comparison])
                else:
                    delete_comparison(db, comparison)
                    db.execute("delete from owners where kind = 'comparison' and key = ?", [str(comparison)])
            delete_unused_prompts(db, prompts)

    # ------------------------------------------------------------------------------------------------------ its items

    def add_items(self, study_id: str, items: Iterable[NewItem]) -> int:
        """Add items behind those that are there, in one transaction, and return their number.

        Raises:
            InputError: if people annotate the study.
        """
        with self.store.writing() as db:
            row = study_row(db, study_id)
            if row["state"] in (StudyState.OPEN.value, StudyState.PAUSED.value):
                raise InputError(f"The study “{row['name']}” is {row['state']}: pairs are added to a draft.")
            return insert_items(db, study_id, items, StudySettings.model_validate_json(row["settings"]).wanted)

    def items(self, study_id: str, kind: ItemKind | None = None) -> list[StudyItem]:
        """Return a study's items with their texts in order, of one kind or of all."""
        with self.store.reading() as db:
            study_row(db, study_id)
            return read_items(db, study_id, kind)

    def clear_items(self, study_id: str) -> None:
        """Remove all items of a draft.

        Raises:
            InputError: if the study has been opened.
        """
        with self.store.writing() as db:
            check_draft(db, study_id)
            db.execute("delete from study_items where study_id = ?", [study_id])


ENTRIES = (
    "select s.id, s.name, s.state, s.model, s.source, s.settings, s.comparison_id, s.created_at, s.opened_at, "
    "s.closed_at, (select json_group_array(name) from (select name from study_systems where study_id = s.id "
    "order by place)) as systems, "
    "(select count(*) from study_items where study_id = s.id and kind = 'pair') as items, "
    "(select coalesce(sum(wanted), 0) from study_items where study_id = s.id and kind = 'pair') as wanted, "
    f"(select count(*) from study_assignments a where a.study_id = s.id and a.kind = 'pair' and {COUNTS}) "
    "as answered, (select count(*) from study_annotators where study_id = s.id) as annotators from studies s"
)


def insert_study(
    db: Database,
    now: str,
    settings: StudySettings,
    systems: Mapping[str, Mixture | None],
    model: str = "",
    source: str = "",
    comparison_id: int | None = None,
    owns_comparison: bool = False,
    state: StudyState = StudyState.DRAFT,
) -> str:
    """Insert a study without items within the caller's transaction, and return its id.

    Args:
        db: The database.
        now: The time as `stamp` has it.
        settings: Its settings.
        systems: {name: mixture} in order; None instead of a mixture if votes are imported.
        model: Name of the configuration that its responses are from.
        source: Where its prompts or its votes are from.
        comparison_id: The comparison that its responses are of.
        owns_comparison: Whether that is deleted with the study.
        state: Imported studies begin as closed ones.
    """
    study_id = new_id()
    row = {
        "id": study_id,
        "name": settings.name,
        "state": state.value,
        "model": model,
        "source": source,
        "settings": settings.model_dump_json(),
        "comparison_id": comparison_id,
        "owns_comparison": int(owns_comparison),
        "created_at": now,
        "opened_at": None if state is StudyState.DRAFT else now,
        "closed_at": now if state is StudyState.CLOSED else None,
    }
    db.table("studies").insert(row)
    db.table("study_systems").insert_all(
        {
            "study_id": study_id,
            "place": place,
            "name": name,
            "mixture_id": None if mixture is None else mixture_id(db, mixture),
        }
        for place, (name, mixture) in enumerate(systems.items())
    )
    return study_id


def entry_of(row: dict[str, Any]) -> StudyEntry:
    """Return the entry of a row of `ENTRIES`."""
    budget = StudySettings.model_validate_json(row.pop("settings")).budget
    systems, state, wanted = json.loads(row.pop("systems")), StudyState(row.pop("state")), row.pop("wanted")
    return StudyEntry(**row, systems=systems, state=state, wanted=wanted if budget is None else min(wanted, budget))


def add_examples(db: Database, study_id: str, settings: StudySettings) -> None:
    """Add the training and gold pairs of the settings within the caller's transaction."""
    examples = [example_item(example, ItemKind.TRAINING) for example in settings.training]
    examples += [example_item(example, ItemKind.GOLD) for example in settings.gold]
    insert_items(db, study_id, examples, 0)


def check_draft(db: Database, study_id: str) -> None:
    """Raise InputError if a study is no draft, or there is none."""
    row = study_row(db, study_id)
    if row["state"] != StudyState.DRAFT.value:
        raise InputError(f"The study “{row['name']}” is {row['state']}: only a draft can be changed; duplicate it.")
