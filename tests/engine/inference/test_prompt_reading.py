"""Prompts are read in pieces beside others' steps, and what was read is not read again: the same bits in every way."""

from __future__ import annotations

import random

import pytest
import torch

from engine import Engine, Sampling
from engine.inference import scheduler
from engine.inference.batch import Batch
from engine.inference.model_runner import ModelRunner
from engine.inference.prefix_cache import PrefixCache, shared
from engine.inference.prompt_reading import PIECE, PromptReading
from engine.inference.sequence import Sequence
from tests.engine.inference.test_batch import make

SAMPLING = Sampling(max_new_tokens=40, temperature=1.0)


def text(engine: Engine, length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(5, len(engine.policy_set.tokenizer)), k=length))


def read(engine: Engine, *texts: tuple[int, ...], most: int = 10**6, known: PrefixCache | None = None) -> PromptReading:
    """The texts, which are of one length, read by two policies each."""
    policies = engine.policy_set.policies[:2]
    reading = PromptReading([(policy, tokens) for tokens in texts for policy in policies], engine.policy_set.device)
    with torch.inference_mode():
        if known:
            known.fill(reading)
        while reading.left:
            reading.read(engine.policy_set, 0, most)
        if known:
            known.keep(reading)
    return reading


def assert_same(first: PromptReading, second: PromptReading) -> None:
    for one, other in zip(first.layers, second.layers, strict=True):
        assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)
    for one, other in zip(first.log_probs, second.log_probs, strict=True):
        assert one is not None and other is not None and torch.equal(one, other)


@pytest.mark.parametrize("length", [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5])
def test_pieces_of_one_text_or_of_all_at_once(tiny_engine: Engine, length: int) -> None:
    texts = [text(tiny_engine, length, seed) for seed in range(3)]
    whole, one_by_one = read(tiny_engine, *texts), read(tiny_engine, *texts, most=0)
    assert_same(whole, one_by_one)
    for row, (policy, tokens) in enumerate(whole.texts):
        ids, mask = tiny_engine.policy_set.pad([list(tokens)])
        logits = tiny_engine.policy_set.forward(0, [policy], ids, mask, use_cache=False)
        expected = tiny_engine.policy_set.log_probs(logits[0, -1])
        assert whole.log_probs[row] == pytest.approx(expected, abs=1e-4)


def test_what_was_read_is_copied_and_gives_the_same_bits(tiny_engine: Engine) -> None:
    known = PrefixCache(0)
    first = text(tiny_engine, 3 * PIECE + 5)
    read(tiny_engine, first, known=known)
    for other, copied in {
        first: len(first),  # the same prompt again
        first + text(tiny_engine, 40, 1): 3 * PIECE,  # the next turn
        first[: 2 * PIECE + 9] + text(tiny_engine, 50, 2): 2 * PIECE,  # a branch
        first[: 3 * PIECE]: 2 * PIECE,  # its last position is read, for what comes after it
        first[: PIECE - 1] + text(tiny_engine, 50, 3): 0,
    }.items():
        reading = PromptReading(
            [(policy, other) for policy in tiny_engine.policy_set.policies[:2]], torch.device("cpu")
        )
        with torch.inference_mode():
            known.fill(reading)
        assert reading.done == [copied] * 2, len(other)
        assert_same(read(tiny_engine, other, known=known), read(tiny_engine, other))


def test_other_policies_have_other_keys(tiny_engine: Engine) -> None:
    known, tokens = PrefixCache(0), text(tiny_engine, 100)
    read(tiny_engine, tokens, known=known)
    third = PromptReading([(tiny_engine.policy_set.policies[2], tokens)], torch.device("cpu"))
    known.fill(third)
    assert third.done == [0]


def test_the_cache_has_a_bound_and_drops_beginnings(tiny_engine: Engine) -> None:
    known, tokens = PrefixCache(0), text(tiny_engine, 120)
    turns = [read(tiny_engine, tokens[:length], known=known) for length in (40, 80, 120)]
    assert known.bytes == turns[-1].bytes, "the next turn has all of the one before"
    read(tiny_engine, tokens[:PIECE], known=known)
    assert known.bytes == turns[-1].bytes, "a short text is not worth its memory"
    known.limit = 3 * turns[-1].bytes
    for seed in range(1, 9):
        read(tiny_engine, text(tiny_engine, 120, seed), known=known)
        assert known.bytes <= known.limit
    again = PromptReading([(tiny_engine.policy_set.policies[0], tokens)], torch.device("cpu"))
    known.fill(again)
    assert again.done == [0], "the last used stay"


