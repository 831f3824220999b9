"""The bank behind the desk: read at start-up, sampled on request, and its estimates at the faders' mixture."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from engine import Engine, InputError
from engine.bank import collection
from engine.bank.calibration import Calibration
from engine.bank.collection import PROMPTS, RESPONSES, SAMPLING
from engine.bank.estimate import Bank
from engine.bank.storage import BankFile
from engine.prompts import read_prompts
from engine.rules.registry import RULES
from engine.solvers import Solution, bsmd, maxmin, mpo, target
from engine.solvers.outcome import Outcome, outcome, scaled
from engine.solvers.pareto import Front, front

log = logging.getLogger("mixdesk")


@dataclass(frozen=True)
class Reading:
    """What is shown of the faders' mixture. raw, standard, errors: {objective: number}, as a radar has them, the errors
    in standard deviations; empty where there is nothing to show, and text says why."""

    text: str
    raw: Mapping[str, float] = field(default_factory=dict)
    standard: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    reliable: bool = True


@dataclass(frozen=True)
class Aimed:
    """What came of a target. weights: of all policies; free: those that could move. By objective, in standard
    deviations: how much more was asked of some, what every one gains, and the standard error of that."""

    weights: Mapping[str, float]
    free: list[str]
    asked: Mapping[str, float]
    gained: Mapping[str, float]
    errors: Mapping[str, float]
    ess_fraction: float
    reliable: bool


@dataclass
class BankJob:
    """A bank being sampled, for as long as a session waits for it."""

    responses: int  # of each prompt
    waiting: set[str]  # sessions
    done: int = 0
    wanted: int = 0
    error: Exception | None = None
    over: threading.Event = field(default_factory=threading.Event)

    def report(self, done: int, wanted: int) -> None:
        self.done, self.wanted = done, wanted


class Expected:
    """One bank for all sessions. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.objectives = engine.reward_set.objectives
        self.calibration = Calibration(engine)
        prompts = engine.config.prompts
        self.prompts = list(dict.fromkeys(read_prompts(prompts)[:PROMPTS])) if prompts else []
        self.bank: Bank | None = None
        self._balanced: dict[str, tuple[Bank, Solution]] = {}  # by method
        self._front: tuple[Bank, Front] | None = None
        self._loading, self._sampling = threading.Lock(), threading.Lock()
        self._loaded = False
        self._job: BankJob | None = None

    @cached_property
    def file(self) -> BankFile:
        return BankFile(self.engine.config, SAMPLING, collection.proposals(self.engine))

    @property
    def centre(self) -> np.ndarray:
        """The reference's mean rewards [R]; NaN where they are not calibrated."""
        return self.engine.reward_set.scale.centre(self.objectives)

    @property
    def scale(self) -> np.ndarray:
        """The reference's standard deviations [R]; NaN where they are not calibrated."""
        return self.engine.reward_set.scale.spread(self.objectives)

    @property
    def calibrating(self) -> str:
        """Which rewards the radar does not show, and why; empty if it shows all."""
        constant = sorted(self.engine.reward_set.scale.constant)
        said = f"{', '.join(constant)}: always the same, no scale. " if constant else ""
        if missing := self.calibration.missing:
            why = "" if self.prompts else "; give prompts, or mean and std, in the configuration"
            said += f"{', '.join(missing)}: not calibrated{why}."
        return said.strip()

    def calibrate(self) -> None:
        """Sample a few reference responses in the background if the rewards have no scale yet."""
        self.load()
        try:
            self.calibration.sample(polite=True)
        except InputError as error:
            log.warning("%s", error)
        except Exception:
            log.exception("the rewards could not be calibrated")

    # ------------------------------------------------------------------------------------------------------- the bank

    def load(self) -> None:
        """Take the bank that is in the cache or ships; the first who asks reads it, the others wait for that."""
        with self._loading:
            if self._loaded or not self.prompts:
                return
            self._loaded = True
            try:
                found = collection.kept(self.engine, self.prompts, self.file)
            except Exception:
                log.exception("the bank could not be read")
                return
            self.bank = self.bank or (found and found.decoding)
            self.calibration.load(self.bank)

    @property
    def sampling(self) -> bool:
        """Whether a session waits for a bank that is being sampled."""
        return self._job is not None and not self._job.over.is_set()

    @property
    def missing(self) -> str | None:
        """Why there can be no bank, and what to do; None if there can."""
        if not self.objectives:
            return "This configuration has no reward models: add rewards to it."
        if not self.prompts:
            return "This configuration names no prompts to sample a bank with: add prompts to it."
        return None

    async def sample(self, session: str) -> AsyncIterator[tuple[int, int]]:
        """Sample a bank, or more of the one there is; yields (done, wanted) responses until it is there.

        Concurrent callers wait for the same sampling. A session waits until it ends the iteration or calls `leave`;
        when none waits, sampling stops and its responses are kept. Raises InputError, also when the session left.
        """
        if self.missing:
            raise InputError(self.missing)
        job, left = self._join(session), False
        try:
            while not left and not job.over.is_set():
                yield job.done, job.wanted
                await asyncio.sleep(0.2)
                left = session not in job.waiting
        finally:
            job.waiting.discard(session)
        if job.error and not left:
            raise job.error
        if job.error or not job.over.is_set():
            raise InputError(f"Stopped: {job.done} of {job.wanted} responses are kept; press it again to continue.")

    def leave(self, session: str) -> None:
        """The session waits for no bank."""
        if self._job:
            self._job.waiting.discard(session)

    def _join(self, session: str) -> BankJob:
        with self._loading:
            if self._job is None or self._job.over.is_set() or not self._job.waiting:
                there = self.bank.rewards.shape[1] if self.bank else 0
                self._job = BankJob(there + RESPONSES, {session})
                threading.Thread(target=self._run, args=[self._job], name="mixdesk-bank", daemon=True).start()
            else:
                self._job.waiting.add(session)
            return self._job

    def _run(self, job: BankJob) -> None:
        # One after the other: the last one may still be stopping.
        with self._sampling:
            try:
                sampled = collection.collect(
                    self.engine, self.prompts, job.responses, SAMPLING,
                    file=self.file, progress=job.report, stopped=lambda: not job.waiting,
                )  # fmt: skip
                self.calibration.load(sampled)
                self.bank = sampled.decoding
            except Exception as error:
                job.error = error
            job.over.set()

    # ----------------------------------------------------------------------------------------------- what it says

    def read(self, faders: Mapping[str, float], rule: str, gain: float) -> Reading:
        """The expected rewards at the faders' weights λ: those of π_ref Π (π_k/π_ref)^{gain λ_k}."""
        if self.missing:
            return Reading(f"No expected rewards. {self.missing}")
        if not RULES[rule].is_product:
            return Reading(f"No expected rewards for the {rule} rule: a bank knows the geometric rule alone.")
        if self.bank is None:
            return Reading(f"No expected rewards yet: press Balance, which samples a bank. {self.calibrating}".strip())
        total = sum(faders.values())
        if not total:
            return Reading("No expected rewards: all faders are at zero or silent.")
        weights = gain * np.array([faders[name] for name in self.bank.policies]) / total
        estimate = self.bank.estimate(weights)
        share = f"{float(estimate.ess_fraction):.0%}"
        if estimate.reliable:
            text = f"Expected: over {len(self.prompts)} prompts at temperature {SAMPLING.temperature:g}; "
            text += f"{share} of the bank counts."
        else:
            lower = "lower the gain, or " if gain > 1 else ""
            text = f"Expected is a guess here: {share} of the bank counts, {float(estimate.ess):.1f} responses a "
            text += f"prompt; {lower}sample more in Explore."
        return Reading(
            f"{text} {self.calibrating}".strip(),
            raw=dict(zip(self.objectives, estimate.rewards.tolist(), strict=True)),
            standard=self._named((estimate.rewards - self.centre) / self.scale),
            errors=self._named(self.bank.prompt_errors(weights) / self.scale),
            reliable=bool(estimate.reliable),
        )

    def _named(self, values: np.ndarray) -> dict[str, float]:
        """Of the objectives that are calibrated."""
        return {name: value for name, value in zip(self.objectives, values.tolist(), strict=True) if np.isfinite(value)}

    def balanced(
        self, fixed: Mapping[str, float] | None = None, method: str = mpo.SOLVER.name, gain: float = 1.0
    ) -> Solution:
        """Return the fair weights, those of all policies at gain 1 computed once a bank and method.

        Args:
            fixed: {policy: the weight that it keeps}.
            method: `mpo`, by the policies' own rewards, or `maxmin`, by the expected rewards.
            gain: that the rewards are expected at; the policies' own have none.

        Raises:
            InputError: nothing is left to move, or the rewards have no scale.
        """
        there, fixed = self._there(), fixed or {}
        plain = not fixed and (gain == 1 or method == mpo.SOLVER.name)
        kept, solution = self._balanced.get(method, (None, None))
        if plain and kept is there and solution is not None:
            return solution
        if method == mpo.SOLVER.name:
            solution = mpo.solve_mpo(there.holding(fixed) if fixed else there)
        else:
            part, centre, scale = self.scaled()
            solution = maxmin.solve_maxmin(part.holding(fixed, gain), centre, scale)
        solution = solution.among(there.policies, fixed)
        if plain:
            self._balanced[method] = there, solution
        return solution

    def known(self, method: str) -> Solution | None:
        """Return what `balanced` has computed for this bank already."""
        kept, solution = self._balanced.get(method, (None, None))
        return solution if kept is self.bank else None

    def outcome(
        self,
        weights: Mapping[str, float],
        fixed: Mapping[str, float] | None = None,
        gain: float = 1.0,
        search: bool = True,
    ) -> Outcome:
        """Return the expected rewards at these weights, and a point that is better in all, around what is fixed.

        Raises InputError.
        """
        (part, centre, scale), fixed = self.scaled(), fixed or {}
        part = part.holding(fixed, gain)
        free = np.array([weights[name] for name in part.policies])
        found = outcome(part, centre, scale, free / free.sum() if free.any() else free + 1 / len(free), search)
        better = found.better and found.better.among(self._there().policies, fixed)
        return replace(found, better=better)

    def scaled(self) -> tuple[Bank, np.ndarray, np.ndarray]:
        """Return the bank of the objectives that have a scale, with the reference's means and standard deviations [R].

        A reward that is constant for the reference is left out. Raises InputError.
        """
        return scaled(self._there(), self.engine)

    def reaching(
        self,
        floors: Mapping[str, float],
        fixed: Mapping[str, float] | None = None,
        worth: Mapping[str, float] | None = None,
        gain: float = 1.0,
        repeats: int = 0,
    ) -> Solution:
        """The weights with the most reward in all above floors, {objective: standard deviations}. worth: how much some
        objectives count (1 by default); repeats: of the bootstrap, for the weights' errors. Raises InputError."""
        fixed, worth = fixed or {}, worth or {}
        if not floors and not worth:
            raise InputError("Type a floor for at least one objective, such as 0.2, or what counts more.")
        there, centre, scale = self.scaled()
        target.check_objectives("counts", worth, there.objectives)
        target.check_objectives("floor", floors, there.objectives)
        part = there.holding(fixed, gain)
        found = target.solve_target(part, centre, scale, {}, floors, repeats=repeats, worth=worth)
        return found.among(there.policies, fixed)

    def aim(
        self,
        faders: Mapping[str, float],
        goal: Mapping[str, float],
        fixed: Mapping[str, float],
        gain: float,
        quick: bool,
    ) -> Aimed:
        """The weights whose expected rewards come nearest to those of the faders' weights, but for the goal's.

        goal: {objective: standard deviations}; fixed: {policy: the weight that it keeps}; quick: search from these
        weights alone. Raises InputError, also where there is nothing to move.
        """
        total = sum(faders.values())
        self._there()
        if not total:
            raise InputError("All faders are at zero or silent: raise one.")
        target.check_objectives("target", goal, self.objectives)
        there, centre, scale = self.scaled()
        target.check_objectives("target", goal, there.objectives)
        before = np.array([faders[name] for name in there.policies]) / total
        standard = (there.estimate(gain * before).rewards - centre) / scale
        now = dict(zip(there.objectives, standard.tolist(), strict=True))
        part, start = there.holding(fixed, gain), None
        free = np.array([faders[name] for name in part.policies])
        if quick:
            start = free / free.sum() if free.any() else np.full(len(free), 1 / len(free))
        found = target.solve_target(part, centre, scale, {**now, **goal}, {}, repeats=0, start=start)
        found = found.among(there.policies, fixed)
        after = np.array(list(found.weights.values()))
        gained, errors = there.change(gain * before, gain * after)
        return Aimed(
            weights=found.weights,
            free=part.policies,
            asked={name: value - now[name] for name, value in goal.items()},
            gained=dict(zip(there.objectives, (gained / scale).tolist(), strict=True)),
            errors=dict(zip(there.objectives, (errors / scale).tolist(), strict=True)),
            ess_fraction=found.ess_fraction,
            reliable=bool(there.estimate(gain * after).reliable),
        )

    def front(self) -> Front:
        """Expected rewards over all weights, computed once a bank, of the objectives of `scaled`. Raises InputError."""
        there, (part, centre, scale) = self._there(), self.scaled()
        if self._front is None or self._front[0] is not there:
            self._front = there, front(part, centre, scale)
        return self._front[1]

    def paths(self) -> dict[str, np.ndarray]:
        """{solver: expected rewards [steps, R] on its way, in standard deviations; the last row: of what it found}

        The paper's solver takes reference samples: the reference's part of this bank, which is small.

        Raises InputError.
        """
        there, (part, centre, scale) = self._there(), self.scaled()
        found = {mpo.SOLVER.name: self.balanced()}
        if (reference := there.reference_only) is not None:
            found[bsmd.SOLVER.name] = bsmd.solve_bsmd(reference, batch=reference.rewards.shape[1], repeats=0)
        ways = {name: [*made.path, [*made.weights.values()]] for name, made in found.items()}
        return {name: (part.estimate(np.array(way)).rewards - centre) / scale for name, way in ways.items()}

    def _there(self) -> Bank:
        if self.bank is None:
            raise InputError("There is no bank yet: sample one first.")
        return self.bank


def faders_of(weights: Mapping[str, float]) -> dict[str, float]:
    """Fader positions with these weights: the largest at the top, so that the others are as fine as they can be."""
    largest = max(weights.values())
    return {name: round(weight / largest, 2) for name, weight in weights.items()}


def in_words(weights: Mapping[str, float]) -> str:
    """'helpful 60%, concise 37%', the largest first."""
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {weight:.0%}" for name, weight in ordered)
