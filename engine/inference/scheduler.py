"""Continuous batching: one thread owns the models, and draws a token for every running request at each step.

Between two steps requests are admitted from the queue, finished, cancelled and steered. All public methods but those
marked "worker" may be called from any thread.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from engine.inference import recovery
from engine.inference.batch import Batch
from engine.inference.fair_queue import FairQueue, group_of
from engine.inference.finish_reason import FinishReason
from engine.inference.heap import trim_heap
from engine.inference.request import Request
from engine.inference.reward_worker import RewardWorker
from engine.inference.row_limit import RowLimit
from engine.inference.sequence import Sequence
from engine.inference.telemetry import Telemetry
from engine.models.policy_set import PolicySet
from engine.reward_kind import Scored
from engine.rewards.missing import Rewards
from engine.rewards.reward_set import RewardSet
from engine.rules.mixture import Mixture

T = TypeVar("T")
IDLE = 2.0  # seconds without work after which freed memory is returned
SHARED_FROM = 64  # rows of a batch: a smaller one is one client's at a time
SHARE_OF_STEP = 1.5  # of a step's time: how long prompts are read between two steps
SHARE = 0.5  # of the batch's rows: the most that one group of clients gets, so that another is admitted at once
log = logging.getLogger("mixdesk")


class Scheduler:
    """The worker thread with its queue and batch.

    Attributes:
        batch: the sequences that are being decoded.
        row_limit: how the batch's largest number of rows recovers after running out of memory.
        queue: requests that wait for room in the batch.
        running: requests in the batch, in the order of their admission.
        reward_worker: computes the rewards of finished responses.
        telemetry: counts and durations of the worker's work.
    """

    def __init__(self, policy_set: PolicySet, reward_set: RewardSet) -> None:
        self.policy_set = policy_set
        self.batch = Batch(policy_set)
        self.row_limit = RowLimit()
        self.queue: FairQueue[Request] = FairQueue()
        self.running: dict[Request, None] = {}
        self.reward_worker = RewardWorker(reward_set, policy_set, self.post)
        self.telemetry = Telemetry()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._parts: deque[tuple[Generator[None, None, Any], Future[Any]]] = deque()  # work that is done in parts
        self._closed = False
        self._step_seconds = 0.0  # that the last step took
        self._used = False  # whether memory may have been freed since it was last returned
        self._worker = threading.Thread(target=self._work, name="mixdesk-engine", daemon=True)
        self._worker.start()

    # ---------------------------------------- from any thread

    @property
    def busy(self) -> bool:
        """Whether a response is running, waits to be admitted, or waits for its rewards."""
        return bool(self.running or self.reward_worker.responses) or len(self.queue) > 0

    def submit(self, requests: Iterable[Request], client: object = None) -> None:
        """Queue requests; those of one call are admitted in one step if there is room.

        Args:
            requests: the requests to queue.
            client: the sender; requests are admitted round-robin over clients. Without one, each request counts as a
                client of its own. A tuple (group, member) is one of several that share their turns and, together, have
                at most `SHARE` of the batch's rows, or one request that needs more.
        """
        requests = list(requests)
        for request in requests:
            request.group = group_of(client) if isinstance(client, tuple) else None

        def put() -> None:
            for request in requests:
                self.queue.put(request if client is None else client, request)

        self.check_open()
        self.post(put)

    def run(self, call: Callable[[], T]) -> T:
        """Run a call between two steps, on the thread that owns the models, and return its result."""
        future: Future[T] = Future()

        def job() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        self.check_open()
        self.post(job)
        return future.result()

    def run_in_parts(self, parts: Generator[None, None, T]) -> T:
        """Run a generator on the thread that owns the models, a part between two steps, and return its result."""
        future: Future[T] = Future()
        self.check_open()
        self.post(lambda: self._parts.append((parts, future)))
        return future.result()

    def score(self, items: list[Scored], objectives: Collection[str] | None = None) -> list[Rewards]:
        """Return the rewards of every item; see `RewardWorker.score`."""
        self.check_open()
        return self.reward_worker.score(items, self.run, objectives)

    def post(self, job: Callable[[], None]) -> None:
        """Run a job between two steps, without waiting for it."""
        self._jobs.put(job)

    def stop(self, request: Request) -> None:
        """Finish a request after the token that is being computed, with finish_reason 'stopped'."""
        self.post(lambda: self._stop(request))

    def steer(self, request: Request, mixture: Mixture) -> None:
        """Draw a request's next tokens from another mixture."""
        self.post(lambda: self._steer(request, mixture))

    def check_open(self) -> None:
        """Raise RuntimeError if the scheduler is closed."""
        if self._closed:
            raise RuntimeError("the engine is closed")

    def close(self) -> None:
        """Stop the worker; running and queued responses are cut off with finish_reason 'stopped'."""
        self._closed = True
        self.telemetry.alive = False
        self._jobs.put(None)
        self._worker.join()
        self.reward_worker.close()

    def release(self) -> None:
        """Free the batch's keys and values; the scheduler must be closed."""
        self.batch = Batch(self.policy_set)

    # ---------------------------------------- worker: the loop

    def _work(self) -> None:
        while True:
            try:
                while self._run_jobs():
                    self._step()
                return self._finish_all()
            except BaseException as error:
                log.exception("the engine's worker restarts")
                self.telemetry.restarts += 1
                recovery.restart(self, error)

    def _run_jobs(self) -> bool:
        """Run the jobs posted since the last step; if idle, wait for one. Return False once the scheduler is closed."""
        while True:
            idle = not self.running and not self.reward_worker.due and not len(self.queue) and not self._parts
            try:
                job = self._jobs.get(idle, IDLE if self._used else None)
            except queue.Empty:
                if not idle:
                    return True
                trim_heap()
                self._used = False
                continue
            if job is None:
                return False
            try:
                job()
            except Exception:
                log.exception("a job on the engine's worker failed")

    def _step(self) -> None:
        """Admit requests, draw a token for each running sequence, publish it, and compute a few rewards."""
        self._used = True
        self._expire()
        admitted = self._admit()
        failure: Exception | None = None
        try:
            if admitted:
                self.batch.begin(admitted)
            if self.batch.reading:
                # While others wait for their next tokens, only for about as long as a step takes.
                self.batch.read(SHARE_OF_STEP * self._step_seconds if self.batch.sequences else None)
                # That takes as long as a token or two: jobs posted meanwhile need not wait for one more.
                if not self._run_jobs():
                    self._jobs.put(None)
            if self.batch.sequences:
                rows, began = self.batch.rows, time.monotonic()
                # Tokens are published while the models read them: each is seen a step earlier.
                self.batch.step(self._drawn)
                self._step_seconds = time.monotonic() - began
                self.telemetry.step_seconds.observe(self._step_seconds)
                self.batch.max_rows = self.row_limit.succeed(self.batch.max_rows, rows)
            for request in self.running:
                if request.particles and not any(seq in self.batch.reading for seq in request.sequences):
                    request.particles.resample(self.batch)
        except Exception as error:
            failure = error
        self._publish(resampled=True)
        if failure is not None and recovery.is_out_of_memory(failure):
            recovery.handle_out_of_memory(self, failure)
        elif failure is not None:
            recovery.isolate_failure(self, failure)
        self.reward_worker.run_pending()
        self._run_part()

    def _run_part(self) -> None:
        """Run the next part of what is done in parts; several take turns."""
        if not self._parts:
            return
        parts, future = self._parts.popleft()
        try:
            next(parts)
            self._parts.append((parts, future))
        except StopIteration as end:
            future.set_result(end.value)
        except BaseException as error:
            future.set_exception(error)

    def _expire(self) -> None:
        now = time.monotonic()
        for request in list(self.running):
            if request.deadline is not None and now > request.deadline:
                self._end(request, FinishReason.TIME)

    def _admit(self) -> list[Sequence]:
        """Move requests from the queue to `running` while they fit, and return their sequences."""
        admitted: list[Sequence] = []
        if not len(self.queue):
            return admitted
        rows: Counter[object] = Counter()  # of each group
        for request in self.running:
            rows[request.group] += rows_of(request)

        def has_share(request: Request) -> bool:
            most = self.batch.max_rows
            if request.group is None or most < SHARED_FROM or not rows[request.group]:
                return True
            return rows[request.group] + rows_of(request) <= SHARE * most

        while True:
            try:
                request = self.queue.peek(has_share)
            except IndexError:
                return admitted
            # Particles that were requeued may be finished in part.
            sequences = [seq for seq in request.sequences if seq.finish_reason is None]
            if (self.running or admitted) and not self.batch.fits([*admitted, *sequences]):
                return admitted
            self.queue.pop(has_share)
            self.running[request] = None
            rows[request.group] += rows_of(request)
            admitted += sequences

    # ---------------------------------------- worker: tokens, and the end of a response

    def _drawn(self) -> None:
        """Count and publish the tokens that a step has just drawn."""
        self.telemetry.tokens += sum(seq.error is None for seq in self.batch.sequences)
        self._publish()

    def _publish(self, resampled: bool = False) -> None:
        """Publish the new tokens; after resampling also those of particles, which may have finished."""
        for request in list(self.running):
            if resampled or not request.particles:
                self._publish_one(request)

    def _publish_one(self, request: Request) -> None:
        if request.particles and not self._select(request):
            return
        sequence = request.sequence
        if sequence.error is None:
            try:
                request.publish()
                if request.first_token_due and request.drawn:
                    request.first_token_due = False
                    self.telemetry.first_token_seconds.observe(time.monotonic() - request.submitted)
            except Exception as error:
                sequence.error, sequence.finish_reason = error, FinishReason.ERROR
        if sequence.finish_reason is not None:
            self.finish(request)

    def _select(self, request: Request) -> bool:
        """Make one of a request's particles its response if they are finished; return whether they are."""
        particles = request.particles
        assert particles is not None
        if particles.error is not None:
            self.batch.evict(particles.sequences)
            request.sequence.error, request.sequence.finish_reason = particles.error, FinishReason.ERROR
        elif particles.finished:
            request.sequence = particles.choose()
        return particles.finished or particles.error is not None

    def finish(self, request: Request) -> None:
        """Close a request's stream, and complete it, after its rewards if it has any. Called by the worker."""
        self.running.pop(request, None)
        self.telemetry.responses[ended_by(request)] += 1
        request.close_stream()
        if request.sequence.error is not None:
            request.fail(request.sequence.error)
        elif request.with_rewards:
            self.reward_worker.begin(request)
        else:
            request.complete(Rewards())

    def requeue(self, requests: list[Request]) -> None:
        """Start an empty batch with these requests first in the queue; they resume where they were.

        Called by the worker.
        """
        self.batch = Batch(self.policy_set, self.batch.max_rows, self.batch.memory)
        self.running.clear()
        for request in reversed(requests):
            self.queue.put(request, request, first=True)

    def _end(self, request: Request, reason: FinishReason) -> None:
        """Cut a response off at its current token, and free its rows at once."""
        for seq in request.sequences:
            seq.finish_reason = seq.finish_reason or reason
        self.batch.evict_finished()
        if request.particles:
            request.sequence = request.particles.choose()
        self.finish(request)

    def _stop(self, request: Request) -> None:
        if self.queue.remove(request) or request in self.running:
            self._end(request, FinishReason.STOPPED)

    def _steer(self, request: Request, mixture: Mixture) -> None:
        sequence = request.sequence
        if sequence.finish_reason is not None:
            return
        sequence.mixture = mixture
        sequence.mixture_schedule = {}
        missing = [name for name in mixture.needs if name not in sequence.names]
        if not missing:
            return
        # Policies that had no row so far read the prompt and all tokens: the sequence is admitted again.
        sequence.policies = [
            *sequence.policies,
            *(p for p in self.policy_set.rows_of(mixture, False) if p.name in missing),
        ]
        if request in self.running:
            self.batch.evict([sequence])
            del self.running[request]
            self.queue.put(request, request, first=True)

    def _finish_all(self) -> None:
        for _, future in self._parts:
            future.set_exception(RuntimeError("the engine is closed"))
        queued = []
        while len(self.queue):
            queued.append(self.queue.pop())
        for request in [*self.running, *queued]:
            self._end(request, FinishReason.STOPPED)
        while self.reward_worker.responses:
            self.reward_worker.run_pending()
            # Rewards that are computed on the other thread arrive as a job.
            if self.reward_worker.responses and not self.reward_worker.due and (job := self._jobs.get()):
                job()


def rows_of(request: Request) -> int:
    """Return the number of rows that a request has, or will have, in the batch."""
    return sum(len(seq.policies) for seq in request.sequences)


def ended_by(request: Request) -> FinishReason:
    """Return why a request has ended."""
    sequence = request.sequence
    return FinishReason.ERROR if sequence.error is not None else sequence.finish_reason or FinishReason.STOPPED
