"""The conversation before the prompt, as plain values: what was said, and whose response each answer was."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from engine import InputError
from engine.messages import Message, Prompt, check_messages, messages_of

LONGEST = 500  # characters of `made`


class Turn(BaseModel):
    """One message. made: of the assistant's, the panel and the mixture that it came from."""

    model_config = ConfigDict(strict=True)

    role: Literal["user", "assistant"]
    content: str
    made: Annotated[str, Field(max_length=LONGEST)] = ""


Turns = list[Turn]
_adapter = TypeAdapter(Turns)


def parse(text: str | None) -> Turns:
    """What `dump` wrote, as the page sends it back. Raises InputError."""
    try:
        turns = _adapter.validate_json(text or "[]")
    except ValidationError:
        raise InputError("conversation: it cannot be read; begin a new one") from None
    question_turns(turns, "?")  # a message of the user's can follow
    return turns


def dump(turns: Turns) -> str:
    """Return turns as JSON."""
    return _adapter.dump_json(turns).decode()


def plain_turns(turns: Turns) -> list[Message]:
    """Return turns as messages for the engine."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def question_turns(turns: Turns, prompt: str) -> Prompt:
    """What is asked when this prompt follows. Raises InputError where it is empty within a conversation."""
    if turns and not prompt.strip():
        raise InputError("prompt: it is empty; write the next message")
    return check_messages([*plain_turns(turns), {"role": "user", "content": prompt}]) if turns else prompt


def replied(turns: Turns, prompt: Prompt, response: str, made: str) -> Turns:
    """The conversation that goes on from a response to this prompt. turns: the one on the page, whose answers it knows
    the makers of."""
    found = []
    for place, message in enumerate(messages_of(prompt)):
        known = turns[place] if place < len(turns) and plain_turns(turns[place : place + 1]) == [message] else None
        found.append(known or Turn.model_validate(message))
    return [*found, Turn(role="assistant", content=response, made=made[:LONGEST])]
