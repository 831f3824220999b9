"""Calibrate rewards configured without `mean` and `std`, from a bank or a few reference responses.

The scale is cached beside the bank, under the same fingerprint, for the next start.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from engine.bank.collection import PROMPTS as BANK_PROMPTS
from engine.bank.collection import SAMPLING, kept, proposals
from engine.bank.estimate import Bank
from engine.bank.storage import BankFile
from engine.config import REFERENCE
from engine.errors import InputError
from engine.files import write_json
from engine.inference.engine import Engine
from engine.inference.request import wait
from engine.prompts import read_prompts
from engine.reward_kind import Scored
from engine.rewards.missing import missing_counts, missing_line
from engine.rewards.scale import RewardScale
from engine.seeding import seed_of

log = logging.getLogger("mixdesk")

SAMPLES = 32  # reference responses; the standard error of a mean is then 0.18 standard deviations


def scale_of_bank(bank: Bank) -> RewardScale:
    """Return mean and standard deviation of the reference's rewards, from all responses importance-weighted to λ = 0.

    The result is empty for a bank without the reference among its proposals.
    """
    if REFERENCE not in bank.sources or not bank.objectives:
        return RewardScale()
    log_w = bank.log_base
    w = np.exp(log_w - log_w.max(-1, keepdims=True))
    w /= w.sum(-1, keepdims=True) * len(w)
    known = np.isfinite(bank.rewards)
    rewards = np.where(known, bank.rewards, 0.0)
    total = np.einsum("pn,pnr->r", w, known)  # 1 unless rewards are missing
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.einsum("pn,pnr->r", w, rewards) / total
        variance = np.einsum("pn,pnr->r", w, known * (rewards - mean) ** 2) / total
    enough = known.sum((0, 1)) > 1
    named = [
        {name: value for name, value, use in zip(bank.objectives, values.tolist(), enough, strict=True) if use}
        for values in (mean, np.sqrt(variance))
    ]
    return RewardScale.from_samples(*named)


class Calibration:
    """Calibrate the rewards of an engine. Results are stored in `engine.reward_set.scale`. Thread-safe.

    Attributes:
        engine: the engine.
        done: the number of reference responses sampled so far.
        wanted: the number of reference responses to sample.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.done, self.wanted = 0, 0  # reference responses, while they are sampled

    @property
    def missing(self) -> list[str]:
        """The objectives that are not calibrated."""
        reward_set = self.engine.reward_set
        return reward_set.scale.uncalibrated(reward_set.objectives)

    @property
    def bank_file(self) -> BankFile:
        """The file of the desk's bank for this configuration."""
        return BankFile(self.engine.config, SAMPLING, proposals(self.engine))

    @property
    def path(self) -> Path:
        """The path of the cached scale, beside the bank's file."""
        return self.bank_file.path.with_suffix(".scale.json")

    def use(self, scale: RewardScale, keep: bool = True) -> None:
        """Add a scale to the engine's; objectives that are calibrated already keep theirs.

        Args:
            scale: the scale to add.
            keep: cache the engine's scale if it has gained an objective.
        """
        before = self.missing
        if not before:
            return
        self.engine.reward_set.scale = self.engine.reward_set.scale.merged(scale)
        if keep and len(self.missing) < len(before):
            try:
                write_scale(self.path, self.engine.reward_set.scale)
            except OSError as error:
                log.warning("the rewards' scale could not be kept: %s", error)

    def load(self, bank: Bank | None = None) -> None:
        """Calibrate without sampling: from the cached scale, else from `bank`, else from the cached or shipped bank."""
        if not self.missing:
            return
        self.use(read_scale(self.path), keep=False)
        if not self.missing:
            return
        if bank is None and self.engine.config.prompts:
            prompts = list(dict.fromkeys(read_prompts(self.engine.config.prompts)[:BANK_PROMPTS]))
            bank = kept(self.engine, prompts, self.bank_file)
        if bank is not None:
            self.use(scale_of_bank(bank))

    def sample(
        self, prompts: Sequence[str] | None = None, stopped: Callable[[], bool] = lambda: False, polite: bool = False
    ) -> None:
        """Calibrate the objectives that `load` cannot calibrate, from SAMPLES reference responses.

        Args:
            prompts: the prompts to sample responses to, evenly spaced; the configuration's if None.
            stopped: sampling is aborted when it returns true.
            polite: sample one response at a time, and none while other requests wait for room in the batch.

        Raises:
            InputError: there are no prompts to sample with.
        """
        self.load()
        if not self.missing:
            return
        engine, missing = self.engine, self.missing
        if prompts is None:
            if not engine.config.prompts:
                raise InputError(
                    f"{engine.config.file}: rewards: {', '.join(missing)} cannot be calibrated without prompts; add "
                    "prompts to the configuration, or mean and std to its rewards"
                )
            prompts = list(dict.fromkeys(read_prompts(engine.config.prompts)))
        chosen = [prompts[i * len(prompts) // SAMPLES] for i in range(SAMPLES)]
        self.done, self.wanted = 0, SAMPLES
        client, reference = object(), engine.mixture({REFERENCE: 1.0})
        items: list[Scored] = []
        window = 1 if polite else max(1, engine.max_rows // 2)
        for start in range(0, SAMPLES, window):
            while polite and engine.waiting and not stopped():
                time.sleep(0.05)
            requests = [
                engine.submit(
                    *(prompt, reference, SAMPLING, seed_of("scale", start + i, prompt)),
                    trace=False, rewards=False, client=client,
                )
                for i, prompt in enumerate(chosen[start : start + window])
            ]  # fmt: skip
            completions = [wait(request, stopped) for request in requests]
            if stopped() or any(completion is None for completion in completions):
                for request in requests:
                    request.cancel()
                return
            items += [(c.prompt, c.text, c.tokens) for c in completions if c is not None]
            self.done = len(items)
        rows = engine.rewards(items)
        values = {name: np.array([row[name] for row in rows if name in row]) for name in missing}
        if counts := missing_counts(row.missing for row in rows):
            log.warning("rewards are missing, and not counted in their scale: %s", missing_line(counts))
        values = {name: column for name, column in values.items() if len(column) > 1}
        means = {name: float(column.mean()) for name, column in values.items()}
        stds = {name: float(column.std(ddof=1)) for name, column in values.items()}
        self.use(RewardScale.from_samples(means, stds))


def calibrated(engine: Engine, bank: Bank | None = None, prompts: Sequence[str] | None = None) -> RewardScale:
    """Return the engine's scale, after calibrating the objectives that it lacks. Raises InputError.

    Args:
        engine: the engine.
        bank: a bank to calibrate from, if the scale is not cached.
        prompts: the prompts to sample reference responses to, if it cannot be calibrated from a bank.
    """
    calibration = Calibration(engine)
    calibration.load(bank)
    calibration.sample(prompts)
    return engine.reward_set.scale.require(engine.reward_set.objectives)


def read_scale(path: Path) -> RewardScale:
    """Return the scale that `write_scale` wrote to a file; an empty one if the file is missing or malformed."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        mean = {str(name): float(value) for name, value in kept["mean"].items()}
        std = {str(name): float(value) for name, value in kept["std"].items()}
        constant = frozenset(map(str, kept["constant"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return RewardScale()
    if (
        mean.keys() != std.keys()
        or not all(np.isfinite([*mean.values(), *std.values()]))
        or min(std.values(), default=1) <= 0
    ):
        return RewardScale()
    return RewardScale(mean, std, constant)


def write_scale(path: Path, scale: RewardScale) -> None:
    """Write a scale as JSON, atomically."""
    write_json(path, {"mean": dict(scale.mean), "std": dict(scale.std), "constant": sorted(scale.constant)})
