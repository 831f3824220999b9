"""Recover from running out of memory, a failed step, or a crash of the worker. All functions run on the worker."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from engine.errors import InputError
from engine.inference.batch import Batch
from engine.inference.finish_reason import FinishReason

if TYPE_CHECKING:
    from engine.inference.scheduler import Scheduler

log = logging.getLogger("mixdesk")
MOST_FAILURES = 3  # failed steps after which a request fails, though it succeeds alone


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out, on a GPU or on the CPU, where torch has no class for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def handle_out_of_memory(scheduler: Scheduler, error: Exception) -> None:
    """Halve the number of rows that are decoded together; a request that does not fit alone fails.

    The number grows again as steps succeed: see `RowLimit`.
    """
    scheduler.telemetry.out_of_memory += 1
    running = list(scheduler.running)
    if not running:
        scheduler.requeue([])
        return
    rows = max(scheduler.batch.rows, sum(len(seq.policies) for request in running for seq in request.sequences))
    if len(running) == 1:
        scheduler.requeue([])
        sequence = running[0].sequence
        sequence.error = InputError(
            f"out of memory: one response of {len(sequence.policies)} policies and up to {sequence.longest:,} "
            "tokens does not fit; shorten the prompt or the response, or mix fewer policies"
        )
        scheduler.finish(running[0])
        return
    scheduler.batch.max_rows = scheduler.row_limit.shrink(scheduler.batch.max_rows, rows)
    log.warning(
        "out of memory with %d rows: no more than %d at once, and a quarter more after %d steps without this (%s)",
        rows, scheduler.batch.max_rows, scheduler.row_limit.patience, error,
    )  # fmt: skip
    scheduler.requeue(running)


def isolate_failure(scheduler: Scheduler, error: Exception) -> None:
    """Retry the requests of a failed step one by one: those that fail alone fail, the others resume."""
    scheduler.telemetry.failed_steps += 1
    log.error("a step failed: %s; its requests are tried one by one", error)
    running, healthy = list(scheduler.running), []
    for request in running:
        request.failed_steps += 1
        try:
            if len(running) == 1 or request.failed_steps > MOST_FAILURES:
                raise error
            trial = Batch(scheduler.policy_set)
            trial.admit([seq for seq in request.sequences if seq.finish_reason is None])
            healthy.append(request)
        except Exception as own:
            request.sequence.error = own
    scheduler.requeue(healthy)
    for request in running:
        if request.sequence.error is not None:
            scheduler.finish(request)


def restart(scheduler: Scheduler, error: BaseException) -> None:
    """Fail the running requests after a crash of the worker; queued requests are kept."""
    running = list(scheduler.running)
    scheduler.requeue([])
    for request in running:
        if not request.done:
            scheduler.telemetry.responses[FinishReason.ERROR] += 1
            request.close_stream()
            request.fail(RuntimeError(f"the engine had to restart: {error}"))
