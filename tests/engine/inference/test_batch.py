"""The running batch under random joins, leaves, steers and cancels: every sequence is what it would be alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Engine, Mixture, Sampling
from engine.inference.batch import Batch
from engine.inference.kv_cache import ROWS
from engine.inference.sampler import Sampler
from engine.inference.sequence import Sequence
from engine.models.prepacked_linear import PackedLinear, can_pack
from tests.conftest import Tiny

PROMPTS = ["mix", "move the faders over the lazy dog and jump", "the quick brown fox 你好 " * 5]
WEIGHTS = [{"plain": 1.0}, {"plain": 0.3, "narrow": 0.7}, {"stabilized": 0.5, "reference": 0.5}]
SAMPLINGS = [
    Sampling(max_new_tokens=9, temperature=0.0),
    Sampling(max_new_tokens=40, temperature=1.0, top_p=0.9),
    Sampling(max_new_tokens=70, temperature=0.7, top_k=20, min_p=0.02, repetition_penalty=1.2),
]
MIXING = [{}, {"gain": 1.5}, {"rule": "power", "exponent": -0.5}, {"rule": "soup"}]

mixtures = st.tuples(st.sampled_from(WEIGHTS), st.sampled_from(MIXING))
joins = st.tuples(
    st.sampled_from(["join", "begin"]),
    st.lists(
        st.tuples(st.sampled_from(PROMPTS), mixtures, st.sampled_from(SAMPLINGS), st.integers(0, 99)),
        min_size=1,
        max_size=4,
    ),
)
steers = st.tuples(st.just("steer"), st.integers(0, 9), mixtures)
cancels = st.tuples(st.just("cancel"), st.integers(0, 9))
moves = st.tuples(st.just("move"), st.integers(0, 9))
steps = st.tuples(st.just("step"), st.integers(1, 12))


def make(engine: Engine, prompt: str, mixture: Mixture, sampling: Sampling, seed: int) -> Sequence:
    policies = engine.policy_set.rows_of(mixture, trace=True)
    ids = engine.policy_set.read(policies, prompt)
    return Sequence(prompt, mixture, sampling, Sampler(sampling, seed), policies, ids)


def steerable(sequence: Sequence, mixture: Mixture) -> bool:
    # A soup's own row remembers the weights that it was read with, so a steered soup is not the same alone.
    return mixture.rule != "soup" and sequence.mixture.rule != "soup"


def alone(engine: Engine, sequence: Sequence, seed: int, static: bool) -> Sequence:
    """The same sequence with nobody beside it, drawn from the same mixtures."""
    other = make(engine, sequence.prompt, sequence.drawn_with[0], sequence.sampling, seed)
    batch = Batch(engine.policy_set, static=static)
    batch.admit([other])
    for mixture in sequence.drawn_with:
        other.mixture = mixture
        batch.step()
    return other


@pytest.mark.parametrize("static", [False, True], ids=["exact", "static"])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=st.lists(st.one_of(joins, steps, steps, steers, cancels, moves), min_size=4, max_size=16))
def test_every_sequence_is_what_it_would_be_alone(tiny_engine: Engine, static: bool, plan: list) -> None:
    batch = Batch(tiny_engine.policy_set, static=static)
    every: list[tuple[Sequence, int]] = []
    for what, *given_ in [*plan, ("step", 80)]:
        if what in ("join", "begin"):
            new = [
                (make(tiny_engine, prompt, tiny_engine.mixture(weights, **mixing), sampling, seed), seed)
                for prompt, (weights, mixing), sampling, seed in given_[0]
            ]
            every += new
            join = batch.admit if what == "join" else batch.begin
            join([sequence for sequence, _ in new])
        elif what == "step":
            for _ in range(given_[0]):
                batch.read(0.0)  # a piece of one text
                batch.step()
            while given_[0] == 80 and batch.reading:
                batch.read()
                batch.step()
        elif batch.sequences:
            sequence = batch.sequences[given_[0] % len(batch.sequences)]
            if what == "steer":
                mixture = tiny_engine.mixture(given_[1][0], **given_[1][1])
                if steerable(sequence, mixture):
                    sequence.mixture = mixture
            elif what == "cancel":
                sequence.finish_reason = "stopped"
                batch.evict_finished()
            else:  # taken out, and back in by reading all it has said
                batch.evict([sequence])
                batch.admit([sequence])
    while batch.sequences:
        batch.step()
    assert batch.rows == 0 and not batch.reading
    assert all(runner.kv_cache.slots == 0 and not runner.kv_cache.layers for runner in batch.runners)
    for sequence, seed in every:
        assert sequence.finish_reason in ("end", "length", "stopped")
        if not sequence.tokens:
            continue
        other = alone(tiny_engine, sequence, seed, static)
        assert other.tokens == sequence.tokens
        for ours, theirs in zip(sequence.trace, other.trace, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)
        at_once = tiny_engine.policy_set.teacher_forced(sequence.prompt, sequence.tokens)
        for name, log_probs in at_once.items():
            if name in sequence.names:
                assert [step[name] for step in sequence.trace] == pytest.approx(log_probs, abs=1e-4)


def test_panels_of_one_prompt_are_read_once(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    forward = type(tiny_engine.policy_set).forward

    def counting(self, index, policies, ids, mask, **given_):
        read.append(len(policies))
        return forward(self, index, policies, ids, mask, **given_)

    monkeypatch.setattr(type(tiny_engine.policy_set), "forward", counting)
    batch = Batch(tiny_engine.policy_set)
    sampling = Sampling(temperature=1.0)
    batch.admit([make(tiny_engine, PROMPTS[0], tiny_engine.mixture(weights), sampling, 0) for weights in WEIGHTS])
    assert read == [4]
    assert batch.rows == 12


def products_depend_on_rows(dtype: torch.dtype) -> bool:
    """Whether this CPU sums a row's products in another order when other rows are multiplied beside it."""
    linear, x = PackedLinear(torch.nn.Linear(32, 80, dtype=dtype)), torch.randn(96, 32, dtype=dtype)
    keys = torch.randn(96, 8, 64, dtype=dtype)
    with torch.inference_mode():
        products = [(linear(x[:rows]), torch.bmm(x[:rows, None, :8], keys[:rows])) for rows in (96, 1, 3, 5, 48)]
    return any(
        not torch.equal(every[: len(some)], some)
        for part in products[1:]
        for every, some in zip(products[0], part, strict=True)
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_a_cpu_nothing_hangs_on_who_else_is_there(tiny: Tiny, dtype: str) -> None:
    """To the last bit, so that a link gives the same text while others are at work, in 16 bit too."""
    kind = getattr(torch, dtype)
    if not can_pack(kind) or products_depend_on_rows(kind):
        pytest.skip("products of this CPU depend on how many rows there are")
    with Engine.from_config(tiny.write(f"{dtype}.yaml", dtype=dtype)) as engine:
        mixture = engine.mixture({"plain": 1, "narrow": 2})

        def under_way(seeds: list[int], at_once: bool = True) -> dict[int, list[torch.Tensor]]:
            """{seed: log-probs before each token}; a seed has its prompt."""
            batch = Batch(engine.policy_set)
            made = {seed: make(engine, PROMPTS[seed % 3], mixture, SAMPLINGS[2], seed) for seed in seeds}
            for some in [list(made.values())] if at_once else [[one] for one in made.values()]:
                batch.admit(some)
            found: dict[int, list[torch.Tensor]] = {seed: [] for seed in seeds}
            for _ in range(30):
                for seed, sequence in made.items():
                    if sequence.finish_reason is None:
                        found[seed].append(batch.log_probs([sequence]))
                batch.step()
            return found

        alone = {seed: under_way([seed])[seed] for seed in range(9)}
        assert max(map(len, alone.values())) == 30
        for at_once in (True, False):
            together = under_way(list(alone), at_once)
            for seed, expected in alone.items():
                assert all(torch.equal(*pair) for pair in zip(together[seed], expected, strict=True))


def test_the_bounds_hold(tiny_engine: Engine) -> None:
    """Rows are bounded by number; keys and values by what the longest row may come to, times the rows."""
    few = Batch(tiny_engine.policy_set, max_rows=8)
    sequences = [make(tiny_engine, "mix", tiny_engine.mixture(), SAMPLINGS[1], seed) for seed in range(3)]
    assert few.fits(sequences[:2])
    assert not few.fits(sequences)
    few.admit(sequences[:1])
    assert few.fits(sequences[1:2])
    assert not few.fits(sequences[1:])
    # Two layers of keys and values, two heads of size 8, four bytes each: 256 bytes a position.
    assert few.runners[0].kv_cache.bytes == 256
    few.memory = 8 * sequences[0].longest * 256
    assert few.fits(sequences[1:2])
    assert not few.fits([make(tiny_engine, "mix", tiny_engine.mixture(), SAMPLINGS[2], 0)])


def joined(engine: Engine, static: bool) -> Batch:
    """Sixteen responses under way."""
    batch = Batch(engine.policy_set, static=static)
    sampling = replace(SAMPLINGS[1], max_new_tokens=200)
    batch.admit([make(engine, "mix", engine.mixture(), sampling, seed) for seed in range(16)])
    assert batch.runners[0].kv_cache.slots == (64 if static else ROWS)
    return batch


def leave(batch: Batch, sequences: list[Sequence]) -> None:
    for sequence in sequences:
        sequence.finish_reason = "stopped"
    batch.evict_finished()


def test_what_is_static_follows_the_rows(tiny_engine: Engine) -> None:
    batch = joined(tiny_engine, True)
    leave(batch, batch.sequences[1:])
    assert batch.runners[0].kv_cache.slots == 4
    assert batch.runners[0].kv_cache.layers[0].keys.shape[:2] == (1, 4)


def test_nothing_moves_while_a_response_is_written(tiny_engine: Engine) -> None:
    batch = joined(tiny_engine, False)
    kv_cache = batch.runners[0].kv_cache
    before = [layer.keys.data_ptr() for layer in kv_cache.layers]
    leave(batch, batch.sequences[1:])
    while batch.sequences and batch.sequences[0].finish_reason is None:
        assert [layer.keys.data_ptr() for layer in kv_cache.layers] == before
        batch.step()
    assert not kv_cache.layers and not kv_cache.longest, "what nobody needs any more is kept"
