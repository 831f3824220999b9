"""Rewards by a sequence-classification model."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from pydantic import Field, field_validator
from transformers import PreTrainedTokenizerBase

from engine.messages import BETWEEN, Message, Prompt, joined, spoken_messages
from engine.models.chat_template import chat_of
from engine.models.policy_set import PolicySet
from engine.reward_kind import RewardKind, RewardSettings, Scored, Scorer
from engine.rewards.reward_model import RewardModel

log = logging.getLogger("mixdesk")


class ClassifierSettings(RewardSettings):
    """The settings of a classifier."""

    sources = ("model",)

    model: str = Field(description="path or hub id of a sequence classifier, or of a LoRA of one")
    label: str | None = Field(default=None, description="the output that is the reward, if there are several")
    template: str | None = Field(
        default=None, description="format of a turn, with {prompt} and {response}; else the tokenizer's chat template"
    )

    @field_validator("template")
    @classmethod
    def both(cls, template: str | None) -> str | None:
        """Reject a template that leaves out the prompt or the response."""
        if template and not ("{prompt}" in template and "{response}" in template):
            raise ValueError("a 'template' with {prompt} and {response} in it")
        return template


def classifier(settings: ClassifierSettings, policy_set: PolicySet) -> Scorer:
    """Return a scorer that uses a sequence-classification model, or a LoRA of one on its base.

    The reward is the model's only output (Bradley-Terry), or the one that `settings.label` names. Raises InputError if
    the model cannot be loaded.
    """
    model = RewardModel(settings.objective, settings.model, settings.label, policy_set.base, policy_set.device)
    logged: list[bool] = []

    def score(items: list[Scored]) -> list[float]:
        rows = []
        for prompt, text, _ in items:
            row, shortened = fitting(model.tokenizer, prompt, text, settings.template, model.limit)
            rows.append(row)
            if shortened and not logged:
                logged.append(True)
                log.warning(
                    "reward '%s': it reads %d tokens at once; of what is longer, the oldest turns and the beginning of "
                    "the prompt are left out, and at last the end of the response",
                    *(settings.objective, model.limit),
                )
        return model.scores(rows)

    return score


def fitting(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str, template: str | None, context: int
) -> tuple[list[int], bool]:
    """Return the token ids of a finished conversation in at most `context` tokens, and whether it was shortened.

    If it is too long, its oldest turns are dropped, then the beginning of the prompt, and last the end of the response.
    """
    messages = spoken_messages(prompt)

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
        kept = most_that_fit(len(asked), lambda count: len(ids(asked[len(asked) - count :], response)) <= context)
        found = ids(asked[len(asked) - kept :], response)
    if len(found) > context:
        kept = most_that_fit(len(response), lambda count: len(ids("", response[:count])) <= context)
        found = ids("", response[:kept])
    # A template alone may be too long for a model that reads very little.
    return found[-context:], True


def most_that_fit(limit: int, fits: Callable[[int], bool]) -> int:
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
    """Return the token ids of a finished conversation in the format that a reward model is trained on.

    Args:
        tokenizer: the reward model's.
        prompt: a text or messages.
        response: the response to the prompt.
        template: a text with {prompt} and {response}, which is filled once per turn. If None, the tokenizer's chat
            template is used, or the plain messages if it has none.
    """
    messages = [*spoken_messages(prompt), {"role": "assistant", "content": response}]
    if template is not None:
        return tokenizer(filled(template, messages)).input_ids
    if tokenizer.chat_template is None:
        return chat_of(tokenizer).plain_ids(joined(messages))
    return chat_of(tokenizer).conversation_ids(messages)


def filled(template: str, messages: list[Message]) -> str:
    """Return a template filled with each user message and its response.

    Turns are separated by an empty line, unless the template itself begins or ends with white space.
    """
    # Not str.format: what people type may have braces.
    parts = re.split(r"(\{prompt\}|\{response\})", template)
    turns = []
    for said, answered in zip(messages[::2], messages[1::2], strict=True):
        words = {"{prompt}": said["content"], "{response}": answered["content"]}
        turns.append("".join(words.get(part, part) for part in parts))
    return ("" if template != template.strip() else BETWEEN).join(turns)


REWARD = RewardKind(
    name="classifier",
    paper="Bradley-Terry reward models, arXiv 2203.02155, eq. 1",
    formula="the score of a sequence classifier for (x, y)",
    settings=ClassifierSettings,
    load=classifier,
    at_once=32,
    order=1,
)
