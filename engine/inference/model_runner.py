"""Decode the rows of one model with its keys and values cached."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Cache

from engine.inference.cuda_graphs import StepGraphs
from engine.inference.kv_cache import KVCache
from engine.inference.prefix_cache import PrefixCache
from engine.inference.prompt_reading import PromptReading, Text
from engine.inference.sequence import Row, Sequence
from engine.models.block_attention import takes_blocks
from engine.models.cache_argument import CACHE
from engine.models.policy_set import Policy, PolicySet
from engine.models.prepacked_linear import memory_of
from engine.rules.soup import SOUP

PREFILL = 8192  # the most positions of a reading's texts, and of a pass


class Begun(NamedTuple):
    """Where a row's text is being read, and how many positions the row may come to need."""

    reading: PromptReading
    place: int
    longest: int


class ModelRunner:
    """Decode the rows of one model.

    Attributes:
        rows: the (sequence, policy) pairs.
        log_probs: [rows, V], float32, of each row's next token.
    """

    def __init__(self, policy_set: PolicySet, index: int, static: bool) -> None:
        self.policy_set = policy_set
        self.index = index
        self.rows: list[Row] = []
        self.kv_cache = KVCache(static, not static and takes_blocks(policy_set.models[index]))
        self.prefix_cache = PrefixCache(memory_of(policy_set.models[index]))
        self.graphs = StepGraphs(policy_set.device)
        self._newest = torch.zeros(0, 1, dtype=torch.long)  # [computed, 1], what the step under way reads
        self.log_probs = torch.zeros(0, 0)  # [rows, V], float32
        # {(id of a sequence, policy): ...}, in the order in which they will be rows
        self._begun: dict[tuple[int, str], Begun] = {}

    def begin(self, rows: list[Row]) -> list[PromptReading]:
        """Begin to read the prompts of new rows, and their tokens if they were evicted before.

        Rows with the same text and policy, such as the panels of one prompt, are computed once. Only texts of one
        length share a pass: without padding, a row's log-probs on a CPU are the same to the last bit whatever is read
        with it.

        Returns:
            The readings that are not complete.
        """
        wanted: dict[Text, list[Row]] = {}
        for seq, policy in rows:
            text = (self._acting(seq, policy), (*seq.prompt_ids[policy.name], *seq.tokens))
            wanted.setdefault(text, []).append((seq, policy))
        parts: list[list[Text]] = [[]]
        for text in sorted(wanted, key=lambda text: len(text[1])):
            full = (len(parts[-1]) + 1) * len(text[1]) > PREFILL
            if parts[-1] and (full or len(text[1]) != len(parts[-1][-1][1])):
                parts.append([])
            parts[-1].append(text)
        readings = [PromptReading(part, self.policy_set.device) for part in parts]
        places = {}
        for reading in readings:
            self.prefix_cache.fill(reading)
            for place, text in enumerate(reading.texts):
                for seq, policy in wanted[text]:
                    places[id(seq), policy.name] = Begun(reading, place, seq.longest)
        for seq, policy in rows:
            self._begun[id(seq), policy.name] = places[id(seq), policy.name]
        return [reading for reading in readings if reading.left]

    def read(self, reading: PromptReading, most: int) -> int:
        """Read the next piece of a reading; return the number of positions. See `PromptReading.read`."""
        count = reading.read(self.policy_set, self.index, most)
        if self._begun:
            self._prepare(reading)
        if not reading.left:
            self.prefix_cache.keep(reading)
        return count

    def _prepare(self, reading: PromptReading) -> None:
        """Copy some of a reading's keys and values to where its rows are going to be, if it is of the longest text.

        Its rows are expected to join at once with those of all sequences that have a text in common with it.
        """
        (id_of_longest, _), _ = max(self._begun.items(), key=lambda each: each[1].reading.length)
        shared = {begun.reading for (id_, _), begun in self._begun.items() if id_ == id_of_longest}
        joining = {id_ for (id_, _), begun in self._begun.items() if begun.reading in shared}
        parts: dict[PromptReading, list[Begun]] = {}
        for (id_, _), begun in self._begun.items():
            if id_ in joining:
                parts.setdefault(begun.reading, []).append(begun)
        after = 0
        for each, rows in parts.items():
            if each is reading:
                room = max(begun.longest for begun in rows)
                source = [begun.place for begun in rows]
                self.kv_cache.prepare(reading.layers, source, reading.length, room, min(reading.done), after)
            after += len(rows)

    def is_read(self, seq: Sequence) -> bool:
        """Return whether the texts of all rows of a sequence have been read."""
        own = [self._begun.get((id(seq), policy.name)) for policy in self._policies(seq)]
        return all(begun is not None and begun.reading.log_probs[begun.place] is not None for begun in own)

    def join(self, sequences: list[Sequence]) -> None:
        """Append the rows of sequences whose texts have been read."""
        parts: dict[PromptReading, list[tuple[int, Row]]] = {}
        for seq in sequences:
            for policy in self._policies(seq):
                reading, place, _ = self._begun.pop((id(seq), policy.name))
                parts.setdefault(reading, []).append((place, (seq, policy)))
        for reading, found in parts.items():
            self.kv_cache.add(
                reading.layers,
                [place for place, _ in found],
                reading.length,
                max(seq.longest for _, (seq, _) in found),
            )
            self.rows += [row for _, row in found]
            new = torch.stack([log_probs for place, _ in found if (log_probs := reading.log_probs[place]) is not None])
            self.log_probs = torch.cat([self.log_probs, new]) if len(self.log_probs) else new

    def leave(self, leaving: set[int]) -> set[PromptReading]:
        """Forget the texts of the sequences with these ids (of `id()`); return the readings that others want."""
        self._begun = {key: begun for key, begun in self._begun.items() if key[0] not in leaving}
        self.kv_cache.forget_prepared()
        return {begun.reading for begun in self._begun.values()}

    def _policies(self, seq: Sequence) -> list[Policy]:
        return [policy for policy in seq.policies if policy.model == self.index]

    def _acting(self, seq: Sequence, policy: Policy) -> Policy:
        """Return the policy at the sequence's weights; a soup that is no longer the mixture keeps its last weights."""
        if policy.name == SOUP and (seq.soup_mixture is None or seq.mixture.averages_adapters):
            seq.soup_mixture = seq.mixture
        return self.policy_set.acting(policy, seq.soup_mixture or seq.mixture)

    def fork(self, source: Sequence, copies: list[Sequence]) -> None:
        """Add rows for copies of a sequence, with the source's keys, values and log-probs."""
        own = [i for i, (seq, _) in enumerate(self.rows) if seq is source]
        if own:
            every = own * len(copies)
            self.kv_cache.copy(every)
            self.rows += [(copy, self.rows[i][1]) for copy in copies for i in own]
            at = torch.tensor(every, device=self.log_probs.device)
            self.log_probs = torch.cat([self.log_probs, self.log_probs[at]])

    def evict(self, leaving: set[int]) -> None:
        """Free the rows of the sequences with these ids (of `id()`)."""
        gone = [i for i, (seq, _) in enumerate(self.rows) if id(seq) in leaving]
        if gone:
            order = self.kv_cache.remove(gone)
            self.rows = [self.rows[i] for i in order]
            self.log_probs = self.log_probs[torch.tensor(order, dtype=torch.long, device=self.log_probs.device)]

    def step(self) -> None:
        """Run the model on every sequence's newest token, and update `log_probs`."""
        kv_cache = self.kv_cache
        kv_cache.begin_step()
        idle = kv_cache.computed - len(self.rows)
        newest = [*([seq.tokens[-1]] for seq, _ in self.rows), *([0] for _ in range(idle))]
        policies = [self._acting(seq, policy) for seq, policy in self.rows]
        self.policy_set.set_gates(self.index, policies + policies[:1] * idle)
        self._newest = kv_cache.put(self._newest, newest)
        reach = kv_cache.reach if kv_cache.blocked else None
        short = self.policy_set.short.get(self.index)

        def read() -> Tensor:
            masks = self.policy_set.masks(self.index, kv_cache.attention_mask)
            if short and reach is not None:
                return short(self._newest, kv_cache.positions, masks, kv_cache.layers, reach)
            return self.policy_set.models[self.index](
                input_ids=self._newest,
                attention_mask=masks,
                position_ids=kv_cache.positions,
                use_cache=True,
                logits_to_keep=1,
                **{CACHE: Cache(layers=kv_cache.layers)},
                **({} if reach is None else {"reach": reach}),
            ).logits

        logits = self.graphs.run((kv_cache.slots, kv_cache.columns, kv_cache.layers[0].keys.data_ptr()), read)
        self.log_probs = self.policy_set.log_probs(logits[: len(self.rows), -1])


