"""The batch: sequences are admitted and evicted between steps, and one forward pass a step serves them all.

Every (sequence, policy) pair is a row. A model runner has the rows of one model.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import record_function

from engine.inference.finish_reason import FinishReason
from engine.inference.model_runner import PREFILL, ModelRunner, free_memory, runner_for
from engine.inference.prompt_reading import PromptReading
from engine.inference.sampler import draw, warp
from engine.inference.sequence import Sequence
from engine.inference.stop_strings import StopFinder
from engine.inference.thread_tuning import Threads
from engine.inference.token_events import keep_events
from engine.inference.top_logprobs import likeliest
from engine.models.policy_set import PolicySet
from engine.rules.mixture import Mixture

MIXING, SAMPLING = "mixdesk: mixing", "mixdesk: sampling"  # in a profile


class Batch:
    """All sequences that are being decoded, over all models.

    Attributes:
        max_rows: the largest number of rows; `fits` respects it.
        memory: the most bytes of keys and values; `fits` respects it.
        sequences: the sequences in the batch, in the order in which they joined it.
        reading: the sequences whose prompts are being read, which join it later.
        runners: one model runner per model.
    """

    def __init__(
        self, policy_set: PolicySet, max_rows: int = 320, memory: int | None = None, static: bool | None = None
    ) -> None:
        static = policy_set.device.type == "cuda" if static is None else static
        self.policy_set = policy_set
        self.max_rows = max_rows
        self.memory = free_memory(policy_set.device) // 2 if memory is None else memory
        self.sequences: list[Sequence] = []
        self.reading: dict[Sequence, None] = {}
        self._readings: list[tuple[ModelRunner, PromptReading]] = []  # that are not complete, the oldest first
        self._oldest_next = False
        self._pace = 0.0  # seconds that reading a position takes, once measured
        self.runners = [runner_for(policy_set, index, static) for index in range(len(policy_set.models))]
        self.threads = Threads()
        self._rows: dict[int, Tensor] = {}  # {id of a sequence: which of all runners' rows are its policies'}

    @property
    def rows(self) -> int:
        """The number of rows over all runners."""
        return sum(len(runner.rows) for runner in self.runners)

    def fits(self, sequences: list[Sequence]) -> bool:
        """Return whether the batch has room for these sequences too, if all reach their maximum length."""
        every = [*self.sequences, *self.reading, *sequences]
        models = [policy.model for seq in every for policy in seq.policies]
        if len(models) > self.max_rows:
            return False
        longest = max(seq.longest for seq in every)
        needed = sum(models.count(runner.index) * longest * runner.kv_cache.bytes for runner in self.runners)
        return needed <= self.memory

    def admit(self, sequences: list[Sequence]) -> None:
        """Read the sequences' prompts and tokens so far, and add them to the batch."""
        self.begin(sequences)
        while self.reading:
            self.read()

    @torch.inference_mode()
    def begin(self, sequences: list[Sequence]) -> None:
        """Begin to read the sequences' prompts and tokens so far; `read` adds each to the batch once that is done."""
        for runner in self.runners:
            rows = [(seq, policy) for seq in sequences for policy in seq.policies if policy.model == runner.index]
            if rows:
                self._readings += [(runner, reading) for reading in runner.begin(rows)]
        self.reading.update(dict.fromkeys(sequences))
        self._join()

    @torch.inference_mode()
    def read(self, seconds: float | None = None) -> None:
        """Read the next pieces of prompts, and add the sequences whose prompts have been read to the batch.

        Args:
            seconds: about how long to read; at least one piece of one text is read. If None, as much as fits into one
                pass is read.
        """
        end = time.perf_counter() + (seconds or 0.0)
        most = PREFILL if seconds is None else self._room(end)
        while self._readings:
            runner, reading = self._next_reading()
            before = time.perf_counter()
            count = runner.read(reading, most)
            taken = (time.perf_counter() - before) / count
            self._pace = (self._pace + taken) / 2 if self._pace else taken
            if not reading.left:
                self._readings.remove((runner, reading))
                self._join()
            most = self._room(end)
            if seconds is None or most < reading.piece:
                return

    def _room(self, end: float) -> int:
        """Return the number of positions that can be read until a time."""
        return int((end - time.perf_counter()) / self._pace) if self._pace else 0

    def _next_reading(self) -> tuple[ModelRunner, PromptReading]:
        """Return the reading to go on with: in turn the oldest and the one of which least is left.

        So a short prompt does not wait for a long one, nor a long one for ever.
        """
        self._oldest_next = not self._oldest_next
        return self._readings[0] if self._oldest_next else min(self._readings, key=lambda each: each[1].left)

    def _join(self) -> None:
        """Add the sequences whose prompts have been read."""
        done = [seq for seq in self.reading if all(runner.is_read(seq) for runner in self.runners)]
        if done:
            for runner in self.runners:
                runner.join(done)
            for seq in done:
                del self.reading[seq]
            self.sequences += done
            self._find_rows()

    def log_probs(self, sequences: list[Sequence]) -> Tensor:
        """Return the next-token log-probs [policies, sequences, V] of sequences that have the same policies."""
        parts = [runner.log_probs for runner in self.runners if runner.rows]
        every = parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0].device) for part in parts])
        rows = torch.stack([self._rows[id(seq)] for seq in sequences], 1)
        return every[rows.to(every.device)]

    @torch.inference_mode()
    def step(self, drawn: Callable[[], None] = lambda: None) -> None:
        """Draw one token for every sequence, and run the models on it; `drawn` is called between the two."""
        if self.policy_set.device.type != "cpu":
            return self._step(drawn)
        with self.threads.for_rows(self.rows):
            return self._step(drawn)

    def _step(self, drawn: Callable[[], None]) -> None:
        alike: dict[tuple, list[Sequence]] = {}
        for seq in self.sequences:
            if seq.finish_reason is not None:
                continue
            recorded = seq.record and (
                *((name, mixture.kind) for name, mixture in seq.record.mixtures.items()),
                seq.record.steps is not None,
            )
            key = tuple(seq.names), seq.drawing.kind, seq.sampling, recorded, seq.n_top_logprobs
            alike.setdefault(key, []).append(seq)
        for group in alike.values():
            try:
                self._draw(group)
            except Exception:
                self._draw_one_by_one(group)
        drawn()
        self.evict_finished()
        if self.sequences:
            for runner in self.runners:
                if runner.rows:
                    runner.step()

    def _draw(self, group: list[Sequence]) -> None:
        """Draw a token for each sequence of a group with the same policies, kind of mixture and sampling."""
        log_probs = self.log_probs(group)
        mixtures = [seq.drawing for seq in group]
        with record_function(MIXING):
            mixed = Mixture.mix(mixtures, log_probs, group[0].names)
        with record_function(SAMPLING):
            scores = warp(mixed, group[0].sampling, [seq.tokens for seq in group])
            tokens = draw(scores, [seq.sampler for seq in group])
        at = torch.tensor(tokens, device=log_probs.device).expand(len(log_probs), -1)
        own = mixed.gather(-1, at[0].unsqueeze(-1)).T  # [1, sequences]
        # One copy from the device: of every policy's log-probs of the tokens and, last, the mixture's.
        said = torch.cat([log_probs.gather(-1, at.unsqueeze(-1))[..., 0], own]).T.tolist()
        if group[0].record:
            self._record(group, log_probs, scores, at)
        if group[0].n_top_logprobs:
            kept = likeliest(log_probs, mixed, at[0], group[0].n_top_logprobs, group[0].names, mixtures)
            for seq, top_logprobs in zip(group, kept, strict=True):
                seq.top_logprobs.append(top_logprobs)
        for seq, mixture, token, (*values, log_prob) in zip(group, mixtures, tokens, said, strict=True):
            seq.tokens.append(token)
            seq.log_probs.append(log_prob)
            seq.trace.append(dict(zip(seq.names, values, strict=True)))
            seq.drawn_with.append(mixture)
            seq.mixture = seq.mixture_schedule.get(len(seq.tokens), seq.mixture)
            if token in self.policy_set.stop_ids:
                seq.finish_reason = FinishReason.END
            elif seq.sampling.stop and self._stops(seq):
                seq.finish_reason = FinishReason.STOP_STRING
            elif len(seq.tokens) >= seq.prefix_length + seq.sampling.max_new_tokens:
                seq.finish_reason = FinishReason.LENGTH

    def _stops(self, seq: Sequence) -> bool:
        """Return whether the sequence's text has a stop string, and note where."""
        if seq.stop_finder is None:
            seq.stop_finder = StopFinder(seq.sampling.stop, self.policy_set, seq.tokens[: seq.prefix_length])
        seq.text_end = seq.stop_finder.find(seq.tokens)
        return seq.text_end is not None

    def _record(self, group: list[Sequence], log_probs: Tensor, scores: Tensor, at: Tensor) -> None:
        """Add the tokens to the sequences' records.

        Args:
            group: the sequences, all with a record.
            log_probs: [policies, sequences, V].
            scores: [sequences, V], the scores that the tokens were drawn by.
            at: [policies, sequences], the tokens drawn.
        """
        names, temperature = group[0].names, group[0].sampling.temperature
        records = [seq.record for seq in group if seq.record]
        mixed = [Mixture.mix([r.mixtures[name] for r in records], log_probs, names) for name in records[0].mixtures]
        every = torch.cat([log_probs, torch.stack(mixed)]) if mixed else log_probs
        if temperature != 1:
            every = (every / temperature).log_softmax(-1)
        found = every.gather(-1, at[:1].expand(len(every), -1).unsqueeze(-1))[..., 0].T.tolist()
        drawn = scores.log_softmax(-1).gather(-1, at[0].unsqueeze(-1))[:, 0].tolist()
        for record, values, own in zip(records, found, drawn, strict=True):
            record.add(dict(zip([*names, *record.mixtures], values, strict=True)), own)
        if records[0].steps is not None:
            steps = [record.steps for record in records if record.steps is not None]
            keep_events(steps, [*names, *records[0].mixtures], every, at[0], sorted(self.policy_set.stop_ids))

    def _draw_one_by_one(self, group: list[Sequence]) -> None:
        """Draw for each sequence alone, so that only those that cause a group's failure fail."""
        for seq in group:
            try:
                self._draw([seq])
            except Exception as error:
                seq.error, seq.finish_reason = error, FinishReason.ERROR

    def evict_finished(self) -> None:
        """Free the rows of the finished sequences."""
        self.evict([seq for seq in (*self.sequences, *self.reading) if seq.finish_reason is not None])

    @torch.inference_mode()
    def evict(self, sequences: list[Sequence]) -> None:
        """Free the rows of these sequences. An unfinished one may be admitted again and resumes where it was."""
        leaving = {id(seq) for seq in sequences}
        if leaving:
            wanted = set()
            for runner in self.runners:
                runner.evict(leaving)
                wanted |= runner.leave(leaving)
            self._readings = [each for each in self._readings if each[1] in wanted]
            self.reading = {seq: None for seq in self.reading if id(seq) not in leaving}
            self.sequences = [seq for seq in self.sequences if id(seq) not in leaving]
            self._find_rows()

    @torch.inference_mode()
    def fork(self, source: Sequence, copies: list[Sequence]) -> None:
        """Add copies of a sequence in the batch, which share its text so far, without another forward pass."""
        for runner in self.runners:
            runner.fork(source, copies)
        self.sequences += copies
        self._find_rows()

    def _find_rows(self) -> None:
        found: dict[int, dict[str, int]] = {id(seq): {} for seq in self.sequences}
        number = 0
        for runner in self.runners:
            for seq, policy in runner.rows:
                found[id(seq)][policy.name] = number
                number += 1
        self._rows = {
            id(seq): torch.tensor([found[id(seq)][name] for name in seq.names], dtype=torch.long)
            for seq in self.sequences
        }
