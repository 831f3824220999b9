"""The store's tables of comparisons: their plans, and the completions so far."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
from sqlite_utils import Database

from app.storage.database import Store, mixture_id, prompt_id, put_rewards, read_completion
from engine import Completion, InputError, Mixture, Sampling
from engine.rewards.missing import Rewards

Scale = dict[str, tuple[float, float]]  # by objective; NaN until it is calibrated


@dataclass(frozen=True)
class Plan:
    """The settings of a comparison.

    Attributes:
        model: Name of the configuration.
        source: Where the prompts are from.
        mixtures: {display name: mixture}; the first is the opponent of the others.
        prompts: The prompts, in order.
        sampling: Sampling settings of all responses.
        seed: Seed of the comparison.
        scale: {objective: (mean, standard deviation)} of the reference's rewards.
    """

    model: str
    source: str
    mixtures: dict[str, Mixture]  # by the names that people know them by, the first to be won against
    prompts: list[str]
    sampling: Sampling
    seed: int
    scale: Scale


@dataclass(frozen=True)
class Entry:
    """One comparison in the list."""

    id: int
    model: str
    source: str
    mixtures: list[str]
    prompts: int
    answered: int
    missing: int  # rewards that could not be computed
    created_at: str
    finished: bool


@dataclass(frozen=True)
class ComparisonAnswers:
    """The responses of a comparison so far.

    Attributes:
        plan: The comparison's plan.
        answered: Indices of the prompts that have responses.
        texts: [prompts][mixtures], "" where there is no response.
        rewards: [prompts, mixtures, objectives]; NaN where there is no response or no reward.
        missing: {(prompt index, mixture index): {objective: reason}} of the responses that lack a reward.
    """

    plan: Plan
    answered: set[int]
    texts: list[list[str]]
    rewards: np.ndarray
    missing: dict[tuple[int, int], dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredResponse:
    """One response of a comparison.

    Attributes:
        place: Index of the prompt.
        mixture: Index of the mixture.
        completion: Id of the completion.
        prompt: The prompt.
        text: The response.
    """

    place: int
    mixture: int
    completion: int
    prompt: str
    text: str


class ComparisonTables:
    """The tables of comparisons. Thread-safe, like the store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add(self, plan: Plan) -> int:
        """Store a plan in one transaction and return its id."""
        row = {
            "model": plan.model,
            "source": plan.source,
            "scale": json.dumps(plan.scale, ensure_ascii=False),
            "max_new_tokens": plan.sampling.max_new_tokens,
            "temperature": plan.sampling.temperature,
            "seed": plan.seed,
            "created_at": now(),
        }
        with self.store.writing() as db:
            made: Any = db.table("comparisons").insert(row).last_pk
            for place, (name, mixture) in enumerate(plan.mixtures.items()):
                known = mixture_id(db, mixture)
                mixed = {"comparison_id": made, "place": place, "name": name, "mixture_id": known}
                db.table("comparison_mixtures").insert(mixed)
            db.table("comparison_prompts").insert_all(
                {"comparison_id": made, "place": place, "prompt_id": prompt_id(db, prompt)}
                for place, prompt in enumerate(plan.prompts)
            )
        return int(made)

    def keep(self, comparison: int, place: int, completions: Iterable[Completion], model: str) -> None:
        """Store the responses to one prompt, one per mixture in order, in one transaction."""
        with self.store.writing() as db:
            rows = [
                {
                    "comparison_id": comparison,
                    "place": place,
                    "mixture_place": mixture_place,
                    "completion_id": self.store.insert(completion, model, now()),
                }
                for mixture_place, completion in enumerate(completions)
            ]
            db.table("comparison_completions").insert_all(rows)

    def unscored(self, comparison: int, objectives: Collection[str]) -> list[dict[str, Any]]:
        """Return the full completions of a comparison that lack a reward of these objectives."""
        with self.store.reading() as db:
            rows = db.execute(
                "select completion_id from comparison_completions a where comparison_id = ? and "
                "(select count(*) from rewards r where r.completion_id = a.completion_id and r.objective in "
                f"({','.join('?' * len(objectives))})) < ? order by place, mixture_place",
                [comparison, *objectives, len(objectives)],
            ).fetchall()
            return [read_completion(db, completion) for (completion,) in rows]

    def mend(self, completion: int, rewards: Rewards) -> None:
        """Store recomputed rewards; does nothing if the completion has been deleted."""
        with self.store.writing() as db:
            if db.table("completions").count_where("id = ?", [completion]):
                put_rewards(db, completion, rewards, rewards.missing)

    def rescale(self, comparison: int, scale: Scale) -> None:
        """Set the scale of rewards that were not calibrated when the comparison began."""
        with self.store.writing() as db:
            db.table("comparisons").update(comparison, {"scale": json.dumps(scale, ensure_ascii=False)})

    def finish(self, comparison: int) -> None:
        """Mark a comparison as finished now."""
        with self.store.writing() as db:
            db.table("comparisons").update(comparison, {"finished_at": now()})

    def delete(self, comparison: int) -> None:
        """Delete a comparison with its responses, and its prompts that no other row references.

        Raises:
            InputError: if a study uses it.
        """
        with self.store.writing() as db:
            if studies := studies_with(db, comparison):
                raise InputError(
                    f"The study “{studies[0]}” uses this comparison's responses: export and delete the study first."
                )
            delete_comparison(db, comparison)

    def listing(self) -> list[Entry]:
        """Return all comparisons, the newest first, without those that were made for a study."""
        with self.store.reading() as db:
            rows = db.query(
                "select c.id, c.model, c.source, c.created_at, c.finished_at, "
                "(select json_group_array(name) from (select name from comparison_mixtures where comparison_id = c.id "
                "order by place)) as mixtures, "
                "(select count(*) from comparison_prompts where comparison_id = c.id) as prompts, "
                "(select count(*) from comparison_completions where comparison_id = c.id and mixture_place = 0) "
                "as answered, "
                "(select count(*) from comparison_completions a join missing_rewards r using (completion_id) "
                "where a.comparison_id = c.id) as missing from comparisons c where not exists "
                "(select 1 from studies s where s.comparison_id = c.id and s.owns_comparison = 1) order by c.id desc"
            )
            return [
                Entry(
                    finished=row.pop("finished_at") is not None, mixtures=json.loads(row.pop("mixtures")), **row
                )
                for row in rows
            ]  # fmt: skip

    def plan(self, comparison: int) -> Plan:
        """Return a comparison's plan.

        Raises:
            InputError: if it has been deleted.
        """
        with self.store.reading() as db:
            return read_plan(db, comparison)

    def missing(self, comparison: int) -> dict[int, str]:
        """Return {prompt index: prompt} of the prompts without responses."""
        with self.store.reading() as db:
            rows = db.query(
                "select q.place, p.text from comparison_prompts q join prompts p on p.id = q.prompt_id "
                "where q.comparison_id = :id and q.place not in "
                "(select place from comparison_completions where comparison_id = :id) order by q.place",
                {"id": comparison},
            )
            return {row["place"]: row["text"] for row in rows}

    def answers(self, comparison: int) -> ComparisonAnswers:
        """Return the responses of a comparison so far.

        Raises:
            InputError: if it has been deleted.
        """
        with self.store.reading() as db:
            plan = read_plan(db, comparison)
            answered = (
                "from comparison_completions a join {table} x on x.{key} = a.completion_id where comparison_id = ?"
            )
            texts = db.execute(
                f"select place, mixture_place, text {answered.format(table='completions', key='id')}", [comparison]
            ).fetchall()
            values = db.execute(
                "select place, mixture_place, objective, value "
                f"{answered.format(table='rewards', key='completion_id')}",
                [comparison],
            ).fetchall()
            reasons = db.execute(
                "select place, mixture_place, objective, reason "
                f"{answered.format(table='missing_rewards', key='completion_id')} order by place, mixture_place",
                [comparison],
            ).fetchall()
        missing: dict[tuple[int, int], dict[str, str]] = {}
        for place, mixture, objective, reason in reasons:
            missing.setdefault((place, mixture), {})[objective] = reason
        size = len(plan.prompts), len(plan.mixtures)
        written = [[""] * size[1] for _ in range(size[0])]
        for place, mixture, text in texts:
            written[place][mixture] = text
        index = {objective: i for i, objective in enumerate(plan.scale)}
        rewards = np.full((*size, len(index)), np.nan)
        for place, mixture, objective, value in values:
            if objective in index:
                rewards[place, mixture, index[objective]] = value
        return ComparisonAnswers(plan, {place for place, _, _ in texts}, written, rewards, missing)

    def progress(self, comparison: int) -> tuple[int, int]:
        """Return the number of prompts that all mixtures have answered, and the number of prompts."""
        with self.store.reading() as db:
            answered = "comparison_id = ? and mixture_place = 0"
            return (
                db.table("comparison_completions").count_where(answered, [comparison]),
                db.table("comparison_prompts").count_where("comparison_id = ?", [comparison]),
            )

    def responses(self, comparison: int, place: int | None = None) -> list[StoredResponse]:
        """Return the responses of a comparison so far, of one prompt or of all, by prompt and mixture in order."""
        with self.store.reading() as db:
            rows = db.execute(
                "select a.place, a.mixture_place, a.completion_id, p.text, c.text from comparison_completions a "
                "join completions c on c.id = a.completion_id join prompts p on p.id = c.prompt_id "
                "where a.comparison_id = :id and (:place is null or a.place = :place) "
                "order by a.place, a.mixture_place",
                {"id": comparison, "place": place},
            )
            return [StoredResponse(*row) for row in rows.fetchall()]

    def completions(self, comparison: int, place: int | None = None) -> list[dict[str, Any]]:
        """Return full completions with their `place` and `mixture_name`, in order, of one prompt or of all."""
        where = "" if place is None else "and a.place = :place"
        with self.store.reading() as db:
            rows = db.query(
                "select a.place, m.name, a.completion_id from comparison_completions a join comparison_mixtures m "
                "on m.comparison_id = a.comparison_id and m.place = a.mixture_place "
                f"where a.comparison_id = :id {where} order by a.place, a.mixture_place",
                {"id": comparison, "place": place},
            )
            return [
                {"place": row["place"], "mixture_name": row["name"], **read_completion(db, row["completion_id"])}
                for row in list(rows)
            ]


