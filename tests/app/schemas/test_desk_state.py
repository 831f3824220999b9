from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from app.schemas.conversation import Turn
from app.schemas.desk_state import DeskState, MixtureState, json_schema, read_state, typed_stops
from app.schemas.share_link import from_link, to_link
from app.schemas.solo_mute_lock import Channels
from engine import InputError, Sampling

PROMPT = "Quotes \" ' `, $HOME, <b>, Zeilen\nund 你好 \U0001f39a️"


def settings(**changes) -> DeskState:
    mixture = MixtureState(
        faders={"a": 1 / 3, "b": 1}, channels=Channels(mute=["b"]), rule="power", gain=1.5, exponent=-0.5
    )
    usual = {"prompt": PROMPT, "mixture": mixture, "panels": {"left": "faders", "third": "uniform"}, "seed": "20"}
    return DeskState(**{**usual, "sampling": {"temperature": 0.7, "max_new_tokens": 80}, **changes})


RAW = settings().model_dump()


def packed(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_a_link_comes_back_as_it_was():
    for length in range(4):  # base64 is padded in three ways
        made = settings(seed="1" * (length + 1))
        link = to_link(made)
        assert re.fullmatch(r"[A-Za-z0-9_-]+", link)
        assert from_link(link) == made


def test_what_a_newer_desk_adds_is_left_alone():
    raw = settings().model_dump()
    assert from_link(packed({**raw, "later": 1, "mixture": {**raw["mixture"], "later": [1]}})) == settings()


@pytest.mark.parametrize(
    "link",
    [
        "", "x", "%%%", "<script>alert(1)</script>", packed([]), packed("text"), packed({}), packed({"v": 1}),
        to_link(settings())[:-20], "A" * 2_000_000, base64.b64encode(b"[" * 50_000).decode(),
        base64.b64encode(b"\xff\xfe").decode(), packed({**RAW, "seed": "1; drop"}),
        packed({**RAW, "prompt": ["a"]}), packed({**RAW, "sampling": {"a": None}}),
        packed({**RAW, "mixture": {"faders": {"a": 7}, "rule": "power", "gain": 1, "exponent": 1}}),
        packed({**RAW, "sampling": {"temperature": float("nan")}}),
        packed({**RAW, "sampling": {"temperature": 10**400}}),
        packed({**RAW, "turns": "a"}), packed({**RAW, "turns": [["user", "a"]]}),
        packed({**RAW, "turns": [{"role": "system", "content": "a"}]}),
        packed({**RAW, "turns": [{"role": "user", "content": {"a": 1}}]}),
        packed({**RAW, "turns": [{"role": "assistant", "content": "a", "made": "x" * 501}]}),
    ],
)  # fmt: skip
def test_a_broken_link_is_told_in_one_line(link):
    with pytest.raises(InputError, match="link: it is broken") as told:
        from_link(link)
    assert "\n" not in str(told.value)


def test_a_link_from_another_version_is_told():
    with pytest.raises(InputError, match="another version"):
        from_link(packed({**RAW, "v": 4}))


def test_a_link_has_the_conversation_before_the_prompt():
    turns = [Turn(role="user", content=PROMPT), Turn(role="assistant", content=" b\n", made="Left · helpful")]
    made = settings(v=2, turns=turns)
    assert from_link(to_link(made)) == made
    assert from_link(packed({key: RAW[key] for key in RAW if key != "turns"})).turns == []


def test_stop_strings_are_one_a_line():
    typed = "end\n\n  \n two words \n\\n\\nQ:\\t\n\\\\n \\x"
    assert typed_stops(typed) == ("end", " two words ", "\n\nQ:\t", "\\n \\x")
    made = settings(v=3, stop=typed, sampling={"temperature": 0.7, "max_new_tokens": 8, "min_p": 0})
    assert from_link(to_link(made)) == made
    assert made.tokens_sampling() == Sampling(8, 0.7, stop=typed_stops(typed))
    with pytest.raises(InputError, match="stop: found 17 strings"):
        made.model_copy(update={"stop": "a\n" * 17}).tokens_sampling()


def test_a_link_without_stop_strings_is_as_before_there_were_any():
    older = {key: value for key, value in RAW.items() if key not in ("stop", "new_seed")}
    assert json.loads(base64.urlsafe_b64decode(to_link(settings()) + "==")) == older
    assert from_link(packed(older)) == settings()


def test_half_a_character_has_no_link():
    with pytest.raises(InputError, match="lone surrogate"):
        to_link(settings(prompt="\ud800"))


def test_the_scripts_types_are_of_this_schema():
    file = Path(__file__).parents[2] / "js" / "desk_state.schema.json"
    assert file.read_text() == json_schema(), f"run: python -m app.schemas.desk_state > {file.name}"


def test_what_the_page_sends_is_read_or_refused_in_one_line():
    assert read_state(settings(new_seed=True).model_dump_json()) == settings(new_seed=True)
    for text in ("", "[]", "null", "{}", '{"prompt": 1}', "[" * 100_000, json.dumps({**RAW, "mixture": {}})):
        with pytest.raises(InputError, match="reload the page"):
            read_state(text)
    with pytest.raises(InputError, match="half a character"):
        read_state(json.dumps({**RAW, "prompt": "\ud800"}))