def test_shared() -> None:
    assert shared((1, 2, 3), (1, 2, 4, 5)) == 2 and shared((), (1,)) == 0
    assert shared((1, 2), (1, 2, 3)) == 2 and shared((1, 2, 3, 9, 9), (1, 2, 4, 9, 9)) == 2


def test_a_short_prompt_does_not_wait_for_a_long_one_nor_a_long_one_for_ever(tiny_engine: Engine) -> None:
    batch = Batch(tiny_engine.policy_set)
    long = make(tiny_engine, "mix the policies " * 16, tiny_engine.mixture(), SAMPLING, 0)
    batch.begin([long])
    pieces = 0
    while long in batch.reading:
        short = make(tiny_engine, "mix", tiny_engine.mixture(), SAMPLING, pieces)
        batch.begin([short])
        for _ in range(8):  # four policies, and every second piece is the long one's
            batch.read(0.0)
        assert short in batch.sequences
        batch.evict([short])
        pieces += 1
        assert pieces < 50
    assert long in batch.sequences


def test_who_leaves_while_a_prompt_is_read(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(tiny_engine.policy_set)
    prompt = "mix the policies and move the faders " * 8
    stays, leaves = (make(tiny_engine, prompt, tiny_engine.mixture(), SAMPLING, seed) for seed in (0, 1))
    alone = make(tiny_engine, "faders and " + prompt, tiny_engine.mixture(), SAMPLING, 2)
    batch.begin([stays, leaves, alone])
    batch.read(0.0)
    batch.evict([leaves, alone])
    count = 0

    def counting(self: ModelRunner, reading: PromptReading, most: int) -> int:
        nonlocal count
        found = original(self, reading, most)
        count += found
        return found

    original = ModelRunner.read
    monkeypatch.setattr(ModelRunner, "read", counting)
    while batch.reading:
        batch.read()
    length = len(next(iter(stays.prompt_ids.values())))
    assert batch.sequences == [stays] and count <= 4 * length, "nothing is read for those who left"


def test_others_go_on_while_a_long_prompt_is_read(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "SHARE_OF_STEP", 0.0)  # a piece of one text between two steps
    sampling = Sampling(max_new_tokens=150, temperature=2.0, logit_bias=[(tiny_engine.policy_set.chat.end[-1], -100)])
    running = tiny_engine.submit("mix", sampling=sampling, mixture=tiny_engine.mixture(), rewards=False)
    next(iter(running))
    before = len(running.sequence.tokens)
    long = tiny_engine.submit("mix the policies " * 16, tiny_engine.mixture(), Sampling(1), rewards=False)
    assert len(long.completion().tokens) == 1
    drawn = len(running.sequence.tokens) - before
    pieces = sum(-(-len(ids) // PIECE) for ids in long.sequence.prompt_ids.values())
    running.cancel()
    assert drawn >= pieces - 4 > 12, "there is a step between any two pieces"


def test_the_next_turn_of_a_conversation_is_read_from_its_end(tiny: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptReading, "read", counted := CountedReads())
    with Engine.from_config(tiny.config) as engine:
        counted.count = 0
        first = [{"role": "user", "content": "mix the policies and move the faders " * 4}]
        answer = engine.generate(first, max_new_tokens=8, seed=1)
        once = counted.count
        turn = [*first, {"role": "assistant", "content": answer.text}, {"role": "user", "content": "again"}]
        counted.count = 0
        second = engine.generate(turn, max_new_tokens=8, seed=1)
        assert counted.count < once / 2
        counted.count = 0
        assert engine.generate(turn, max_new_tokens=8, seed=1).tokens == second.tokens and counted.count == 0
    with Engine.from_config(tiny.config) as fresh:
        assert fresh.generate(turn, max_new_tokens=8, seed=1) == second, "with nothing to reuse, the same bits"


class CountedReads:
    def __init__(self) -> None:
        self.count, self.original = 0, PromptReading.read

    def __get__(self, reading: PromptReading, kind: type | None = None):
        def read(*arguments: object) -> int:
            found = self.original(reading, *arguments)  # type: ignore[arg-type]
            self.count += found
            return found

        return read


def test_a_sequence_knows_its_texts(tiny_engine: Engine) -> None:
    batch = Batch(tiny_engine.policy_set)
    sequences: list[Sequence] = [make(tiny_engine, "mix", tiny_engine.mixture(), SAMPLING, 0) for _ in range(3)]
    batch.begin(sequences)
    batch.read()
    assert batch.sequences == sequences and batch.rows == 12
