"""Reading prompts in pieces, between the steps of other responses.

A piece begins at a multiple of the piece's length, wherever a text is read and whatever was reused of it, so that its
keys and values are the same to the last bit.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import Cache, DynamicLayer

from engine.models.cache_argument import CACHE

if TYPE_CHECKING:
    from engine.models.policy_set import Policy, PolicySet

# Positions. On a CPU a pass over one row of these takes about as long as two steps; a GPU wants more at once.
PIECE, PIECE_ON_GPU = 32, 512

Text = tuple["Policy", tuple[int, ...]]  # token ids, and the policy that reads them


def piece_on(device: torch.device) -> int:
    """Return the number of positions of a piece on a device."""
    return PIECE if device.type == "cpu" else PIECE_ON_GPU


class ReadingLayer(DynamicLayer):
    """One layer's keys and values of the texts of a reading, [texts, heads, length, size]."""

    keys: Tensor
    values: Tensor

    def __init__(self, reading: PromptReading) -> None:
        super().__init__()
        self.reading = reading

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write a piece of some texts, and return all that was read of them.

        Args:
            key_states: [rows, heads, positions, size].
            value_states: [rows, heads, positions, size].
            args: ignored.
            kwargs: ignored.

        Returns:
            Keys and values, each [rows, heads, positions so far, size].
        """
        reading = self.reading
        if not self.is_initialized:
            self.make_room(key_states, value_states)
        rows, end = reading.rows, reading.begin + key_states.shape[2]
        self.keys[rows, :, reading.begin : end] = key_states
        self.values[rows, :, reading.begin : end] = value_states
        return self.keys[rows, :, :end], self.values[rows, :, :end]

    def make_room(self, keys: Tensor, values: Tensor) -> None:
        """Allocate room for all texts, with the heads, size, dtype and device of these keys and values."""
        for name, part in (("keys", keys), ("values", values)):
            shape = (len(self.reading.texts), part.shape[1], self.reading.length, part.shape[3])
            setattr(self, name, part.new_empty(shape))
        self.is_initialized = True

    def get_seq_length(self) -> int:
        """Return the number of positions before the piece that is being read."""
        return self.reading.begin


class PromptReading:
    """Texts of one length that are read together.

    Attributes:
        texts: the texts.
        length: their length.
        done: for each text, the number of positions that have been read.
        layers: the keys and values; empty before the first pass.
        log_probs: for each text, the next-token log-probs [V] once it has been read.
        rows: the texts of the pass under way.
        begin: the first position of the pass under way.
    """

    def __init__(self, texts: list[Text], device: torch.device) -> None:
        self.texts = texts
        self.length = len(texts[0][1])
        self.piece = piece_on(device)
        self.done = [0] * len(texts)
        self.cache = Cache(layer_class_to_replicate=partial(ReadingLayer, self))
        self.log_probs: list[Tensor | None] = [None] * len(texts)
        self.rows, self.begin = slice(0), 0

    @property
    def layers(self) -> list[ReadingLayer]:
        """The keys and values of each layer."""
        return self.cache.layers

    @property
    def left(self) -> int:
        """The number of positions of all texts that are still to be read."""
        return sum(self.length - done for done in self.done)

    @property
    def bytes(self) -> int:
        """The memory of the keys, values and log-probs."""
        kept = [part for layer in self.layers for part in (layer.keys, layer.values)]
        kept += [log_probs for log_probs in self.log_probs if log_probs is not None]
        return sum(part.numel() * part.element_size() for part in kept)

    def take(self, row: int, other: PromptReading, other_row: int, count: int) -> None:
        """Copy the first positions of another reading's text, which has the same tokens there.

        Args:
            row: the text.
            other: the other reading.
            other_row: its text.
            count: the number of positions: whole pieces, or the whole text.
        """
        for place, old in enumerate(other.layers):
            if place == len(self.layers):
                self.layers.append(ReadingLayer(self))
                self.layers[place].make_room(old.keys, old.values)
            self.layers[place].keys[row, :, :count] = old.keys[other_row, :, :count]
            self.layers[place].values[row, :, :count] = old.values[other_row, :, :count]
        self.done[row] = count
        if count == self.length:
            self.log_probs[row] = other.log_probs[other_row]

    def read(self, policy_set: PolicySet, index: int, most: int) -> int:
        """Read the next piece of the texts of which least has been read.

        Args:
            policy_set: the policies.
            index: the number of the model.
            most: the number of positions to read at most; a piece of one text is read in any case.

        Returns:
            The number of positions that were read.
        """
        begin = min(self.done)
        end = min(begin // self.piece * self.piece + self.piece, self.length)
        first = self.done.index(begin)
        last = first + 1
        while last < len(self.done) and self.done[last] == begin and (last + 1 - first) * (end - begin) <= most:
            last += 1
        self.rows, self.begin = slice(first, last), begin
        texts = self.texts[self.rows]
        ids = torch.tensor([tokens[begin:end] for _, tokens in texts], device=policy_set.device)
        mask = torch.ones(len(texts), end, dtype=torch.long, device=policy_set.device)
        # Of all but the last piece no logits are wanted; a model of other code may take only a number here.
        own = type(policy_set.models[index]).__module__.startswith("transformers.")
        keep = ids.new_empty(0) if own and end < self.length else 1
        logits = policy_set.forward(
            *(index, [policy for policy, _ in texts], ids, mask),
            use_cache=True,
            logits_to_keep=keep,
            **{CACHE: self.cache},
        )
        for row in range(first, last):
            self.done[row] = end
        if end == self.length:
            self.log_probs[self.rows] = policy_set.log_probs(logits[:, -1]).clone().unbind()
        return (last - first) * (end - begin)
