"""Detect prompts that are far from the configuration's own, by the ranks of their tokens under the reference."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import platformdirs
import torch
from transformers import DynamicCache

from engine.config import Config
from engine.errors import InputError
from engine.files import write_json
from engine.inference.prompt_reading import piece_on
from engine.messages import Prompt, messages_of
from engine.models.cache_argument import CACHE
from engine.models.config_fingerprint import config_fingerprint
from engine.models.policy_set import PolicySet
from engine.prompts import read_prompts

log = logging.getLogger("mixdesk")

PROMPTS = 64  # of the configuration's, evenly spaced, to calibrate with
AT_ONCE = 8  # of them in one forward pass: responses under way wait for no more
QUANTILE = 0.9
# Ordinary English costs a broad model 0.2 to 0.9 a byte, however narrow the configuration's prompts are.
FLOOR = 1.0
# Nearly all questions begin alike ("What is the"): so many tokens say nothing of the topic, where there are others.
OPENING = 3
# Two letters are too few to judge by.
FEWEST_BYTES = 12
SLOW = 2.0  # seconds of calibrating, from which on the threshold is kept for the next start

WARNING = "This prompt is unlike those that these policies know, so expect responses about something else."


class Familiarity:
    """Compare prompts with the configuration's own. Thread-safe."""

    def __init__(
        self,
        policy_set: PolicySet,
        config: Config,
        on_worker: Callable[[Generator[None, None, list[float]]], list[float]],
    ) -> None:
        """Prepare a comparison; the configuration's prompts are measured at the first call of `warning`.

        Args:
            policy_set: The policies.
            config: Their configuration. If it has no prompts, no prompt is unfamiliar.
            on_worker: A function that runs a generator on the thread that owns the models, a part at a time, and
                returns its result.
        """
        self._policy_set, self._config, self._on_worker = policy_set, config, on_worker
        self._threshold: float | None = None
        self._lock = threading.Lock()

    @property
    def threshold(self) -> float:
        """The largest surprise of a familiar prompt, measured at the first access; infinite without prompts."""
        with self._lock:
            if self._threshold is None:
                self._threshold = self._calibrate()
            return self._threshold

    def _calibrate(self) -> float:
        prompts = self._config.prompts
        try:
            known = read_prompts(prompts) if prompts else []
        except InputError as error:
            log.warning("prompts are not checked for being unfamiliar: %s", error)
            known = []
        if not known:
            return float("inf")
        count = min(PROMPTS, len(known))
        chosen = [known[i * len(known) // count] for i in range(count)]
        path = kept_at(self._config, chosen)
        try:
            return float(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            pass  # not measured before
        began = time.monotonic()
        measured = [
            value for start in range(0, count, AT_ONCE) for value in self.surprise(chosen[start : start + AT_ONCE])
        ]
        threshold = max(FLOOR, torch.tensor(measured).quantile(QUANTILE).item())
        if time.monotonic() - began > SLOW:
            try:
                write_json(path, threshold)
            except OSError as error:
                log.info("the threshold of unfamiliar prompts is not kept: %s", error)
        return threshold

    def surprise(self, prompts: list[Prompt] | list[str]) -> list[float]:
        """Return the surprise of each prompt: the sum of log(1 + rank) over the user's last message, per byte.

        The first OPENING tokens are left out. A token's rank under the reference is 0 if it is the likeliest. Unlike
        its log-probability, the rank does not depend on the overconfidence of a small model that was trained on its
        prompts many times.
        """
        return self._on_worker(surprise(self._policy_set, list(prompts)))

    def warning(self, prompt: Prompt) -> str:
        """Return a one-line warning to show above the responses, or "" if the prompt is familiar."""
        threshold = self.threshold
        if threshold == float("inf"):
            return ""
        return WARNING if self.surprise([prompt])[0] > threshold else ""


def kept_at(config: Config, prompts: list[str]) -> Path:
    """Return the path of the cached threshold for a configuration and its prompts."""
    settings = [PROMPTS, QUANTILE, FLOOR, OPENING, FEWEST_BYTES]
    key = hashlib.sha256(json.dumps([config_fingerprint(config), prompts, settings]).encode()).hexdigest()[:16]
    return platformdirs.user_cache_path("mixdesk") / "familiarity" / f"{config.name}-{key}.json"


@torch.inference_mode()
def surprise(policy_set: PolicySet, prompts: list[Prompt]) -> Generator[None, None, list[float]]:
    """Compute `Familiarity.surprise` in parts. Must run on the thread that owns the models."""
    reference = policy_set.policies[0]
    rows = [policy_set.prompt_ids(reference, prompt) for prompt in prompts]
    spans = [said_last(policy_set, prompt, row) for prompt, row in zip(prompts, rows, strict=True)]
    ids, mask = policy_set.pad(rows)
    at_a_time = ids.shape[1]
    cached: dict[str, Any] = {}
    if len(rows) == 1 and reference.model not in policy_set.reread:
        at_a_time = piece_on(policy_set.device)
        cached = {"use_cache": True, CACHE: DynamicCache()}
    parts = []
    for begin in range(0, ids.shape[1], at_a_time):
        end = begin + at_a_time
        part = policy_set.forward(
            *(reference.model, [reference] * len(rows), ids[:, begin:end], mask[:, :end]), **cached
        ).float()
        after = ids[:, begin + 1 : end + 1, None]  # the logits at a position are of the token after it
        scores = part[:, : after.shape[1]]
        parts.append((scores > scores.gather(-1, after)).sum(-1))
        yield
    ranks = torch.cat(parts, 1)  # [prompts, positions - 1], of the tokens from the second on
    found = []
    for i, (first, last) in enumerate(spans):
        left = ids.shape[1] - len(rows[i])
        if last - first > 2 * OPENING:
            first += OPENING
        own = ranks[i, left + max(first, 1) - 1 : left + last - 1]
        length = len(policy_set.text(rows[i][first:last]).encode())
        found.append(own.double().log1p().sum().item() / max(length, FEWEST_BYTES))
    return found


def said_last(policy_set: PolicySet, prompt: Prompt, ids: list[int]) -> tuple[int, int]:
    """Return the range [first, end) of the user's last message in the prompt's token ids.

    It is found by comparison with the same prompt with an empty last message.
    """
    *before, last = messages_of(prompt)
    try:
        without = policy_set.prompt_ids(policy_set.policies[0], [*before, {**last, "content": ""}])
    except InputError:  # a template that refuses an empty message: its own words count too
        without = []
    shorter = min(len(ids), len(without))
    first = next((i for i in range(shorter) if ids[i] != without[i]), shorter)
    after = next((i for i in range(shorter - first) if ids[-1 - i] != without[-1 - i]), shorter - first)
    return first, len(ids) - after
