"""The running batch: sequences join and leave between steps, and one forward pass a step serves them all.

Every (sequence, policy) pair is a row. The rows of one model are a lane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from engine.attention import takes_blocks
from engine.cache import CACHE, Slots
from engine.candidates import Candidates, likeliest
from engine.graphs import StepGraphs
from engine.messages import Prompt
from engine.mixing import SOUP, Mixture
from engine.policies import Policy, PolicySet
from engine.sampling import Sampler, Sampling, draw, warp
from engine.steps import StepRecord, keep_events
from engine.threads import Threads


@dataclass(eq=False)
class Record:
    """What a bank or a particle keeps of a response: its log-prob under every policy that has a row and under these
    mixtures, all at the temperature that it is drawn at."""

    mixtures: dict[str, Mixture]
    log_probs: dict[str, float] = field(default_factory=dict)  # summed over the tokens so far
    drawn: float = 0.0  # the same under what the tokens were drawn from
    steps: StepRecord | None = None  # if it is to keep what each token was drawn among

    def add(self, log_probs: dict[str, float], drawn: float) -> None:
        self.drawn += drawn
        for name, value in log_probs.items():
            self.log_probs[name] = self.log_probs.get(name, 0.0) + value


@dataclass(eq=False)
class Sequence:
    """One response under way. `mixture` may change between steps, within the policies that have rows."""

    prompt: Prompt
    mixture: Mixture
    sampling: Sampling
    sampler: Sampler
    policies: list[Policy]
    prompt_ids: dict[str, list[int]]  # {policy: the prompt as it reads it}
    tokens: list[int] = field(default_factory=list)
    trace: list[dict[str, float]] = field(default_factory=list)  # of each token: {policy: log-prob}
    drawn_with: list[Mixture] = field(default_factory=list)  # of each token
    finish_reason: str | None = None  # end, length, time, stopped, error
    error: Exception | None = None
    plan: Mapping[int, Mixture] = field(default_factory=dict)  # {token's place: what it and the rest come from}
    stirred: Mixture | None = None  # with a soup: what its row was computed from
    record: Record | None = None
    begins_with: int = 0  # how many of the tokens were given, and not drawn
    keep: int = 0  # of every policy's likeliest tokens at each place that is drawn
    candidates: list[Candidates] = field(default_factory=list)  # of each drawn token, if they are kept
    date: str = ""  # that the chat template was given, if it writes one

    @property
    def names(self) -> list[str]:
        return [policy.name for policy in self.policies]

    @property
    def drawing(self) -> Mixture:
        """What the next token is drawn from. A soup is steered a token later: its row is computed already."""
        return self.stirred if self.mixture.rule == SOUP and self.stirred else self.mixture

    @property
    def longest(self) -> int:
        """The most positions that one of its rows will hold."""
        return max(len(ids) for ids in self.prompt_ids.values()) + self.begins_with + self.sampling.max_new_tokens


Row = tuple[Sequence, Policy]


class Lane:
    """The rows of one model, with the log-probs of the token to come."""

    PREFILL = 8192  # the most positions that are read in one pass

    def __init__(self, policy_set: PolicySet, index: int, static: bool) -> None:
        self.policy_set = policy_set
        self.index = index
        self.rows: list[Row] = []
        self.slots = Slots(static, not static and takes_blocks(policy_set.models[index]))
        self.graphs = StepGraphs(policy_set.device)
        self._newest = torch.zeros(0, 1, dtype=torch.long)  # [computed, 1], what the step under way reads
        self.log_probs = torch.zeros(0, 0)  # [rows, V], float32

    def join(self, rows: list[Row]) -> None:
        """Read the new rows' prompts, and what they have said if they were here before, and put them below the rest.

        Rows that read the same with the same policy, such as the panels of one prompt, are read once. On a CPU those of
        one length are read together: there is nothing to pad then, and a row's log-probs are the same to the last bit
        whoever joins with it.
        """
        exact = self.policy_set.device.type == "cpu"
        wanted: dict[tuple[Policy, tuple[int, ...]], list[Row]] = {}
        for seq, policy in rows:
            reading = (self._acting(seq, policy), (*seq.prompt_ids[policy.name], *seq.tokens))
            wanted.setdefault(reading, []).append((seq, policy))
        parts: list[list[tuple[Policy, tuple[int, ...]]]] = [[]]
        for reading in sorted(wanted, key=lambda reading: len(reading[1])):
            full = (len(parts[-1]) + 1) * len(reading[1]) > self.PREFILL
            if parts[-1] and (full or (exact and len(reading[1]) != len(parts[-1][-1][1]))):
                parts.append([])
            parts[-1].append(reading)
        for part in parts:
            cache = DynamicCache()
            ids, mask = self.policy_set.pad([list(read) for _, read in part])
            logits = self.policy_set.forward(
                *(self.index, [policy for policy, _ in part], ids, mask),
                use_cache=True,
                logits_to_keep=1,
                **{CACHE: cache},
            )
            source = [i for i, reading in enumerate(part) for _ in wanted[reading]]
            rows = [row for reading in part for row in wanted[reading]]
            self.slots.add(cache, source, [len(part[i][1]) for i in source], max(seq.longest for seq, _ in rows))
            self.rows += rows
            new = self.policy_set.log_probs(logits[:, -1])[torch.tensor(source, device=logits.device)]
            self.log_probs = torch.cat([self.log_probs, new]) if len(self.log_probs) else new

    def _acting(self, seq: Sequence, policy: Policy) -> Policy:
        """The policy as it acts now; a soup that was steered away from stays as it was."""
        if policy.name == SOUP and (seq.stirred is None or seq.mixture.rule == SOUP):
            seq.stirred = seq.mixture
        return self.policy_set.acting(policy, seq.stirred or seq.mixture)

    def fork(self, source: Sequence, copies: list[Sequence]) -> None:
        """Rows for the copies, which have read what the source has."""
        own = [i for i, (seq, _) in enumerate(self.rows) if seq is source]
        if own:
            every = own * len(copies)
            self.slots.copy(every)
            self.rows += [(copy, self.rows[i][1]) for copy in copies for i in own]
            at = torch.tensor(every, device=self.log_probs.device)
            self.log_probs = torch.cat([self.log_probs, self.log_probs[at]])

    def leave(self, leaving: set[int]) -> None:
        """Let the rows of these sequences (their ids) go."""
        gone = [i for i, (seq, _) in enumerate(self.rows) if id(seq) in leaving]
        if gone:
            order = self.slots.remove(gone)
            self.rows = [self.rows[i] for i in order]
            self.log_probs = self.log_probs[torch.tensor(order, dtype=torch.long, device=self.log_probs.device)]

    def step(self) -> None:
        """Read every sequence's newest token."""
        slots = self.slots
        slots.begin_step()
        idle = slots.computed - len(self.rows)
        newest = [*([seq.tokens[-1]] for seq, _ in self.rows), *([0] for _ in range(idle))]
        policies = [self._acting(seq, policy) for seq, policy in self.rows]
        self.policy_set.set_gates(self.index, policies + policies[:1] * idle)
        self._newest = slots.put(self._newest, newest)
        reach = {"reach": slots.reach} if slots.blocked else {}

        def read() -> Tensor:
            return self.policy_set.models[self.index](
                input_ids=self._newest,
                attention_mask=self.policy_set.masks(self.index, slots.attention_mask),
                position_ids=slots.positions,
                use_cache=True,
                logits_to_keep=1,
                **{CACHE: Cache(layers=slots.layers)},
                **reach,
            ).logits

        logits = self.graphs.run((slots.mask.shape, slots.mask.data_ptr()), read)
        self.log_probs = self.policy_set.log_probs(logits[: len(self.rows), -1])


