"""Stop strings, against the same response without them, and against all responses of small policies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from engine import Engine, InputError, Request, Sampling
from engine.inference.stop_strings import without_beginnings
from tests.conftest import Tiny
from tests.engine.conftest import LENGTH, PROMPTS, Small
from tests.engine.inference.test_streams import KINDS, random_engine

PROMPT = "move the faders over the lazy dog"
LONG = 40


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """With a tokenizer of parts of words and bytes, or of characters and, for others, bytes."""
    with random_engine(request.param, tiny, tmp_path_factory.mktemp("stops") / "base") as engine:
        yield engine


def sampled(most: int = LONG, **settings) -> Sampling:
    return Sampling(max_new_tokens=most, temperature=1.0, **settings)


def submit(engine: Engine, stop: list[str], seed: int, **settings) -> Request:
    sampling = sampled(stop=tuple(stop))
    return engine.submit(PROMPT, engine.mixture(), sampling, seed, trace=False, rewards=False, **settings)


def text_of(engine: Engine, tokens: list[int]) -> str:
    """The text of tokens by the tokenizer itself."""
    stops = engine.policy_set.stop_ids
    said = [token for token in tokens if token not in stops]
    return engine.policy_set.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def check(engine: Engine, stop: list[str], seed: int, whole: list[int], given: int = 0) -> bool:
    """Compare a response with stop strings with the tokens of the same one without; return whether it stopped."""
    begin = len(text_of(engine, whole[:given]).rstrip("\ufffd"))
    expected, text, reason = whole, text_of(engine, whole), None
    for count in range(given + 1, len(whole) + 1):
        so_far = text_of(engine, whole[:count])
        if places := [place for one in stop if (place := so_far.find(one, begin)) >= 0]:
            expected, text, reason = whole[:count], so_far[: min(places)], "stop_string"
            break
    request = submit(engine, stop, seed, tokens=whole[:given])
    streamed = [(token.id, token.text) for token in request]
    made = request.completion()
    assert (made.tokens, made.text) == (expected, text)
    assert (made.finish_reason == "stop_string") == (reason == "stop_string")
    assert [number for number, _ in streamed] == expected
    assert "".join(part for _, part in streamed) == text
    return reason is not None


@pytest.mark.parametrize("size", [1, 2, 5, 11])
def test_a_response_ends_with_the_token_that_completes_a_stop_string(engine: Engine, size: int) -> None:
    """Strings from all over the responses: within tokens, across several, in front and at the end."""
    stopped = 0
    for seed in range(3):
        whole = submit(engine, [], seed).completion()
        for place in range(0, len(whole.text), 17):
            stop = [whole.text[place : place + size], whole.text[place + 5 : place + 5 + size] or "never"]
            stopped += check(engine, stop, seed, whole.tokens)
    assert stopped > 5


@pytest.mark.parametrize(
    "stop",
    [["\ufffd"], ["e", "the quick"], ["aaaaaaab", "b"], ["zz", "z"], [" ", "\n\n"], ["x" * 500]],
)
def test_any_strings(engine: Engine, stop: list[str]) -> None:
    for seed in range(3):
        check(engine, stop, seed, submit(engine, [], seed).completion().tokens)


def test_only_new_text_ends_a_branch(engine: Engine) -> None:
    stopped = 0
    for seed in range(2):
        given = submit(engine, [], 40 + seed).completion().tokens[:7]
        whole = submit(engine, [], seed, tokens=given).completion()
        old = text_of(engine, given)
        new = whole.text[len(old.rstrip("\ufffd")) :]
        for stop in ([old[-1:] + new[:1]], [old[1:3]], [new[4:6], old[-3:]]):
            stopped += check(engine, stop, seed, whole.tokens, len(given))
    assert stopped


def test_others_in_the_batch_go_on(engine: Engine) -> None:
    """With stop strings of their own and without, each as alone."""
    alone = [submit(engine, stop, seed).completion() for seed, stop in enumerate([["e"], [], ["a", "o"], []])]
    together = [submit(engine, stop, seed) for seed, stop in enumerate([["e"], [], ["a", "o"], []])]
    for request, before in zip(together, alone, strict=True):
        made = request.completion()
        assert (made.tokens, made.text, made.finish_reason) == (before.tokens, before.text, before.finish_reason)


def test_rewards_are_of_the_text_before_it(tiny_engine: Engine) -> None:
    whole = tiny_engine.generate(PROMPT, seed=3, max_new_tokens=LONG, temperature=1.0)
    made = tiny_engine.generate(PROMPT, seed=3, max_new_tokens=LONG, temperature=1.0, stop=[whole.text[20:24]])
    assert made.finish_reason == "stop_string" and len(made.text) <= 20
    expected = tiny_engine.rewards([(PROMPT, made.text, made.tokens)])[0]
    assert made.rewards == pytest.approx(dict(expected))


@pytest.mark.parametrize("count", [4, 24])
def test_particles_are_of_the_responses_that_stop(
    small: Callable[[int, int], Small], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The normaliser of the mixture of whole responses that end at 'b c', over all of them."""
    monkeypatch.setattr("engine.inference.smc.LOW_ESS_FRACTION", 0.99)
    some = small(3, 0)
    weights = {"p0": 0.4, "p1": 0.4, "p2": 0.2}
    exact = some.exact
    assert exact.log_next is not None and exact.tokens is not None
    log_next = np.einsum("k,kyav->yav", list(weights.values()), exact.log_next[0, :3])
    found: dict[tuple[int, ...], float] = {}
    for row, (tokens, length) in enumerate(zip(exact.tokens.tolist(), exact.lengths.tolist(), strict=True)):
        said = tokens[:length]
        ends = [place + 2 for place in range(length - 1) if said[place : place + 2] == [1, 2]]
        said = said[: ends[0]] if ends else said
        found[tuple(said)] = sum(log_next[row, at, token] for at, token in enumerate(said))
    true = math.exp(np.logaddexp.reduce(list(found.values())))
    sampling = Sampling(LENGTH, 1.0, particles=count, stop=("b c",))
    mixture = some.engine.mixture(weights)
    requests = [some.engine.submit(PROMPTS[0], mixture, sampling, 1000 * i, trace=False) for i in range(300)]
    made = [request.completion() for request in requests]
    estimates = np.exp([completion.log_normaliser for completion in made])
    error = estimates.std() / math.sqrt(len(estimates))
    assert abs(estimates.mean() - true) < 3.5 * error
    assert error < 0.1 * true
    stopped = [completion for completion in made if completion.finish_reason == "stop_string"]
    assert stopped and all("b c" not in completion.text for completion in made)
    assert all(tuple(completion.tokens) in found for completion in made)
    share = sum(math.exp(value) for tokens, value in found.items() if tokens[-2:] == (1, 2)) / true
    if count == 24:
        assert len(stopped) / 300 == pytest.approx(share, abs=3.5 * math.sqrt(share * (1 - share) / 300) + 0.02)


