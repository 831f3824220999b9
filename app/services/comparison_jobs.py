"""Comparison jobs: they continue when a page is closed, and can be resumed after the app has stopped."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.services.visitor import ANYBODY, Visitor
from app.storage.comparisons import ComparisonTables, Plan, Scale
from app.storage.database import Store
from app.storage.owners import Owners
from engine import Engine, InputError, Mixture, Sampling
from engine.bank.calibration import Calibration
from engine.evaluation.comparison import MAX_MIXTURES, answers
from engine.prompts import PromptSet

log = logging.getLogger("mixdesk")

AT_ONCE = 2  # comparisons; more would only share the same engine
MAX_STORED = 500  # comparisons


@dataclass
class ComparisonJob:
    """A running comparison. Any thread may read it."""

    comparison: int
    wanted: int  # prompts
    done: int
    address: str = ""  # network address of who started it
    at_first: int = field(init=False)
    unscored: list[dict[str, Any]] = field(default_factory=list)  # completions that lacked a reward when it began
    mended: int = 0  # of those, the ones that were scored again
    began: float = field(default_factory=time.monotonic)
    stopping: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.at_first = self.done

    @property
    def seconds_left(self) -> float | None:
        """Remaining time in seconds at the speed so far; None before the first prompt is answered."""
        made = self.done - self.at_first
        return (time.monotonic() - self.began) / made * (self.wanted - self.done) if made else None


class Comparisons:
    """All comparisons of a store, and the running ones. Thread-safe.

    A comparison is stopped, resumed, deleted and exported by the browser that started it, or by the desk's owner.
    """

    def __init__(self, store: Store) -> None:
        self.tables = ComparisonTables(store)
        self.owners = Owners(store, "comparison")
        self.jobs: dict[int, ComparisonJob] = {}  # under way
        self.failures: dict[int, str] = {}  # why the last try ended
        self._lock = threading.Lock()

    def start(
        self,
        engine: Engine,
        prompts: PromptSet,
        mixtures: Mapping[str, Mixture],
        sampling: Sampling,
        seed: int = 0,
        most: int | None = None,
        visitor: Visitor = ANYBODY,
    ) -> int:
        """Start a comparison on the first `most` prompts, or on all, and return its id.

        Raises:
            InputError: if an argument is invalid, or too many comparisons run or are stored; nothing is stored then.
        """
        if len(mixtures) < 2:
            raise InputError("Mixtures: choose two or more; the first is the one to win against.")
        if len(mixtures) > MAX_MIXTURES:
            raise InputError(f"Mixtures: found {len(mixtures)}; choose up to {MAX_MIXTURES}.")
        twins: dict[object, str] = {}
        for name, mixture in mixtures.items():
            twin = twins.setdefault((tuple(sorted(mixture.weights.items())), mixture.kind), name)
            if twin != name:
                raise InputError(f"Mixtures: {twin} and {name} are the same; leave one out.")
        if not 0 <= seed < 2**63:
            raise InputError(f"seed: found {seed}; give a whole number from 0 to {2**63 - 1:,}")
        chosen = prompts.prompts[:most]
        if not chosen:
            raise InputError("Prompts: give 1 or more, or leave it empty for all.")
        for line, prompt in zip(prompts.lines, chosen, strict=False):
            try:
                engine.check_prompt(prompt, sampling.max_new_tokens)
            except InputError as error:
                raise InputError(f"{prompts.name}, line {line}: {error}") from None
        plan = Plan(engine.config.name, prompts.name, dict(mixtures), chosen, sampling, seed, comparison_scale(engine))
        with self._lock:
            self._room(visitor)
            with self.tables.store.reading() as db:
                stored = db.table("comparisons").count
            if stored >= MAX_STORED:
                raise InputError(f"There are {stored} comparisons, and no room for more: delete one first.")
            comparison = self.tables.add(plan)
            self.owners.record(comparison, visitor.browser)
            self._begin(engine, comparison, plan, visitor)
        return comparison

    def resume(self, engine: Engine, comparison: int, visitor: Visitor = ANYBODY) -> None:
        """Resume a stopped or interrupted comparison: generate missing responses and compute missing rewards.

        Stored responses are kept. Does nothing if it is running.

        Raises:
            InputError: if it belongs to another configuration or browser, or too many comparisons are running.
        """
        self.check_owner(comparison, visitor)
        with self._lock:
            if comparison in self.jobs:
                return
            plan = self.tables.plan(comparison)
            if plan.model != engine.config.name:
                raise InputError(
                    f"This comparison is of the configuration '{plan.model}', and '{engine.config.name}' is loaded: "
                    "load that one to continue."
                )
            for mixture in plan.mixtures.values():
                engine.mixture(**mixture.as_dict())
            self._room(visitor)
            self._begin(engine, comparison, plan, visitor)

    def stop(self, comparison: int, visitor: Visitor = ANYBODY) -> None:
        """Stop a running comparison; its finished responses are kept.

        Raises:
            InputError: if another browser started it.
        """
        self.check_owner(comparison, visitor)
        if job := self.jobs.get(comparison):
            job.stopping.set()

    def delete(self, comparison: int, visitor: Visitor = ANYBODY) -> None:
        """Delete a comparison and its responses.

        Raises:
            InputError: if it is running, or another browser started it.
        """
        self.check_owner(comparison, visitor)
        with self._lock:
            if comparison in self.jobs:
                raise InputError("This comparison is under way: stop it first, then delete it.")
            self.tables.delete(comparison)
            self.owners.forget(comparison)
            self.failures.pop(comparison, None)

    def check_owner(self, comparison: int, visitor: Visitor) -> None:
        """Raise InputError if the visitor may not change or export a comparison."""
        if not visitor.owner and not self.owners.made(comparison, visitor.browser):
            raise InputError(
                "This comparison was started in another browser: only there, or by the desk's owner, is it stopped, "
                "resumed, deleted or exported."
            )

    def close(self) -> None:
        """Stop all comparisons and wait until their finished responses are stored."""
        for job in list(self.jobs.values()):
            job.stopping.set()
            if job.thread:
                job.thread.join()

    def _room(self, visitor: Visitor) -> None:
        if not visitor.owner and any(job.address == visitor.address for job in self.jobs.values()):
            raise InputError("A comparison from your address is under way: wait for it, or stop it.")
        if len(self.jobs) >= AT_ONCE:
            raise InputError(f"{AT_ONCE} comparisons are under way: wait for one, or stop it.")

    def _begin(self, engine: Engine, comparison: int, plan: Plan, visitor: Visitor) -> None:
        missing = self.tables.missing(comparison)
        job = ComparisonJob(comparison, len(plan.prompts), len(plan.prompts) - len(missing), visitor.address)
        job.unscored = self.tables.unscored(comparison, engine.reward_set.objectives)
        self.jobs[comparison] = job
        self.failures.pop(comparison, None)
        job.thread = threading.Thread(
            target=self._run, args=[engine, job, plan, missing], name=f"mixdesk-comparison-{comparison}", daemon=True
        )
        job.thread.start()

    def _calibrate(self, engine: Engine, job: ComparisonJob, plan: Plan) -> None:
        """Store the scale of the comparison's rewards, calibrated from reference responses if it is not known."""
        calibration = Calibration(engine)
        calibration.load()
        calibration.sample(None if engine.config.prompts else plan.prompts, job.stopping.is_set)
        self.tables.rescale(job.comparison, comparison_scale(engine))

    def _mend(self, engine: Engine, job: ComparisonJob) -> None:
        """Compute the rewards that were missing when this run began."""
        for row in job.unscored:
            if job.stopping.is_set():
                return
            wanted = [name for name in engine.reward_set.objectives if name not in row["rewards"]]
            (rewards,) = engine.rewards([(row["prompt"], row["text"], row["tokens"])], wanted)
            self.tables.mend(row["id"], rewards)
            job.mended += 1

    def _run(self, engine: Engine, job: ComparisonJob, plan: Plan, missing: dict[int, str]) -> None:
        try:
            if any(math.isnan(std) for _, std in plan.scale.values()):
                self._calibrate(engine, job, plan)
            made = answers(
                engine, missing, list(plan.mixtures.values()), plan.sampling, plan.seed, job.stopping.is_set
            )  # fmt: skip
            for place, completions in made:
                self.tables.keep(job.comparison, place, completions, plan.model)
                job.done += 1
            self._mend(engine, job)
            if job.done == job.wanted:
                self.tables.finish(job.comparison)
        except InputError as error:
            self.failures[job.comparison] = str(error)
        except Exception as error:
            log.exception("a comparison failed")
            self.failures[job.comparison] = f"{type(error).__name__}; the log says more"
        finally:
            self.jobs.pop(job.comparison, None)


def comparison_scale(engine: Engine) -> Scale:
    """Return {objective: (mean, standard deviation)} of the reference's rewards; NaN where they are not calibrated.

    A reward that is constant for the reference keeps its own unit: (0, 1).
    """
    known = engine.reward_set.scale
    return {
        name: (0.0, 1.0) if name in known.constant else (known.mean.get(name, math.nan), known.std.get(name, math.nan))
        for name in engine.reward_set.objectives
    }
