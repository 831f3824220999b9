"""Rewards of the engine's responses, computed so that nobody's text waits for them.

Those that ask no policy are computed on a thread of their own; the others by the worker, which owns the policies, one
or two between two steps.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from engine.inference.request import Request
from engine.models.policy_set import PolicySet
from engine.rewards.missing import Rewards
from engine.rewards.reward_set import RewardSet
from engine.rewards.scorer import Scored

NICE = 10  # of the thread of its own, where the system has niceness by thread: where cores are few, text comes first
AT_ONCE = 16  # responses that wait for their rewards, for each further reward between two steps


class Scoring:
    """responses: finished but for their rewards: {request: those that are there}. All but `score` is the worker's.

    apart, here: the objectives whose rewards the thread computes, and the worker. On a GPU the worker computes all: a
    step may be recorded there at any time, and nothing else may happen meanwhile.
    """

    def __init__(self, reward_set: RewardSet, policy_set: PolicySet, put: Callable[[Callable[[], None]], None]) -> None:
        """put: asks the worker to do something."""
        self.reward_set, self.policy_set, self.put = reward_set, policy_set, put
        self.responses: dict[Request, Rewards] = {}
        on_cpu = policy_set.device.type == "cpu"
        kinds = {objective: reward.kind for objective, reward in reward_set.settings.items()}
        self.apart = [objective for objective, kind in kinds.items() if on_cpu and kind != "implicit"]
        self.here = [objective for objective in kinds if objective not in self.apart]
        self._thread = ThreadPoolExecutor(1, "mixdesk-rewards", step_back)

    @property
    def due(self) -> list[tuple[Request, list[str]]]:
        """What the worker has still to compute, of the response that has waited longest first; what is computed
        together is one entry."""
        parts = self.reward_set.together(self.here)
        waiting = self.responses.items()
        return [
            (request, part)
            for request, rewards in waiting
            for part in parts
            if part[0] not in rewards and part[0] not in rewards.missing
        ]

    def score(
        self,
        items: list[Scored],
        on_worker: Callable[[Callable[[], list[Rewards]]], list[Rewards]],
        objectives: Collection[str] | None = None,
    ) -> list[Rewards]:
        """The rewards of each, from any thread. on_worker: runs a call there and gives what it returns. objectives:
        these alone."""
        apart, here = (
            [name for name in names if objectives is None or name in objectives] for names in (self.apart, self.here)
        )
        rest = self._thread.submit(self.reward_set.score, items, apart)
        rows = on_worker(lambda: self.reward_set.score(items, here))
        for row, more in zip(rows, rest.result(), strict=True):
            row.add(more)
        return [row.ordered(self.reward_set.objectives) for row in rows]

    def begin(self, request: Request) -> None:
        """A response is finished but for its rewards."""
        if not self.reward_set.objectives:
            request._finish(Rewards(), self.policy_set)
            return
        self.responses[request] = Rewards()
        if self.apart:
            scored = self._thread.submit(self._compute, request, self.apart)
            scored.add_done_callback(lambda done: self.put(lambda: self._add(request, done.result)))

    def go_on(self) -> None:
        """A reward of those that are due, or a few. The rewards of sixteen responses that end together take as long as
        fifty tokens of everybody's."""
        for request, objectives in self.due[: 1 + len(self.responses) // AT_ONCE]:
            self._add(request, functools.partial(self._compute, request, objectives))

    def close(self) -> None:
        self._thread.shutdown()

    def _compute(self, request: Request, objectives: list[str]) -> Rewards:
        sequence = request._sequence
        text = self.policy_set.text(sequence.tokens)
        return self.reward_set.score([(sequence.prompt, text, sequence.tokens)], objectives)[0]

    def _add(self, request: Request, compute: Callable[[], Rewards]) -> None:
        """Some more rewards of a response; with the last of them it is finished."""
        if request not in self.responses:
            return  # another of them has failed
        rewards = self.responses[request]
        try:
            rewards.add(compute())
        except Exception as error:
            del self.responses[request]
            request._future.set_exception(error)
            return
        if len(rewards) + len(rewards.missing) == len(self.reward_set.objectives):
            del self.responses[request]
            request._finish(rewards.ordered(self.reward_set.objectives), self.policy_set)


def step_back() -> None:
    """Let the thread that calls this, and those that it begins, have what the others leave."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), NICE))
