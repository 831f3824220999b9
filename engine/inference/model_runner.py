"""Decode the rows of one model with its keys and values cached."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from engine.inference.cuda_graphs import StepGraphs
from engine.inference.kv_cache import KVCache
from engine.inference.sequence import Row, Sequence
from engine.models.block_attention import takes_blocks
from engine.models.cache_argument import CACHE
from engine.models.policy_set import Policy, PolicySet
from engine.rules.soup import SOUP


class ModelRunner:
    """Decode the rows of one model.

    Attributes:
        rows: the (sequence, policy) pairs.
        log_probs: [rows, V], float32, of each row's next token.
    """

    PREFILL = 8192  # the most positions that are read in one pass

    def __init__(self, policy_set: PolicySet, index: int, static: bool) -> None:
        self.policy_set = policy_set
        self.index = index
        self.rows: list[Row] = []
        self.kv_cache = KVCache(static, not static and takes_blocks(policy_set.models[index]))
        self.graphs = StepGraphs(policy_set.device)
        self._newest = torch.zeros(0, 1, dtype=torch.long)  # [computed, 1], what the step under way reads
        self.log_probs = torch.zeros(0, 0)  # [rows, V], float32

    def admit(self, rows: list[Row]) -> None:
        """Prefill new rows with their prompts, and their tokens if they were evicted before, and append them.

        Rows with the same text and policy, such as the panels of one prompt, are computed once. On a CPU only texts of
        one length share a pass: without padding, a row's log-probs are the same to the last bit whatever is admitted
        with it.
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
            self.kv_cache.add(cache, source, [len(part[i][1]) for i in source], max(seq.longest for seq, _ in rows))
            self.rows += rows
            new = self.policy_set.log_probs(logits[:, -1])[torch.tensor(source, device=logits.device)]
            self.log_probs = torch.cat([self.log_probs, new]) if len(self.log_probs) else new

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
        reach = {"reach": kv_cache.reach} if kv_cache.blocked else {}

        def read() -> Tensor:
            return self.policy_set.models[self.index](
                input_ids=self._newest,
                attention_mask=self.policy_set.masks(self.index, kv_cache.attention_mask),
                position_ids=kv_cache.positions,
                use_cache=True,
                logits_to_keep=1,
                **{CACHE: Cache(layers=kv_cache.layers)},
                **reach,
            ).logits

        logits = self.graphs.run((kv_cache.mask.shape, kv_cache.mask.data_ptr()), read)
        self.log_probs = self.policy_set.log_probs(logits[: len(self.rows), -1])


class RereadingRunner(ModelRunner):
    """Decode a model whose output changes with a key-value cache: each token recomputes each row's whole text alone."""

    def admit(self, rows: list[Row]) -> None:
        """Compute the new rows' texts, and append them."""
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
