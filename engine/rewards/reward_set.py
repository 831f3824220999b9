"""Rewards: real-valued functions of (prompt, response), one per objective; a prompt may be a conversation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from engine.config import RewardSettings
from engine.messages import Prompt
from engine.models.policy_set import PolicySet
from engine.rewards.classifier import classifier
from engine.rewards.function import function
from engine.rewards.head import Heads
from engine.rewards.implicit import implicit
from engine.rewards.missing import Outcome, Rewards, finite, outcomes
from engine.rewards.scale import RewardScale
from engine.rewards.scorer import Scored, Scorer

log = logging.getLogger("mixdesk")
TOGETHER = {"classifier": 32}  # responses that a reward of this kind reads at once; others one


class RewardSet:
    """All rewards of a configuration."""

    def __init__(
        self, settings: list[RewardSettings], policy_set: PolicySet, tell: Callable[[str], None] = log.debug
    ) -> None:
        """Load the rewards of a configuration.

        Objectives are in the order of the policies, followed by those without a policy in the order of the
        configuration. Radar, table, faders and charts all use this order. `scale` is replaced as a whole when rewards
        are calibrated.

        Args:
            settings: the rewards.
            policy_set: the policies that heads and implicit rewards use.
            tell: called with one line before each reward is loaded.

        Raises:
            InputError: a reward cannot be loaded.
        """
        places = {policy.objective: place for place, policy in reversed(list(enumerate(policy_set.policies)))}
        settings = sorted(settings, key=lambda reward: places.get(reward.objective, len(places)))
        self.settings = {reward.objective: reward for reward in settings}
        self.scale = RewardScale(
            {reward.objective: reward.mean for reward in settings if reward.mean is not None},
            {reward.objective: reward.std for reward in settings if reward.std is not None},
        )
        makers = {"classifier": classifier, "function": function, "implicit": implicit}
        self._scorers: dict[str, Scorer] = {}
        self._heads = Heads(policy_set)
        self._answer = policy_set.chat.answer
        self._told: set[tuple[str, str]] = set()  # reasons that were logged
        for reward in settings:
            tell(f"loading the reward {reward.objective}")
            if reward.kind == "head":
                self._heads.add(reward)
            else:
                self._scorers[reward.objective] = makers[reward.kind](reward, policy_set)

    @property
    def objectives(self) -> list[str]:
        """The names of the objectives, in their order."""
        return list(self.settings)

    def together(self, objectives: Collection[str]) -> list[list[str]]:
        """Group objectives that are computed together: all heads share one forward pass."""
        heads = [name for name in objectives if self.settings[name].kind == "head"]
        return [*([heads] if heads else []), *([name] for name in objectives if name not in heads)]

    def release(self) -> None:
        """Drop the references to the reward models."""
        self._scorers.clear()
        self._heads.release()

    def score(self, items: list[Scored], objectives: Collection[str] | None = None) -> list[Rewards]:
        """Return the rewards of every item.

        Args:
            items: tuples (prompt, response, token ids of the response or None).
            objectives: the rewards to compute; all of them if None.

        Returns:
            One `Rewards` per item. A reward that cannot be computed, or is not finite, is absent, with the reason in
            `Rewards.missing`.
        """
        asked = self.objectives if objectives is None else list(objectives)
        # A policy's own reward is of all that it wrote; others judge what it answers after its thoughts.
        answers = [(prompt, self._answer(text), tokens) for prompt, text, tokens in items]
        columns: dict[str, list[Outcome]] = {}
        for name in asked:
            if name in self._scorers:
                kind = self.settings[name].kind
                of, size = items if kind == "implicit" else answers, TOGETHER.get(kind, 1)
                parts = [of[start : start + size] for start in range(0, len(of), size)]
                columns[name] = [found for part in parts for found in outcomes(self._scorers[name], part)]
        columns |= self._of_heads(answers, [name for name in asked if name not in columns])
        rows = []
        for i in range(len(items)):
            row = Rewards()
            for name in asked:
                row.put(name, columns[name][i])
            rows.append(row)
            self._tell(row)
        return rows

    def _of_heads(self, items: list[Scored], names: list[str]) -> dict[str, list[Outcome]]:
        """Compute all heads in one forward pass; if that fails, each head alone."""
        read = [(prompt, text) for prompt, text, _ in items]
        try:
            columns = self._heads.score(read, names)
        except Exception:
            return {name: outcomes(self._one_head(name), read) for name in names}
        return {name: [finite(value) for value in values] for name, values in columns.items()}

    def _tell(self, row: Rewards) -> None:
        """Log each reason why a reward is missing, once."""
        for name, reason in row.missing.items():
            if (name, reason) not in self._told and len(self._told) < 1000:
                self._told.add((name, reason))
                log.warning("reward '%s' failed: %s; the response stays, without this reward", name, reason)

    def _one_head(self, name: str) -> Callable[[list[tuple[Prompt, str]]], list[float]]:
        return lambda read: self._heads.score(read, [name])[name]

    def standard(self, rewards: dict[str, float]) -> dict[str, float]:
        """Return the rewards of calibrated objectives as z-scores against the reference's rewards."""
        return self.scale.standard(rewards)
