"""Rewards of the engine's responses, computed without delaying the decoding of others.

Rewards that need no policy are computed on a separate thread; the others by the scheduler's worker, which owns the
policies, a few between two steps.
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
from engine.reward_kind import Scored
from engine.rewards.missing import Rewards
from engine.rewards.reward_set import RewardSet

NICE = 10  # of the thread of its own, where the system has niceness by thread: where cores are few, text comes first
AT_ONCE = 16  # responses that wait for their rewards, for each further reward between two steps


class RewardWorker:
    """Compute the rewards of finished responses. Methods other than `score` must be called by the scheduler's worker.

    Attributes:
        responses: {request: its rewards so far} of responses that wait for rewards.
        on_thread: objectives whose rewards are computed on the separate thread.
        on_worker: objectives whose rewards are computed by the scheduler's worker: all of them on a GPU, where nothing
            else may run while a step is captured.
    """

    def __init__(self, reward_set: RewardSet, policy_set: PolicySet, put: Callable[[Callable[[], None]], None]) -> None:
        """Start the separate thread.

        Args:
            reward_set: the rewards.
            policy_set: the policies.
            put: a function that posts a job to the scheduler's worker.
        """
        self.reward_set, self.policy_set, self.put = reward_set, policy_set, put
        self.responses: dict[Request, Rewards] = {}
        on_cpu = policy_set.device.type == "cpu"
        self.on_thread = [name for name in reward_set.objectives if on_cpu and not reward_set.kind_of(name).of_policy]
        self.on_worker = [name for name in reward_set.objectives if name not in self.on_thread]
        self._thread = ThreadPoolExecutor(1, "mixdesk-rewards", lower_priority)

    @property
    def due(self) -> list[tuple[Request, list[str]]]:
        """The rewards that the worker has to compute: (request, objectives computed together), the oldest first."""
        parts = self.reward_set.together(self.on_worker)
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
        run: Callable[[Callable[[], list[Rewards]]], list[Rewards]],
        objectives: Collection[str] | None = None,
    ) -> list[Rewards]:
        """Return the rewards of every item. May be called from any thread.

        Args:
            items: tuples (prompt, response, token ids of the response or None).
            run: a function that runs a call on the scheduler's worker and returns its result.
            objectives: the rewards to compute; all of them if None.
        """
        wanted = self.reward_set.objectives if objectives is None else objectives
        apart = [name for name in self.on_thread if name in wanted]
        here = [name for name in self.on_worker if name in wanted]
        rest = self._thread.submit(self.reward_set.score, items, apart)
        rows = run(lambda: self.reward_set.score(items, here))
        for row, more in zip(rows, rest.result(), strict=True):
            row.add(more)
        return [row.ordered(self.reward_set.objectives) for row in rows]

    def begin(self, request: Request) -> None:
        """Start computing the rewards of a finished response; it is completed when all are there."""
        if not self.reward_set.objectives:
            request.complete(Rewards())
            return
        self.responses[request] = Rewards()
        if self.on_thread:
            scored = self._thread.submit(self._compute, request, self.on_thread)
            scored.add_done_callback(lambda done: self.put(lambda: self._add(request, done.result)))

    def run_pending(self) -> None:
        """Compute one of the rewards that are due, or a few if many responses wait.

        Computing all at once would stall decoding: the rewards of 16 responses take as long as 50 steps.
        """
        for request, objectives in self.due[: 1 + len(self.responses) // AT_ONCE]:
            self._add(request, functools.partial(self._compute, request, objectives))

    def close(self) -> None:
        """Wait for the separate thread to finish its rewards, and stop it."""
        self._thread.shutdown()

    def _compute(self, request: Request, objectives: list[str]) -> Rewards:
        sequence = request.sequence
        return self.reward_set.score([(sequence.prompt, request.text, sequence.tokens)], objectives)[0]

    def _add(self, request: Request, compute: Callable[[], Rewards]) -> None:
        """Add rewards to a response, and complete it after the last of them."""
        if request not in self.responses:
            return  # another of them has failed
        rewards = self.responses[request]
        try:
            rewards.add(compute())
        except Exception as error:
            del self.responses[request]
            request.fail(error)
            return
        if len(rewards) + len(rewards.missing) == len(self.reward_set.objectives):
            del self.responses[request]
            request.complete(rewards.ordered(self.reward_set.objectives))


def lower_priority() -> None:
    """Lower the priority of the calling thread, and of those that it starts, on Linux."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), NICE))
