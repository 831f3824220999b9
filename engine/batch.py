"""The running batch: sequences join and leave between steps; it owns the KV cache.

Every (sequence, policy) pair is a row. Rows are aligned at their right end and padded at their left, so that all of
them write their next key and value to the same column, however long their prompts are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import Cache, DynamicLayer

from engine.mixing import Mixture
from engine.policies import Policy, PolicySet
from engine.sampling import Sampler, Sampling


@dataclass(eq=False)
class Sequence:
    """One response under way. `mixture` may change between steps, within the policies that have rows."""

    prompt: str
    mixture: Mixture
    sampling: Sampling
    sampler: Sampler
    policies: list[Policy]
    tokens: list[int] = field(default_factory=list)
    trace: list[dict[str, float]] = field(default_factory=list)  # of each token: {policy: log-prob}
    finish_reason: str | None = None  # end, length, stopped
    log_probs: Tensor | None = None  # [policies, V] of the token to come

    @property
    def names(self) -> list[str]:
        return [policy.name for policy in self.policies]


class GrowingLayer(DynamicLayer):
    """One layer's keys and values in a buffer with room to grow, so that a step writes one column and copies nothing.

    `keys`, `values`: [rows, heads, positions, size], views of the part in use.
    """

    ROOM = 64
    keys: Tensor
    values: Tensor

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._fill(key_states, value_states, 0)
        else:
            start = self.get_seq_length()
            if start + key_states.shape[-2] > self._keys.shape[-2]:
                self._fill(self.keys, self.values, start)
            end = start + key_states.shape[-2]
            self._keys[..., start:end, :] = key_states
            self._values[..., start:end, :] = value_states
            self.keys, self.values = self._keys[..., :end, :], self._values[..., :end, :]
        return self.keys, self.values

    def _fill(self, keys: Tensor, values: Tensor, room: int) -> None:
        """A new buffer that holds these, with room for as many again."""
        rows, heads, length, size = keys.shape
        self._keys = keys.new_zeros(rows, heads, length + max(room, self.ROOM), size)
        self._values = values.new_zeros(rows, heads, length + max(room, self.ROOM), values.shape[-1])
        self._keys[..., :length, :] = keys
        self._values[..., :length, :] = values
        self.keys, self.values = self._keys[..., :length, :], self._values[..., :length, :]

    def keep(self, rows: Tensor, first: int) -> None:
        """Only these rows, without the columns before `first`."""
        self._fill(self.keys[rows][..., first:, :], self.values[rows][..., first:, :], 0)

    def join(self, other: GrowingLayer) -> None:
        """Add another layer's rows below these, the shorter ones padded at their left."""
        longest = max(self.get_seq_length(), other.get_seq_length())
        joined = [
            torch.cat([torch.nn.functional.pad(part, (0, 0, longest - part.shape[-2], 0)) for part in parts])
            for parts in ((self.keys, other.keys), (self.values, other.values))
        ]
        self._fill(joined[0], joined[1], 0)