class RereadingLane(Lane):
    """The rows of a model that a cache of keys and values makes another one of: each row's whole text is read again at
    every token, without the others."""

    def join(self, rows: list[Row]) -> None:
        new = self._read(rows)
        self.rows += rows
        self.log_probs = torch.cat([self.log_probs, new]) if len(self.log_probs) else new

    def fork(self, source: Sequence, copies: list[Sequence]) -> None:
        own = [i for i, (seq, _) in enumerate(self.rows) if seq is source]
        self.log_probs = torch.cat([self.log_probs, self.log_probs[own * len(copies)]])
        self.rows += [(copy, self.rows[i][1]) for copy in copies for i in own]

    def leave(self, leaving: set[int]) -> None:
        stay = [i for i, (seq, _) in enumerate(self.rows) if id(seq) not in leaving]
        self.rows = [self.rows[i] for i in stay]
        self.log_probs = self.log_probs[stay]

    def step(self) -> None:
        self.log_probs = self._read(self.rows)

    def _read(self, rows: list[Row]) -> Tensor:
        """[rows, V]; rows that read the same with the same policy are read once."""
        readings = [(self._acting(seq, policy), (*seq.prompt_ids[policy.name], *seq.tokens)) for seq, policy in rows]
        found = {}
        for policy, text in dict.fromkeys(readings):
            ids, mask = self.policy_set.pad([list(text)])
            logits = self.policy_set.forward(self.index, [policy], ids, mask, use_cache=False)
            found[policy, text] = self.policy_set.log_probs(logits[0, -1])
        return torch.stack([found[reading] for reading in readings])