class RereadingRunner(ModelRunner):
    """Decode a model whose output changes with a key-value cache: each token recomputes each row's whole text alone."""

    def begin(self, rows: list[Row]) -> list[PromptReading]:
        """Return no readings: texts are computed when their sequences join."""
        return []

    def is_read(self, seq: Sequence) -> bool:
        """Return True."""
        return True

    def join(self, sequences: list[Sequence]) -> None:
        """Compute the new rows' texts, and append them."""
        rows = [(seq, policy) for seq in sequences for policy in self._policies(seq)]
        if rows:
            new = self._read(rows)
            self.rows += rows
            self.log_probs = torch.cat([self.log_probs, new]) if len(self.log_probs) else new

    def fork(self, source: Sequence, copies: list[Sequence]) -> None:
        """Add rows for copies of a sequence, with the source's log-probs."""
        own = [i for i, (seq, _) in enumerate(self.rows) if seq is source]
        self.log_probs = torch.cat([self.log_probs, self.log_probs[own * len(copies)]])
        self.rows += [(copy, self.rows[i][1]) for copy in copies for i in own]

    def evict(self, leaving: set[int]) -> None:
        """Drop the rows of the sequences with these ids (of `id()`)."""
        stay = [i for i, (seq, _) in enumerate(self.rows) if id(seq) not in leaving]
        self.rows = [self.rows[i] for i in stay]
        self.log_probs = self.log_probs[stay]

    def step(self) -> None:
        """Recompute every row's text with its newest token, and update `log_probs`."""
        self.log_probs = self._read(self.rows)

    def _read(self, rows: list[Row]) -> Tensor:
        """Return next-token log-probs [rows, V]; rows with the same text and policy are computed once."""
        readings = [(self._acting(seq, policy), (*seq.prompt_ids[policy.name], *seq.tokens)) for seq, policy in rows]
        found = {}
        for policy, text in dict.fromkeys(readings):
            ids, mask = self.policy_set.pad([list(text)])
            logits = self.policy_set.forward(self.index, [policy], ids, mask, use_cache=False)
            found[policy, text] = self.policy_set.log_probs(logits[0, -1])
        return torch.stack([found[reading] for reading in readings])


def runner_for(policy_set: PolicySet, index: int, static: bool) -> ModelRunner:
    """Return a runner for a model: without a cache if the policy set marks the model for rereading.

    Args:
        policy_set: the policies.
        index: the model's number in `policy_set.models`.
        static: whether the cache keeps fixed shapes; see `KVCache`.
    """
    kind = RereadingRunner if index in policy_set.reread else ModelRunner
    return kind(policy_set, index, static)


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes; for a CPU, whose free memory fluctuates, always 8 GiB."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 8 * 2**30