class Lane:
    """The rows of one model: their cache, mask and the log-probs of the token to come."""

    def __init__(self, policy_set: PolicySet, index: int) -> None:
        self.policy_set = policy_set
        self.index = index
        self.rows: list[tuple[Sequence, Policy]] = []
        self.layers: list[GrowingLayer] = []
        self.mask = torch.zeros(0, 0, dtype=torch.long)  # [rows, positions]
        self.log_probs = torch.zeros(0, 0)  # [rows, V], float32

    def _forward(
        self, rows: list[tuple[Sequence, Policy]], ids: Tensor, mask: Tensor, layers: list[GrowingLayer]
    ) -> Tensor:
        self.policy_set.set_gates(self.index, [policy for _, policy in rows])
        # Idle rows may run past the end of the context until they leave.
        positions = (mask.cumsum(-1) - 1).clamp(0, self.policy_set.context - 1)[:, -ids.shape[1] :]
        logits = self.policy_set.models[self.index](
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=Cache(layers=layers),
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1].float().log_softmax(-1)

    def join(self, rows: list[tuple[Sequence, Policy]]) -> None:
        """Read the new rows' prompts, and put them below the rows that are there."""
        ids, mask = self.policy_set.pad([self.policy_set.prompt_ids(policy, seq.prompt) for seq, policy in rows])
        count = self.policy_set.models[self.index].config.num_hidden_layers
        layers = [GrowingLayer() for _ in range(count)]
        log_probs = self._forward(rows, ids, mask, layers)
        if not self.rows:
            self.layers, self.mask, self.log_probs = layers, mask, log_probs
        else:
            for layer, new in zip(self.layers, layers, strict=True):
                layer.join(new)
            longest = max(self.mask.shape[1], mask.shape[1])
            self.mask = torch.cat([torch.nn.functional.pad(m, (longest - m.shape[1], 0)) for m in (self.mask, mask)])
            self.log_probs = torch.cat([self.log_probs, log_probs])
        self.rows = self.rows + rows

    def leave(self) -> None:
        """Drop the rows of finished sequences, and the columns that only they used."""
        kept = [i for i, (seq, _) in enumerate(self.rows) if seq.finish_reason is None]
        self.rows = [self.rows[i] for i in kept]
        if not kept:
            self.layers = []
            return
        rows = torch.tensor(kept, device=self.mask.device)
        self.mask = self.mask[rows]
        first = int(self.mask.any(0).int().argmax())
        self.mask = self.mask[:, first:]
        self.log_probs = self.log_probs[rows]
        for layer in self.layers:
            layer.keep(rows, first)

    def step(self) -> None:
        """Read every sequence's newest token."""
        newest = [[seq.tokens[-1]] for seq, _ in self.rows]
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        self.log_probs = self._forward(self.rows, torch.tensor(newest, device=self.mask.device), self.mask, self.layers)


class Batch:
    """All sequences under way, over all models."""

    def __init__(self, policy_set: PolicySet, max_rows: int = 320) -> None:
        self.policy_set = policy_set
        self.max_rows = max_rows
        self.sequences: list[Sequence] = []
        self.lanes = [Lane(policy_set, index) for index in range(len(policy_set.models))]

    def room(self) -> int:
        """How many more rows may join."""
        return self.max_rows - sum(len(lane.rows) for lane in self.lanes)

    @torch.inference_mode()
    def join(self, sequences: list[Sequence]) -> None:
        for lane in self.lanes:
            rows = [(seq, policy) for seq in sequences for policy in seq.policies if policy.model == lane.index]
            if rows:
                lane.join(rows)
        self.sequences += sequences
        self._hand_out(sequences)

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Draw one token for every sequence, and read it. Returns the sequences that got one."""
        drawn = [seq for seq in self.sequences if seq.finish_reason is None]
        for seq in drawn:
            assert seq.log_probs is not None
            token = seq.sampler.draw(seq.mixture.log_probs(seq.log_probs, seq.names))
            seq.tokens.append(token)
            seq.trace.append(dict(zip(seq.names, seq.log_probs[:, token].tolist(), strict=True)))
            if token in self.policy_set.stop_ids:
                seq.finish_reason = "end"
            elif len(seq.tokens) >= seq.sampling.max_new_tokens:
                seq.finish_reason = "length"
        self.leave()
        going = [seq for seq in self.sequences if seq.finish_reason is None]
        if going:
            for lane in self.lanes:
                if lane.rows:
                    lane.step()
            self._hand_out(going)
        return drawn

    def leave(self) -> None:
        """Let the finished rows go once they are a quarter: moving the others costs more than a few idle rows."""
        finished = sum(seq.finish_reason is not None for seq in self.sequences)
        if finished * 4 < len(self.sequences) or not finished:
            return
        for lane in self.lanes:
            lane.leave()
        self.sequences = [seq for seq in self.sequences if seq.finish_reason is None]

    def _hand_out(self, sequences: list[Sequence]) -> None:
        """Give every sequence the log-probs of its rows, in the order of its policies."""
        wanted = {id(seq) for seq in sequences}
        found: dict[int, dict[str, Tensor]] = {key: {} for key in wanted}
        for lane in self.lanes:
            for i, (seq, policy) in enumerate(lane.rows):
                if id(seq) in wanted:
                    found[id(seq)][policy.name] = lane.log_probs[i]
        for seq in sequences:
            seq.log_probs = torch.stack([found[id(seq)][name] for name in seq.names])
