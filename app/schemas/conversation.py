"""The conversation before the prompt, as plain values: its messages, and which mixture produced each reply."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from engine import InputError
from engine.messages import Message, Prompt, check_messages, messages_of

LONGEST = 500  # characters of `made`


class Turn(BaseModel):
    """One message. `made` describes the panel and mixture that produced a message of the assistant's."""

    model_config = ConfigDict(strict=True)

    role: Literal["user", "assistant"]
    content: str
    made: Annotated[str, Field(max_length=LONGEST)] = ""


Turns = list[Turn]
_adapter = TypeAdapter(Turns)


def parse(text: str | None) -> Turns:
    """Parse a conversation as `dump` writes it and the page sends it back.

    Raises:
        InputError: if it is malformed, or a message of the user's cannot follow.
    """
    try:
        turns = _adapter.validate_json(text or "[]")
    except ValidationError:
        raise InputError("conversation: it cannot be read; begin a new one") from None
    question_turns(turns, "?")  # a message of the user's can follow
    return turns


def dump(turns: Turns) -> str:
    """Return the conversation as JSON."""
    return _adapter.dump_json(turns).decode()


def plain_turns(turns: Turns) -> list[Message]:
    """Return the messages with role and content only."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def question_turns(turns: Turns, prompt: str) -> Prompt:
    """Return the conversation with this prompt as its last message, or the prompt itself if there is no conversation.

    Raises:
        InputError: if the prompt is empty within a conversation.
    """
    if turns and not prompt.strip():
        raise InputError("prompt: it is empty; write the next message")
    return check_messages([*plain_turns(turns), {"role": "user", "content": prompt}]) if turns else prompt


def replied(turns: Turns, prompt: Prompt, response: str, made: str) -> Turns:
    """Return the conversation extended by the assistant's response to a prompt.

    Args:
        turns: The conversation on the page; `made` is kept for those of its messages that the prompt still contains.
        prompt: The prompt that was answered, with its conversation.
        response: The assistant's text.
        made: Description of the panel and mixture, cut to `LONGEST` characters.
    """
    found = []
    for place, message in enumerate(messages_of(prompt)):
        known = turns[place] if place < len(turns) and plain_turns(turns[place : place + 1]) == [message] else None
        found.append(known or Turn.model_validate(message))
    return [*found, Turn(role="assistant", content=response, made=made[:LONGEST])]
