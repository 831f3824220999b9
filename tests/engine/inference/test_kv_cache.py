"""The cache of the running batch, compared with one that copies rows only when they are added."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import DynamicLayer

from engine.inference.kv_cache import AHEAD, KVCache

LAYERS, HEADS, SIZE = 2, 2, 4


def layers_of(rows: int, length: int, seed: int) -> list[DynamicLayer]:
    generator = torch.Generator().manual_seed(seed)
    layers = [DynamicLayer() for _ in range(LAYERS)]
    for layer in layers:
        layer.keys, layer.values = torch.randn(2, rows, HEADS, length, SIZE, generator=generator).unbind()
    return layers


def contents(cache: KVCache) -> list[Tensor]:
    """For each row in use, its keys and values in all layers, [layers, 2, heads, length, size]."""
    found = []
    for row, length in enumerate(cache.lengths):
        parts = [
            torch.stack([part[:, row].transpose(0, 1).flatten(1, 2)[:, :length] for part in (layer.keys, layer.values)])
            for layer in cache.layers
        ]
        found.append(torch.stack(parts))
    return found


def step(caches: Sequence[KVCache], seed: int) -> None:
    new = torch.randn(LAYERS, 2, len(caches[0].lengths), HEADS, 1, SIZE, generator=torch.Generator().manual_seed(seed))
    for cache in caches:
        cache.begin_step()
        for layer, (keys, values) in zip(cache.layers, new, strict=True):
            layer.update(keys, values)


@pytest.mark.parametrize("blocked", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_rows_that_were_prepared_are_those_that_were_not(blocked: bool, seed: int) -> None:
    """Whatever happens between a row's first position and its last one."""
    rng = random.Random(seed)
    cache, plain = KVCache(blocked=blocked), KVCache(blocked=blocked)
    for number in range(12):
        length, rows = rng.choice([5, 64, 65, 200, 500]), rng.randint(1, 3)
        given = layers_of(rows, length, seed * 100 + number)
        source = list(range(rows)) if rng.random() < 0.5 else rng.choices(range(rows), k=rows + 1)
        room, known, beside = length + 50, 0, layers_of(1, 100, number)
        while known < length:
            known = min(known + rng.choice([32, 64, 200]), length)
            cache.prepare(given, source, length, room, known)
            cache.prepare(beside, [0], 100, 150, min(known, 100), rng.choice([len(source), len(source), 0, 1]))
            if cache.lengths and rng.random() < 0.5:
                step([cache, plain], number)
            if len(cache.lengths) > 1 and rng.random() < 0.15:
                gone = [rng.randrange(len(cache.lengths))]
                assert cache.remove(gone) == plain.remove(gone)
            elif cache.lengths and rng.random() < 0.1:
                other = layers_of(1, 10, number)
                for each in (cache, plain):
                    each.add(other, [0], 10)
            elif cache.lengths and rng.random() < 0.1:
                for each in (cache, plain):
                    each.copy([0])
        for each in (cache, plain):
            each.add(given, source, length, room)
            each.add(beside, [0], 100, 150)
        for own, expected in zip(contents(cache), contents(plain), strict=True):
            assert torch.equal(own, expected)


def test_what_was_prepared_is_not_copied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    write = KVCache._write

    def note(self: KVCache, given: Sequence[DynamicLayer], source: list[int], slot: int, begin: int, end: int) -> None:
        written.append((begin, end))
        write(self, given, source, slot, begin, end)

    monkeypatch.setattr(KVCache, "_write", note)
    cache = KVCache(blocked=True)
    cache.add(layers_of(1, 10, 0), [0], 10)
    written.clear()
    long = layers_of(2, 3 * AHEAD, 1)
    for known in (100, 150, 3 * AHEAD, 3 * AHEAD):
        cache.prepare(long, [0, 1], 3 * AHEAD, 500, known)
        step([cache], known)
    cache.add(long, [0, 1], 3 * AHEAD, 500)
    assert written == [(0, 100), (100, 150), (150, 150 + AHEAD), (150 + AHEAD, 3 * AHEAD), (3 * AHEAD, 3 * AHEAD)]
    # After a row has left, everything is copied; nothing is where no row waits, or a static step writes everywhere.
    cache.prepare(long, [0, 1], 3 * AHEAD, 500, 200)
    cache.remove([0])
    written.clear()
    cache.add(long, [0, 1], 3 * AHEAD, 500)
    assert written == [(0, 3 * AHEAD)]
    written.clear()
    KVCache(blocked=True).prepare(long, [0], 3 * AHEAD, 500, 100)
    assert not written
    static = KVCache(static=True)
    static.add(long, [0], 3 * AHEAD)
    written.clear()
    static.prepare(long, [0], 3 * AHEAD, 500, 100)
    assert not written
