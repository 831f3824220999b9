"""Where the rows of the running batch keep their keys and values: slots that stay where they are.

A row is written from column 0 on, so a column is a position: nothing moves when rows of other lengths join or leave.
transformers reads and writes it through its own Cache class, one layer at a time.

Columns come in blocks: one of them all, which is what every attention reads, or many of 64, which ours does
(engine/models/block_attention.py).
"""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor
from transformers import Cache, DynamicLayer

ROWS, RESERVED = 128, 2**30  # room from the beginning, if it takes no more bytes
BLOCK = 64  # columns of a block; there is room for a multiple of as many


class KVCacheLayer(DynamicLayer):
    """One layer's keys and values, [blocks, slots, heads, width, size]: column c is in block c // width."""

    keys: Tensor
    values: Tensor

    def __init__(self, slots: KVCache) -> None:
        super().__init__()
        self.kv_cache = slots
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write one new position a row, [rows, heads, 1, size]; returns all that the rows may see, [rows, heads, seen,
        size], or the blocks."""
        # With layers on several devices, each has its keys and values beside it.
        rows, heads, _, _ = key_states.shape
        cells, seen = self.kv_cache.cells[heads].to(self.keys.device), self.kv_cache.seen
        self.keys.flatten(0, 3).index_copy_(0, cells, key_states.flatten(0, 2))
        self.values.flatten(0, 3).index_copy_(0, cells, value_states.flatten(0, 2))
        if self.kv_cache.blocked:
            return self.keys, self.values
        return self.keys[0, :rows, :, :seen], self.values[0, :rows, :, :seen]

    def get_seq_length(self) -> int:
        return self.kv_cache.seen


class KVCache:
    """The keys and values of all rows of one model, the rows in use in front, and the mask of what each may see.

    static: a step computes all slots and columns that there is room for, as a captured CUDA graph needs it; their
    number changes seldom. Else it computes those in use, and room is made for the whole of a response when it begins,
    and kept until the last one has left: to move what is there takes as long as a few tokens of everybody's.
    blocked: columns lie in blocks of BLOCK; else there is one block of them all.
    """

    def __init__(self, static: bool = False, blocked: bool = False) -> None:
        self.static = static
        self.blocked = blocked
        self.lengths: list[int] = []  # of each row in use
        self.layers: list[KVCacheLayer] = []
        self.mask = torch.zeros(0, 0)  # [slots, columns], added to the attention's scores
        self.positions = torch.zeros(0, 1, dtype=torch.long)  # [computed, 1], what the step under way writes
        # {heads: [computed * heads], where that is in a layer of so many heads, with all but its last dimension as one}
        self.cells: dict[int, Tensor] = {}
        self.longest = 0  # columns that the rows in use may come to need
        self.bytes = 0  # that one row needs a position; known when the first prompt has been read

    @property
    def computed(self) -> int:
        """How many rows a step computes."""
        return self.mask.shape[0] if self.static else len(self.lengths)

    @property
    def seen(self) -> int:
        """How many columns a step attends to, whole blocks where there are several."""
        if self.static:
            return self.mask.shape[1]
        longest = max(self.lengths, default=0)
        return -(-longest // BLOCK) * BLOCK if self.blocked else longest

    @property
    def reach(self) -> list[tuple[int, int]]:
        """For each block that a step attends to the first row that has a position in it, and the one after the last."""
        found = []
        for begin in range(0, self.seen, BLOCK):
            rows = [row for row, length in enumerate(self.lengths) if length > begin]
            found.append((rows[0], rows[-1] + 1))
        return found

    def _parts(self, length: int) -> tuple[slice, slice]:
        """The blocks that hold so many columns, and the columns in each of them."""
        return (slice(-(-length // BLOCK)), slice(BLOCK)) if self.blocked else (slice(1), slice(length))

    def add(self, prefilled: Cache, source: list[int], lengths: list[int], room: int = 0) -> None:
        """New rows below the others: each is the last `length` positions of row `source` of what was prefilled. room:
        columns that they may come to need."""
        self.longest = max(self.longest, room)
        first, end, longest = len(self.lengths), len(self.lengths) + len(lengths), max(lengths)
        keys = prefilled.layers[0].keys
        assert keys is not None
        if not self.layers:
            self.layers = [KVCacheLayer(self) for _ in prefilled.layers]
            for layer, given in zip(self.layers, prefilled.layers, strict=True):
                layer.keys, layer.values = given.keys[None, :0], given.values[None, :0]
            self.mask = torch.zeros(0, 0, dtype=keys.dtype, device=keys.device)
            every = [part for layer in self.layers for part in (layer.keys, layer.values)]
            self.bytes = sum(part.shape[2] * part.shape[4] * part.element_size() for part in every)
        self._make_room(end, max(longest, *self.lengths, 0))
        columns = torch.arange(longest, device=keys.device)
        starts = torch.tensor([keys.shape[2] - length for length in lengths], device=keys.device)
        at = (starts[:, None] + columns).clamp(max=keys.shape[2] - 1)  # [rows, longest]
        rows = torch.tensor(source, device=keys.device)[:, None]
        for layer, given in zip(self.layers, prefilled.layers, strict=True):
            here = rows.to(given.keys.device), at.to(given.keys.device)
            for part, old in ((layer.keys, given.keys), (layer.values, given.values)):
                new = old.transpose(1, 2)[here].transpose(1, 2)  # [rows, heads, longest, size]
                for block, piece in enumerate(new.split(part.shape[3], 2)):
                    part[block, first:end, :, : piece.shape[2]] = piece
        unseen = columns >= torch.tensor(lengths, device=keys.device)[:, None]
        lowest = torch.finfo(self.mask.dtype).min
        self.mask[first:end] = lowest
        self.mask[first:end, :longest].masked_fill_(~unseen, 0)
        self.lengths += lengths

    def copy(self, source: list[int]) -> None:
        """New rows below the others that have seen what these have."""
        first, end, lengths = len(self.lengths), len(self.lengths) + len(source), [self.lengths[i] for i in source]
        self._make_room(end, max(self.lengths))
        blocks, columns = self._parts(max(lengths))
        for layer in self.layers:
            for part in (layer.keys, layer.values):
                part[blocks, first:end, :, columns] = part[blocks, :, :, columns][:, source]
        self.mask[first:end] = self.mask[source]
        self.lengths += lengths

    def remove(self, gone: list[int]) -> list[int]:
        """Free these rows; the last ones take their places. Returns for every row that is left where it was."""
        order = list(range(len(self.lengths)))
        for row in sorted(gone, reverse=True):
            last = order.pop()
            length = self.lengths.pop()
            if row == len(order):
                continue
            order[row], self.lengths[row] = last, length
            self.mask[row] = self.mask[len(order)]
            blocks, columns = self._parts(length)
            for layer in self.layers:
                for part in (layer.keys, layer.values):
                    part[blocks, row, :, columns] = part[blocks, len(order), :, columns]
        if not self.lengths:
            self.layers, self.mask, self.longest = [], self.mask[:0, :0], 0
        else:
            self._make_room(len(self.lengths), max(self.lengths))
        return order

    def begin_step(self) -> None:
        """Make room for one more position a row, and let every row see its own."""
        self._make_room(len(self.lengths), max(self.lengths) + 1)
        # KVCache without a row compute what nobody reads.
        at = [*self.lengths, *[0] * (self.computed - len(self.lengths))]
        self.positions = self.put(self.positions, [[column] for column in at])
        self.mask[: len(at)].scatter_(1, self.positions, 0)
        slots, columns = self.mask.shape
        width = BLOCK if self.blocked else columns
        for heads in {layer.keys.shape[2] for layer in self.layers}:
            cells = [
                (((column // width) * slots + row) * heads + head) * width + column % width
                for row, column in enumerate(at)
                for head in range(heads)
            ]
            self.cells[heads] = self.put(self.cells.get(heads, torch.zeros(0)), cells)
        self.lengths = [length + 1 for length in self.lengths]

    def put(self, old: Tensor, values: list) -> Tensor:
        """The values in the old tensor's place, if it has their shape: a captured graph reads them there."""
        new = torch.tensor(values)
        if old.shape == new.shape and old.device == self.mask.device:
            return old.copy_(new)
        return new.to(self.mask.device)

    def attention_mask(self, window: int | None = None, chunk: int | None = None) -> Tensor:
        """[computed, 1, 1, seen] of the step under way; with a window, a row sees only its nearest positions, with
        chunks only those of its own chunk."""
        mask = self.mask[: self.computed, : self.seen]
        if chunk is not None:
            before = torch.arange(self.seen, device=mask.device) < self.positions // chunk * chunk
            mask = mask.masked_fill(before, torch.finfo(mask.dtype).min)
        if window is not None:
            far = torch.arange(self.seen, device=mask.device) <= self.positions - window
            mask = mask.masked_fill(far, torch.finfo(mask.dtype).min)
        return mask[:, None, None]

    def _make_room(self, rows: int, longest: int) -> None:
        """Room for as many rows and columns: more when there is too little; when it is static, less when there is four
        times too much."""
        slots, columns = self.mask.shape
        spare = 4 if self.static else math.inf
        if not slots / spare < rows <= slots:
            slots = 1 << (rows - 1).bit_length()
            if not self.static:
                slots = max(slots, min(ROWS, RESERVED // (self.bytes * (longest + self.longest))))
        if not columns / spare < longest <= columns:
            # A quarter more than is needed now, so that a long response seldom moves.
            columns = -(-longest * 5 // 4 // BLOCK) * BLOCK if columns else -(-(longest + BLOCK) // BLOCK) * BLOCK
            if not self.static:
                columns = max(columns, -(-self.longest // BLOCK) * BLOCK)
        if (slots, columns) == tuple(self.mask.shape):
            return
        used, held = len(self.lengths), min(columns, self.mask.shape[1])
        width = BLOCK if self.blocked else columns
        own, of_each = self._parts(held)
        for layer in self.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = zeros(old, (columns // width, slots, old.shape[2], width, old.shape[4]))
                if used:
                    new[own, :used, :, of_each] = old[own, :used, :, of_each]
                setattr(layer, name, new)
        mask = self.mask.new_full((slots, columns), torch.finfo(self.mask.dtype).min)
        mask[:, 0] = 0  # a row that saw nothing would be NaN
        mask[:used, :held] = self.mask[:used, :held]
        self.mask = mask


def zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of the same kind. On a CPU their memory takes time and space only where something is written: torch's own
    fills all of it at once."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    memory = mmap.mmap(-1, math.prod(shape) * like.element_size())
    return torch.frombuffer(memory, dtype=like.dtype).view(shape)
