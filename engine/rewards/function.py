"""Rewards by a Python function."""

from __future__ import annotations

import importlib
import logging

from pydantic import Field

from engine.errors import InputError, one_line
from engine.messages import last_of
from engine.models.policy_set import PolicySet
from engine.reward_kind import RewardKind, RewardSettings, Scored, Scorer

log = logging.getLogger("mixdesk")


def brevity(prompt: str, response: str) -> float:
    """Return minus the number of words of the response; configure it as `function: engine.rewards:brevity`."""
    return -float(len(response.split()))


class FunctionSettings(RewardSettings):
    """The settings of a reward by a function."""

    function: str = Field(pattern=r"^[\w.]+:\w+$", description="the function, as module:function")


def function(settings: FunctionSettings, policy_set: PolicySet) -> Scorer:
    """Return a scorer that calls a Python function `(prompt, response) -> float`, named as module:function.

    For a conversation, the function gets the user's last message as the prompt. Raises InputError if the function
    cannot be imported.
    """
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


REWARD = RewardKind(
    name="function",
    paper="none",
    formula="the result of a Python function of the texts x and y",
    settings=FunctionSettings,
    load=function,
    order=3,
)