def read_plan(db: Database, comparison: int) -> Plan:
    """Read a comparison's plan.

    Raises:
        InputError: if it has been deleted.
    """
    row = next(iter(db.query("select * from comparisons where id = ?", [comparison])), None)
    if row is None:
        raise InputError("This comparison was deleted. Choose another.")
    mixtures = db.query(
        "select c.name, m.weights, m.rule, m.gain, m.exponent from comparison_mixtures c "
        "join mixtures m on m.id = c.mixture_id where c.comparison_id = ? order by c.place",
        [comparison],
    )
    prompts = db.query(
        "select p.text from comparison_prompts c join prompts p on p.id = c.prompt_id where c.comparison_id = ? "
        "order by c.place",
        [comparison],
    )
    scale: Mapping[str, list[float]] = json.loads(row["scale"])
    return Plan(
        model=row["model"],
        source=row["source"],
        mixtures={
            mixed.pop("name"): Mixture(**{**mixed, "weights": json.loads(mixed["weights"])}) for mixed in mixtures
        },
        prompts=[prompt["text"] for prompt in prompts],
        sampling=Sampling(max_new_tokens=row["max_new_tokens"], temperature=row["temperature"]),
        seed=row["seed"],
        scale={objective: (mean, std) for objective, (mean, std) in scale.items()},
    )


