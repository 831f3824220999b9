"""The key-value cache of the running batch, in slots that do not move.

A row is written from column 0 on, so a column is a position, and no data moves when rows of other lengths are admitted
or evicted. transformers reads and writes the cache through its own Cache class, one layer at a time.

Columns are stored in blocks: a single one of all columns, which any attention implementation can read, or blocks of 64
for block attention (engine/models/block_attention.py).
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicLayer

ROWS, RESERVED = 128, 2**30  # room from the beginning, if it takes no more bytes
BLOCK = 64  # columns of a block; there is room for a multiple of as many
AHEAD = 128  # positions that are copied at once before their rows are added


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
        """Write one new position per row, and return the keys and values that the rows attend to.

        Args:
            key_states: [rows, heads, 1, size].
            value_states: [rows, heads, 1, size].
            args: ignored.
            kwargs: ignored.

        Returns:
            Keys and values, each [rows, heads, seen, size]; if the cache is blocked, the layer's whole tensors.
        """
        # With layers on several devices, each has its keys and values beside it.
        rows, heads, _, _ = key_states.shape
        cells, seen = self.kv_cache.cells[heads].to(self.keys.device), self.kv_cache.seen
        self.keys.flatten(0, 3).index_copy_(0, cells, key_states.flatten(0, 2))
        self.values.flatten(0, 3).index_copy_(0, cells, value_states.flatten(0, 2))
        if self.kv_cache.blocked:
            return self.keys, self.values
        return self.keys[0, :rows, :, :seen], self.values[0, :rows, :, :seen]

    def get_seq_length(self) -> int:
        """Return the number of columns that a step attends to."""
        return self.kv_cache.seen


class KVCache:
    """The keys and values of all rows of one model, and their attention mask. Rows in use occupy the first slots.

    Attributes:
        static: a step computes all allocated slots and columns, as a captured CUDA graph requires; their number
            changes seldom. Otherwise a step computes those in use; columns for a whole response are allocated when it
            is admitted and kept until the cache is empty, because moving the cache takes as long as a few steps.
        blocked: columns are stored in blocks of BLOCK; otherwise in a single block.
        lengths: the number of positions of each row in use.
        slots: the number of rows that there is room for.
        columns: the number of positions of each that there is room for.
        positions: [computed, 1], the positions that the current step writes.
        bytes: the bytes that one row needs per position, known once a prompt has been read.
    """

    def __init__(self, static: bool = False, blocked: bool = False) -> None:
        self.static = static
        self.blocked = blocked
        self.lengths: list[int] = []  # of each row in use
        self.layers: list[KVCacheLayer] = []
        self.slots, self.columns = 0, 0
        self.positions = torch.zeros(0, 1, dtype=torch.long)  # [computed, 1], what the step under way writes
        # {heads: [computed * heads], where that is in a layer of so many heads, with all but its last dimension as one}
        self.cells: dict[int, Tensor] = {}
        self.longest = 0  # columns that the rows in use may come to need
        self.bytes = 0  # that one row needs a position; known when the first prompt has been read
        # {slot: (the layers it was copied from, of which rows, up to which position)}, after the rows in use
        self._prepared: dict[int, tuple[Sequence[DynamicLayer], list[int], int]] = {}

    @property
    def computed(self) -> int:
        """The number of rows that a step computes."""
        return self.slots if self.static else len(self.lengths)

    @property
    def seen(self) -> int:
        """The number of columns that a step attends to, rounded up to whole blocks if the cache is blocked."""
        if self.static:
            return self.columns
        longest = max(self.lengths, default=0)
        return -(-longest // BLOCK) * BLOCK if self.blocked else longest

    @property
    def reach(self) -> list[tuple[int, int]]:
        """The half-open range of rows with a position in each block that a step attends to."""
        found = []
        for begin in range(0, self.seen, BLOCK):
            rows = [row for row, length in enumerate(self.lengths) if length > begin]
            found.append((rows[0], rows[-1] + 1))
        return found

    def _parts(self, length: int) -> tuple[slice, slice]:
        """Return the blocks that hold the first `length` columns, and the columns to take from each block."""
        return (slice(-(-length // BLOCK)), slice(BLOCK)) if self.blocked else (slice(1), slice(length))

    def add(self, given: Sequence[DynamicLayer], source: list[int], length: int, room: int = 0) -> None:
        """Append rows of one length.

        Args:
            given: the layers of keys and values to copy from, each [rows, heads, length, size].
            source: for each new row, the row of `given` to copy.
            length: the number of positions.
            room: the number of columns that the new rows may need.
        """
        self.longest = max(self.longest, room)
        if not self.layers:
            self.layers = [KVCacheLayer(self) for _ in given]
            for layer, one in zip(self.layers, given, strict=True):
                assert one.keys is not None and one.values is not None
                layer.keys, layer.values = one.keys[None, :0], one.values[None, :0]
            every = [part for layer in self.layers for part in (layer.keys, layer.values)]
            self.bytes = sum(part.shape[2] * part.shape[4] * part.element_size() for part in every)
        self._make_room(len(self.lengths) + len(source), max(length, *self.lengths, 0))
        slot = len(self.lengths)
        self._write(given, source, slot, self._prepared_at(slot, given, source), length)
        self._prepared.pop(slot, None)
        self.lengths += [length] * len(source)

    def prepare(
        self, given: Sequence[DynamicLayer], source: list[int], length: int, room: int, known: int, after: int = 0
    ) -> None:
        """Copy some of the first positions of rows that are going to be added, so that `add` has less to copy.

        To copy the keys and values of a long prompt takes as long as several steps. What was copied is lost if the rows
        in use change before `add`, which then copies all.

        Args:
            given: as in `add`.
            source: as in `add`.
            length: as in `add`.
            room: as in `add`.
            known: the number of positions that `given` has so far.
            after: the number of rows that are going to be added before these.
        """
        # A static step writes to slots without rows; and where no row is in use, none waits.
        if self.static or not self.lengths:
            return
        self.longest = max(self.longest, room)
        slot = len(self.lengths) + after
        self._make_room(slot + len(source), max(length, *self.lengths))
        begin = self._prepared_at(slot, given, source)
        end = min(known, begin + AHEAD)
        if begin < end:
            self._write(given, source, slot, begin, end)
            self._prepared[slot] = given, source, end

    def forget_prepared(self) -> None:
        """Forget what `prepare` copied, and where from: its memory may be large."""
        self._prepared.clear()

    def _prepared_at(self, slot: int, given: Sequence[DynamicLayer], source: list[int]) -> int:
        """Return how many positions of these rows lie in the slots from this one on."""
        own, rows, end = self._prepared.get(slot, ((), [], 0))
        return end if own is given and rows == source else 0

    def _write(self, given: Sequence[DynamicLayer], source: list[int], slot: int, begin: int, end: int) -> None:
        """Copy the positions from `begin` to `end` of rows of `given` to the slots from `slot` on."""
        slots = slice(slot, slot + len(source))
        for other, (_, rows, _) in list(self._prepared.items()):
            if other < slots.stop and slot < other + len(rows) and other != slot:
                del self._prepared[other]
        for layer, one in zip(self.layers, given, strict=True):
            for part, new in ((layer.keys, one.keys), (layer.values, one.values)):
                assert new is not None
                wanted, width = new[:, :, begin:end], part.shape[3]
                # All rows in their order, as a prompt's policies are, need no copy of their own.
                rows = wanted if source == list(range(len(new))) else wanted[source]
                done = begin
                while done < end:
                    block, column = divmod(done, width)
                    until = min(done + width - column, end)
                    part[block, slots, :, column : column + until - done] = rows[:, :, done - begin : until - begin]
                    done = until

    def copy(self, source: list[int]) -> None:
        """Append copies of the rows with these numbers."""
        first, end, lengths = len(self.lengths), len(self.lengths) + len(source), [self.lengths[i] for i in source]
        self._make_room(end, max(self.lengths))
        blocks, columns = self._parts(max(lengths))
        for layer in self.layers:
            for part in (layer.keys, layer.values):
                part[blocks, first:end, :, columns] = part[blocks, :, :, columns][:, source]
        self.lengths += lengths
        self.forget_prepared()

    def remove(self, gone: list[int]) -> list[int]:
        """Free rows, and fill their slots with the last ones.

        Returns:
            For each remaining row, its number before.
        """
        self.forget_prepared()
        order = list(range(len(self.lengths)))
        for row in sorted(gone, reverse=True):
            last = order.pop()
            length = self.lengths.pop()
            if row == len(order):
                continue
            order[row], self.lengths[row] = last, length
            blocks, columns = self._parts(length)
            for layer in self.layers:
                for part in (layer.keys, layer.values):
                    part[blocks, row, :, columns] = part[blocks, len(order), :, columns]
        if not self.lengths:
            self.layers, self.slots, self.columns, self.longest = [], 0, 0, 0
        else:
            self._make_room(len(self.lengths), max(self.lengths))
        return order

    def begin_step(self) -> None:
        """Make room for one more position per row."""
        self._make_room(len(self.lengths), max(self.lengths) + 1)
        # Slots without a row compute values that are not read.
        at = [*self.lengths, *[0] * (self.computed - len(self.lengths))]
        self.positions = self.put(self.positions, [[column] for column in at])
        slots, width = self.slots, BLOCK if self.blocked else self.columns
        for heads in {layer.keys.shape[2] for layer in self.layers}:
            cells = [
                (((column // width) * slots + row) * heads + head) * width + column % width
                for row, column in enumerate(at)
                for head in range(heads)
            ]
            self.cells[heads] = self.put(self.cells.get(heads, torch.zeros(0)), cells)
        self.lengths = [length + 1 for length in self.lengths]

    def put(self, old: Tensor, values: list) -> Tensor:
        """Return the values as a tensor, in the old one's memory if shapes agree: a captured graph reads them there."""
        new = torch.tensor(values)
        device = self.layers[0].keys.device
        if old.shape == new.shape and old.device == device:
            return old.copy_(new)
        return new.to(device)

    def attention_mask(self, window: int | None = None, chunk: int | None = None) -> Tensor:
        """Return the mask of the current step, [computed, 1, 1, seen].

        Args:
            window: for sliding-window attention, the number of nearest positions that a row attends to.
            chunk: for chunked attention, the chunk size; a row attends to positions of its own chunk.
        """
        columns = torch.arange(self.seen, device=self.positions.device)
        unseen = columns > self.positions
        if chunk is not None:
            unseen |= columns < self.positions // chunk * chunk
        if window is not None:
            unseen |= columns <= self.positions - window
        dtype = self.layers[0].keys.dtype
        # Block attention sums its scores in 32 bits.
        mask = torch.zeros(unseen.shape, dtype=torch.float32 if self.blocked else dtype, device=unseen.device)
        return mask.masked_fill_(unseen, torch.finfo(dtype).min)[:, None, None]

    def _make_room(self, rows: int, longest: int) -> None:
        """Grow the cache to hold this many rows and columns; if static, also shrink it when it is four times larger."""
        slots, columns = self.slots, self.columns
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
        if (slots, columns) == (self.slots, self.columns):
            return
        self.forget_prepared()
        used, held = len(self.lengths), min(columns, self.columns)
        width = BLOCK if self.blocked else columns
        own, of_each = self._parts(held)
        for layer in self.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = zeros(old, (columns // width, slots, old.shape[2], width, old.shape[4]))
                if used:
                    new[own, :used, :, of_each] = old[own, :used, :, of_each]
                setattr(layer, name, new)
        self.slots, self.columns = slots, columns


def zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return zeros with the dtype and device of `like`.

    On a CPU the memory is mapped lazily, so that only written pages take time and space; torch.zeros fills it at once.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    memory = mmap.mmap(-1, math.prod(shape) * like.element_size())
    return torch.frombuffer(memory, dtype=like.dtype).view(shape)
