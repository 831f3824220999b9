"""Rewards: real-valued functions of (prompt, response), one per objective; a prompt may be a conversation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial

from engine.models.policy_set import PolicySet
from engine.reward_kind import REWARD_KINDS, JointScorer, RewardKind, RewardSettings, Scored, Scorer
from engine.rewards.missing import Outcome, Rewards, finite, outcomes
from engine.rewards.scale import RewardScale

log = logging.getLogger("mixdesk")


class RewardSet:
    """All rewards of a configuration."""

    def __init__(
        self, settings: list[RewardSettings], policy_set: PolicySet, report: Callable[[str], None] = log.debug
    ) -> None:
        """Load the rewards of a configuration.

        Objectives are in the order of the policies, followed by those without a policy in the order of the
        configuration. Radar, table, faders and charts all use this order. `scale` is replaced as a whole when rewards
        are calibrated.

        Args:
            settings: the rewards.
            policy_set: the policies that heads and implicit rewards use.
            report: called with one line before each reward is loaded.

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
        self._scorers: dict[str, Scorer] = {}
        self._joint: dict[str, JointScorer] = {}  # {kind: all rewards of a kind that shares its passes}
        self._answer = policy_set.chat.answer
        self._logged: set[tuple[str, str]] = set()  # reasons that were logged
        for reward in settings:
            report(f"loading the reward {reward.objective}")
            kind = REWARD_KINDS[reward.kind]
            if kind.joint:
                if kind.name not in self._joint:
                    self._joint[kind.name] = kind.joint(policy_set)
                self._joint[kind.name].add(reward)
            elif kind.load:
                self._scorers[reward.objective] = kind.load(reward, policy_set)

    @property
    def objectives(self) -> list[str]:
        """The names of the objectives, in their order."""
        return list(self.settings)

    def together(self, objectives: Collection[str]) -> list[list[str]]:
        """Group objectives that are computed together: those of a kind that shares its passes, such as heads."""
        groups: dict[str, list[str]] = {}
        for name in objectives:
            kind = self.kind_of(name)
            groups.setdefault(f"kind {kind.name}" if kind.joint else f"objective {name}", []).append(name)
        return list(groups.values())

    def kind_of(self, objective: str) -> RewardKind:
        """Return the kind of an objective's reward."""
        return REWARD_KINDS[self.settings[objective].kind]

    def release(self) -> None:
        """Drop the references to the reward models."""
        self._scorers.clear()
        for scorer in self._joint.values():
            scorer.release()
        self._joint.clear()

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
                kind = self.kind_of(name)
                of = items if kind.of_policy else answers
                parts = [of[start : start + kind.at_once] for start in range(0, len(of), kind.at_once)]
                columns[name] = [outcome for part in parts for outcome in outcomes(self._scorers[name], part)]
        for kind_name, scorer in self._joint.items():
            columns |= joint_outcomes(scorer, answers, [n for n in asked if self.settings[n].kind == kind_name])
        rows = []
        for i in range(len(items)):
            row = Rewards()
            for name in asked:
                row.put(name, columns[name][i])
            rows.append(row)
            self._log_missing(row)
        return rows

    def _log_missing(self, row: Rewards) -> None:
        """Log each reason why a reward is missing, once."""
        for name, reason in row.missing.items():
            if (name, reason) not in self._logged and len(self._logged) < 1000:
                self._logged.add((name, reason))
                log.warning("reward '%s' failed: %s; the response stays, without this reward", name, reason)

    def standard(self, rewards: dict[str, float]) -> dict[str, float]:
        """Return the rewards of calibrated objectives as z-scores against the reference's rewards."""
        return self.scale.standard(rewards)


def joint_outcomes(scorer: JointScorer, items: list[Scored], names: list[str]) -> dict[str, list[Outcome]]:
    """Compute rewards of one kind together; if that fails, each alone."""
    try:
        columns = scorer.score(items, names)
    except Exception:
        return {name: outcomes(partial(one_of, scorer, name), items) for name in names}
    return {name: [finite(value) for value in values] for name, values in columns.items()}


def one_of(scorer: JointScorer, name: str, items: list[Scored]) -> list[float]:
    """Return one reward of a kind for each item."""
    return scorer.score(items, [name])[name]
