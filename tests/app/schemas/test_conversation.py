"""The conversation before the prompt, as the page sends it and as it goes on."""

from __future__ import annotations

import json

import pytest

from app.schemas.conversation import Turn, dump, parse, plain_turns, question_turns, replied
from app.services.app_state import Desk
from engine import Engine, InputError, Sampling

FIRST = [Turn(role="user", content="a <b>"), Turn(role="assistant", content="b\n", made="Left · helpful")]


def test_turns_come_back_as_they_were():
    assert parse(dump(FIRST)) == FIRST
    assert parse("[]") == parse("") == parse(None) == []


@pytest.mark.parametrize(
    "text",
    [
        "{", "{}", "1", '[1]', '[{"role": "user"}]', '[{"role": "root", "content": "a"}]',
        '[{"role": "user", "content": 1}]', "[" * 50_000,
        json.dumps([{"role": "user", "content": "a"}]),
        json.dumps([{"role": "assistant", "content": "a"}, {"role": "user", "content": "a"}]),
        json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]),
        json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "a", "made": "x" * 501}]),
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_told_in_one_line(text):
    with pytest.raises(InputError) as told:
        parse(text)
    assert "\n" not in str(told.value)


def test_what_is_asked_is_the_prompt_with_all_before_it():
    assert question_turns([], "c") == "c"
    assert question_turns(FIRST, "c") == [*plain_turns(FIRST), {"role": "user", "content": "c"}]
    for empty in ("", " \n"):
        with pytest.raises(InputError, match="write the next message"):
            question_turns(FIRST, empty)


def test_a_reply_goes_on_from_what_was_asked():
    assert replied([], "a <b>", "b\n", "Left · helpful") == FIRST
    second = replied(FIRST, question_turns(FIRST, "c"), "d", "Right · reference")
    assert second[:2] == FIRST
    assert second[2:] == [Turn(role="user", content="c"), Turn(role="assistant", content="d", made="Right · reference")]
    # Another choice at the same turn takes the place of the first.
    assert replied(second, question_turns(FIRST, "c"), "e", "Left · helpful")[2:] == [
        Turn(role="user", content="c"),
        Turn(role="assistant", content="e", made="Left · helpful"),
    ]
    assert len(replied([], "a", "b", "x" * 1000)[-1].made) == 500


def test_a_branch_of_a_later_turn_reads_the_conversation(store, tiny_engine: Engine):
    desk, prompt = Desk(tiny_engine, store), question_turns(FIRST, "c")
    mixture, sampling = tiny_engine.mixture({"plain": 1}), Sampling(max_new_tokens=8, temperature=0.0)
    run = desk.start("me", prompt, {"left": mixture, "right": mixture}, sampling, 1)
    left = run.responses["left"]
    made = left.request.completion()
    left.tokens = made.tokens
    run.chosen = (left, 3)
    desk.branch("me", "third", mixture, sampling, 1)
    branch = run.responses["third"].request.completion()
    assert branch.prompt == made.prompt == prompt
    assert branch.tokens[: len(made.tokens)] == made.tokens
