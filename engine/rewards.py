"""Rewards: a real number for (prompt, response), one reward an objective; a prompt may be a conversation."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Collection

from transformers import PreTrainedTokenizerBase

from engine.chat import chat_of
from engine.config import REFERENCE, RewardSettings
from engine.errors import InputError, one_line
from engine.head_rewards import Heads
from engine.messages import BETWEEN, Message, Prompt, joined, last_of, messages_of
from engine.missing_rewards import Outcome, Rewards, finite, outcomes
from engine.policies import PolicySet
from engine.reward_models import RewardModel
from engine.scale import RewardScale

log = logging.getLogger("mixdesk")

# (prompt, response text, response tokens if they are known)
Scored = tuple[Prompt, str, "list[int] | None"]
Scorer = Callable[[list[Scored]], list[float]]
TOGETHER = {"classifier": 32}  # responses that a reward of this kind reads at once; others one


def brevity(prompt: str, response: str) -> float:
    """Minus the number of words: for `function: engine.rewards:brevity`."""
    return -float(len(response.split()))


class RewardSet:
    """All rewards of a configuration."""

    def __init__(
        self, settings: list[RewardSettings], policy_set: PolicySet, tell: Callable[[str], None] = log.debug
    ) -> None:
        """tell: is told what is being loaded, as it begins. Raises InputError.

        Objectives are in the policies' order, and those without a policy last in the configuration's: the one order of
        radar, table, faders and charts. `scale` is replaced as a whole once rewards are calibrated.
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
        return list(self.settings)

    def together(self, objectives: Collection[str]) -> list[list[str]]:
        """Group objectives by what computes them: all heads share one forward pass."""
        heads = [name for name in objectives if self.settings[name].kind == "head"]
        return [*([heads] if heads else []), *([name] for name in objectives if name not in heads)]

    def release(self) -> None:
        """Let go of the reward models."""
        self._scorers.clear()
        self._heads.release()

    def score(self, items: list[Scored], objectives: Collection[str] | None = None) -> list[Rewards]:
        """The rewards of every (prompt, response, tokens); of these objectives, else of all.

        A reward that cannot be computed, or is not finite, is missing from the row, whose `missing` says why.
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
        """All heads at once; each alone where that fails."""
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
        """Return z-scores against the reference's rewards, of the objectives that are calibrated."""
        return self.scale.standard(rewards)


def classifier(settings: RewardSettings, policy_set: PolicySet) -> Scorer:
    """A sequence-classification model with one output (Bradley-Terry) or a named one of several, or a LoRA of one on
    its base."""
    made = RewardModel(settings, policy_set.base, policy_set.device)
    told: list[bool] = []

    def score(items: list[Scored]) -> list[float]:
        rows = []
        for prompt, text, _ in items:
            row, shortened = fitting(made.tokenizer, prompt, text, settings.template, made.limit)
            rows.append(row)
            if shortened and not told:
                told.append(True)
                log.warning(
                    "reward '%s': it reads %d tokens at once; of what is longer, the oldest turns and the beginning of "
                    "the prompt are left out, and at last the end of the response",
                    *(settings.objective, made.limit),
                )
        return made.scores(rows)

    return score


def fitting(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str, template: str | None, context: int
) -> tuple[list[int], bool]:
    """Return the token ids of the finished conversation in at most `context` tokens, and whether it was shortened.

    What is too long goes without its oldest turns, then without the beginning of the prompt: the response is read whole
    if it fits at all, else its beginning is.
    """
    messages = messages_of(prompt)

    def ids(asked: str, answered: str) -> list[int]:
        turns = [*messages[:-1], {**messages[-1], "content": asked}]
        return conversation_ids(tokenizer, turns, answered, template)

    asked = messages[-1]["content"]
    found = ids(asked, response)
    if len(found) <= context:
        return found, False
    while len(messages) > 1 and len(found) > context:
        messages = messages[2:]
        found = ids(asked, response)
    if len(found) > context:
        kept = most(len(asked), lambda count: len(ids(asked[len(asked) - count :], response)) <= context)
        found = ids(asked[len(asked) - kept :], response)
    if len(found) > context:
        kept = most(len(response), lambda count: len(ids("", response[:count])) <= context)
        found = ids("", response[:kept])
    # A template alone may be too long for a model that reads very little.
    return found[-context:], True


def most(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest count up to `limit` that fits, by bisection; 0 if none does."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    response: str,
    template: str | None = None,
) -> list[int]:
    """Token ids of the finished conversation, as reward models are trained on it: in their chat template, or each turn
    and its response in the template, one after the other."""
    messages = [*messages_of(prompt), {"role": "assistant", "content": response}]
    if template is not None:
        return tokenizer(filled(template, messages)).input_ids
    if tokenizer.chat_template is None:
        return chat_of(tokenizer).plain_ids(joined(messages))
    return chat_of(tokenizer).conversation_ids(messages)


def filled(template: str, messages: list[Message]) -> str:
    """The template with each prompt and its response. An empty line stands between two, unless the template itself
    begins or ends with white space."""
    # Not str.format: what people type may have braces.
    parts = re.split(r"(\{prompt\}|\{response\})", template)
    turns = []
    for said, answered in zip(messages[::2], messages[1::2], strict=True):
        words = {"{prompt}": said["content"], "{response}": answered["content"]}
        turns.append("".join(words.get(part, part) for part in parts))
    return ("" if template != template.strip() else BETWEEN).join(turns)


def function(settings: RewardSettings, policy_set: PolicySet) -> Scorer:
    """A Python function `(prompt, response) -> float`, named as module:function. Of a conversation it gets what the
    user said last."""
    assert settings.function is not None
    module, _, name = settings.function.partition(":")
    try:
        call = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # the module's own code runs
        raise InputError(
            f"reward '{settings.objective}': cannot import {settings.function}: {one_line(error)}; "
            "give module:function, in the working directory or installed"
        ) from None
    if not callable(call):
        raise InputError(
            f"reward '{settings.objective}': {settings.function} is {type(call).__name__}; give a function "
            "(prompt, response) -> float"
        )

    def score(items: list[Scored]) -> list[float]:
        rewards = []
        for prompt, text, _ in items:
            value = call(last_of(prompt), text)
            try:
                rewards.append(float(value))
            except (TypeError, ValueError):
                raise InputError(f"{settings.function} returned {type(value).__name__}, expected a number") from None
        return rewards

    return score


def implicit(settings: RewardSettings, policy_set: PolicySet) -> Scorer:
    """beta (log π_k(y|x) - log π_ref(y|x)) of the policy with this objective: its own reward up to a constant of x
    (DPO, arXiv 2305.18290, eq. 5)."""
    name = next(policy.name for policy in policy_set.policies if policy.objective == settings.objective)

    def score(items: list[Scored]) -> list[float]:
        rewards = []
        for prompt, text, tokens in items:
            ids = tokens or policy_set.response_ids(text)
            if not ids:
                raise InputError("the response is empty")
            longest = max(len(row) for row in policy_set.read(policy_set.policies, prompt).values()) + len(ids)
            if longest > policy_set.context:
                raise InputError(f"{longest:,} tokens, and the policies hold {policy_set.context:,}")
            log_probs = policy_set.teacher_forced(prompt, ids)
            rewards.append(settings.beta * (sum(log_probs[name]) - sum(log_probs[REFERENCE])))
        return rewards

    return score