def lane_of(policy_set: PolicySet, index: int, static: bool) -> Lane:
    kind = RereadingLane if index in policy_set.reread else Lane
    return kind(policy_set, index, static)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device; on a CPU a fixed share, since what is free there changes by the second."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 8 * 2**30


class Batch:
    """All sequences under way, over all models.

    max_rows, memory: bounds on rows and on the bytes of their keys and values; `fits` heeds them.
    """

    def __init__(
        self, policy_set: PolicySet, max_rows: int = 320, memory: int | None = None, static: bool | None = None
    ) -> None:
        static = policy_set.device.type == "cuda" if static is None else static
        self.policy_set = policy_set
        self.max_rows = max_rows
        self.memory = free_memory(policy_set.device) // 2 if memory is None else memory
        self.sequences: list[Sequence] = []
        self.lanes = [lane_of(policy_set, index, static) for index in range(len(policy_set.models))]
        self.threads = Threads()
        self._rows: dict[int, Tensor] = {}  # {id of a sequence: which of all lanes' rows are its policies'}

    @property
    def rows(self) -> int:
        return sum(len(lane.rows) for lane in self.lanes)

    def fits(self, sequences: list[Sequence]) -> bool:
        """Whether all that is under way and these can be carried to their ends, however long they get."""
        every = [*self.sequences, *sequences]
        if self.rows + sum(len(seq.policies) for seq in sequences) > self.max_rows:
            return False
        longest = max(seq.longest for seq in every)
        rows = [sum(policy.model == lane.index for seq in every for policy in seq.policies) for lane in self.lanes]
        return sum(n * longest * lane.slots.bytes for n, lane in zip(rows, self.lanes, strict=True)) <= self.memory

    @torch.inference_mode()
    def join(self, sequences: list[Sequence]) -> None:
        for lane in self.lanes:
            rows = [(seq, policy) for seq in sequences for policy in seq.policies if policy.model == lane.index]
            if rows:
                lane.join(rows)
        self.sequences += sequences
        self._find_rows()

    def log_probs(self, sequences: list[Sequence]) -> Tensor:
        """[policies, sequences, V] of the token to come; all of them must have the same policies."""
        parts = [lane.log_probs for lane in self.lanes if lane.rows]
        every = parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0].device) for part in parts])
        rows = torch.stack([self._rows[id(seq)] for seq in sequences], 1)
        return every[rows.to(every.device)]

    @torch.inference_mode()
    def step(self, drawn: Callable[[], None] = lambda: None) -> None:
        """Draw one token for every sequence, and read it. drawn: is called in between, when the tokens are there."""
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
            alike.setdefault((tuple(seq.names), seq.drawing.kind, seq.sampling, recorded, seq.keep), []).append(seq)
        for group in alike.values():
            try:
                self._draw(group)
            except Exception:
                self._draw_one_by_one(group)
        drawn()
        self.leave()
        if self.sequences:
            for lane in self.lanes:
                if lane.rows:
                    lane.step()

    def _draw(self, group: list[Sequence]) -> None:
        """One token for each of a group with the same policies, kind of mixture and sampling."""
        log_probs = self.log_probs(group)
        mixtures = [seq.drawing for seq in group]
        mixed = Mixture.mix(mixtures, log_probs, group[0].names)
        scores = warp(mixed, group[0].sampling, [seq.tokens for seq in group])
        tokens = draw(scores, [seq.sampler for seq in group])
        at = torch.tensor(tokens, device=log_probs.device).expand(len(log_probs), -1)
        said = log_probs.gather(-1, at.unsqueeze(-1))[..., 0].T.tolist()
        if group[0].record:
            self._record(group, log_probs, scores, at)
        if group[0].keep:
            kept = likeliest(log_probs, mixed, at[0], group[0].keep, group[0].names, mixtures)
            for seq, candidates in zip(group, kept, strict=True):
                seq.candidates.append(candidates)
        for seq, mixture, token, values in zip(group, mixtures, tokens, said, strict=True):
            seq.tokens.append(token)
            seq.trace.append(dict(zip(seq.names, values, strict=True)))
            seq.drawn_with.append(mixture)
            seq.mixture = seq.plan.get(len(seq.tokens), seq.mixture)
            if token in self.policy_set.stop_ids:
                seq.finish_reason = "end"
            elif len(seq.tokens) >= seq.begins_with + seq.sampling.max_new_tokens:
                seq.finish_reason = "length"

    def _record(self, group: list[Sequence], log_probs: Tensor, scores: Tensor, at: Tensor) -> None:
        """scores: [sequences, V], what was drawn by; at: [policies, sequences], the tokens drawn."""
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
        """What fails for a group may fail for one of them alone."""
        for seq in group:
            try:
                self._draw([seq])
            except Exception as error:
                seq.error, seq.finish_reason = error, "error"

    def leave(self) -> None:
        """Let the finished sequences go."""
        self.take_out([seq for seq in self.sequences if seq.finish_reason is not None])

    @torch.inference_mode()
    def take_out(self, sequences: list[Sequence]) -> None:
        """Free the rows of these sequences. One that is not finished may join again and goes on where it was."""
        leaving = {id(seq) for seq in sequences}
        if leaving:
            for lane in self.lanes:
                lane.leave(leaving)
            self.sequences = [seq for seq in self.sequences if id(seq) not in leaving]
            self._find_rows()

    @torch.inference_mode()
    def fork(self, source: Sequence, copies: list[Sequence]) -> None:
        """Let these join, which are as far as one that is under way, without reading anything again."""
        for lane in self.lanes:
            lane.fork(source, copies)
        self.sequences += copies
        self._find_rows()

    def _find_rows(self) -> None:
        found: dict[int, dict[str, int]] = {id(seq): {} for seq in self.sequences}
        number = 0
        for lane in self.lanes:
            for seq, policy in lane.rows:
                found[id(seq)][policy.name] = number
                number += 1
        self._rows = {
            id(seq): torch.tensor([found[id(seq)][name] for name in seq.names], dtype=torch.long)
            for seq in self.sequences
        }
