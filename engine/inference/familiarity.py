"""Detect prompts that are far from the configuration's own, by the ranks of their tokens under the reference."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import platformdirs
import torch

from engine.config import Config
from engine.errors import InputError
from engine.files import write_json
from engine.messages import Prompt, messages_of
from engine.models.config_fingerprint import config_fingerprint
from engine.models.policy_set import PolicySet
from engine.prompts import read_prompts

T = TypeVar("T")
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
        self, policy_set: PolicySet, config: Config, on_worker: Callable[[Callable[[], list[float]]], list[float]]
    ) -> None:
        """Prepare a comparison; the configuration's prompts are measured at the first call of `warning`.

        Args:
            policy_set: The policies.
            config: Their configuration. If it has no prompts, no prompt is unfamiliar.
            on_worker: A function that runs a call on the thread that owns the models, and returns its result.
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
        return self._on_worker(lambda: surprise(self._policy_set, list(prompts)))

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
def surprise(policy_set: PolicySet, prompts: list[Prompt]) -> list[float]:
    """Compute `Familiarity.surprise`. Must run on the thread that owns the models."""
    reference = policy_set.policies[0]
    rows = [policy_set.prompt_ids(reference, prompt) for prompt in prompts]
    spans = [said_last(policy_set, prompt, row) for prompt, row in zip(prompts, rows, strict=True)]
    ids, mask = policy_set.pad(rows)
    logits = policy_set.forward(reference.model, [reference] * len(rows), ids, mask).float()
    found = []
    for i, (first, last) in enumerate(spans):
        left = ids.shape[1] - len(rows[i])
        if last - first > 2 * OPENING:
            first += OPENING
        # The logits at a position are of the token after it; nothing predicts the first.
        places = torch.arange(left + max(first, 1), left + last, device=ids.device)
        scores = logits[i, places - 1]
        ranks = (scores > scores.gather(-1, ids[i, places, None])).sum(-1)
        length = len(policy_set.text(rows[i][first:last]).encode())
        found.append(ranks.double().log1p().sum().item() / max(length, FEWEST_BYTES))
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