def studies_with(db: Database, comparison: int) -> list[str]:
    """Return the names of the studies that use a comparison or its responses, the oldest first."""
    rows = db.execute(
        "select name from studies s where comparison_id = :id or exists (select 1 from comparison_completions c "
        "join study_items i on c.completion_id in (i.first_id, i.second_id) where c.comparison_id = :id "
        "and i.study_id = s.id) order by created_at, rowid",
        {"id": comparison},
    )
    return [name for (name,) in rows]


def delete_comparison(db: Database, comparison: int) -> None:
    """Delete a comparison with its responses and prompts within the caller's transaction."""
    completions = column(db, "comparison_completions", "completion_id", comparison)
    prompts = column(db, "comparison_prompts", "prompt_id", comparison)
    for table in ("comparison_completions", "comparison_prompts", "comparison_mixtures"):
        db.execute(f"delete from {table} where comparison_id = ?", [comparison])
    db.execute("delete from comparisons where id = ?", [comparison])
    for table in ("rewards", "missing_rewards"):
        db.conn.executemany(f"delete from {table} where completion_id = ?", completions)
    db.conn.executemany("delete from completions where id = ?", completions)
    delete_unused_prompts(db, prompts)


def delete_unused_prompts(db: Database, prompts: Iterable[tuple[int]]) -> None:
    """Delete those of these prompts (ids in 1-tuples) that no row references, within the caller's transaction."""
    db.conn.executemany(
        "delete from prompts where id = ?1 and not exists (select 1 from completions where prompt_id = ?1) "
        "and not exists (select 1 from comparison_prompts where prompt_id = ?1) "
        "and not exists (select 1 from study_items where prompt_id = ?1)",
        prompts,
    )


def column(db: Database, table: str, name: str, comparison: int) -> list[tuple[int]]:
    """Return one column of a comparison's rows in a table, as 1-tuples."""
    return db.execute(f"select {name} from {table} where comparison_id = ?", [comparison]).fetchall()


def now() -> str:
    """Return the current UTC time in ISO format, with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