def test_an_end_that_may_be_a_beginning_is_held_back() -> None:
    assert without_beginnings("one two th", ["three", "two x"], 0) == "one two "
    assert without_beginnings("one two", ["two x"], 0) == "one "
    assert without_beginnings("one two", ["two x"], 5) == "one two"
    assert without_beginnings("aab", ["ab!", "b?"], 0) == "a"
    assert without_beginnings("abc", ["x"], 0) == "abc"


REFUSED = [
    ({"stop": 3}, "stop: found int; give a list of strings"),
    ({"stop": ["a"] * 17}, "stop: found 17 strings; give 16 or fewer"),
    ({"stop": ["a", ""]}, "stop: found a string of 0 characters; give 1 to 500"),
    ({"stop": ["a" * 501]}, "stop: found a string of 501 characters; give 1 to 500"),
    ({"stop": [None]}, "stop: found None, which is NoneType; give strings"),
    ({"stop": ["\ud800"]}, "stop: it holds half a character"),
    ({"logit_bias": 3}, "logit_bias: found int; give"),
    ({"logit_bias": {-1: 0}}, "logit_bias: found the token '-1'; give token ids"),
    ({"logit_bias": {"5": 0}}, "logit_bias: found the token '5'; give token ids"),
    ({"logit_bias": {5: 101}}, "logit_bias: found 101 for the token 5; give a number from -100"),
    ({"logit_bias": {5: math.nan}}, "logit_bias: found nan for the token 5; give a number from -100"),
    ({"logit_bias": [(5, 1), (5, 2)]}, "logit_bias: the token 5 is there twice"),
    ({"logit_bias": [5]}, "logit_bias: found 5; give pairs"),
    ({"logit_bias": dict.fromkeys(range(1025), 1)}, "logit_bias: found 1025 tokens; give 1024 or fewer"),
]


@pytest.mark.parametrize(("settings", "error"), REFUSED)
def test_settings_that_are_refused(settings: dict, error: str) -> None:
    with pytest.raises(InputError) as found:
        Sampling(**settings)
    assert str(found.value).startswith(error) and "\n" not in str(found.value)
