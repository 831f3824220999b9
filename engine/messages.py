"""Prompts: a text, the messages of a conversation, the last of which is the user's, or token ids."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from engine.errors import InputError

Message: TypeAlias = dict[str, str]  # {"role": "user" or "assistant", "content": text}


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt as token ids that are read without a chat template; see `engine.models.token_prompts`.

    Attributes:
        tokens: the ids; none stands for the tokenizer's BOS token, if it has one.
    """

    tokens: tuple[int, ...]


# Of several messages the roles take turns, "user" first and last.
Prompt: TypeAlias = str | Sequence[Message] | TokenPrompt

ROLES = ("user", "assistant")
SYSTEM_ROLE = "system"  # of a message before the user's first, in prompts for the policies
BETWEEN = "\n\n"  # two messages, where no chat template says what stands there


def check_messages(prompt: Any, system: bool = False) -> str | list[Message]:
    """Return a checked prompt: a text unchanged, a single message as its text, several messages as a copy.

    Args:
        prompt: the prompt.
        system: whether the first message may be a system message.

    Raises:
        InputError: the prompt is not a text or a list of messages, is empty, has wrong roles, or cannot be encoded.
    """
    if isinstance(prompt, str):
        check_text(prompt, "prompt", "type a question or pick an example")
        return prompt
    if not isinstance(prompt, Sequence) or isinstance(prompt, (bytes, bytearray)):
        raise InputError(f"prompt: found {type(prompt).__name__}; give a text, or a list of messages")
    if not prompt:
        raise InputError("prompt: it has no messages; give one at least")
    found: list[Message] = []
    told = system and isinstance(prompt[0], dict) and prompt[0].get("role") == SYSTEM_ROLE
    for number, message in enumerate(prompt, 1):
        what = f"prompt, message {number}"
        role = SYSTEM_ROLE if told and number == 1 else ROLES[(number - 1 - told) % 2]
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise InputError(f'{what}: expected {{"role": "{role}", "content": text}}')
        if message["role"] != role:
            said = str(message["role"])[:40]
            raise InputError(f"{what}: the role is {said!r}, expected '{role}'; user and assistant take turns")
        if not isinstance(message["content"], str):
            raise InputError(f"{what}: the content is {type(message['content']).__name__}, expected a text")
        check_text(message["content"], what, "give it some text, or leave this turn out")
        found.append({"role": role, "content": message["content"]})
    if found[-1]["role"] != "user":
        whose = "a system message" if found[-1]["role"] == SYSTEM_ROLE else "the assistant's"
        raise InputError(f"prompt: its last message is {whose}; end with one of the user's")
    return found if len(found) > 1 else found[0]["content"]


def checked_prompt(prompt: Any) -> str | list[Message] | TokenPrompt:
    """Return token ids unchanged, and any other prompt as `check_messages` does; it may begin with a system message.

    Raises InputError as it does.
    """
    return prompt if isinstance(prompt, TokenPrompt) else check_messages(prompt, system=True)


def check_text(text: str, what: str, remedy: str) -> None:
    """Check that a text is not blank and can be encoded.

    Args:
        text: the text.
        what: its name, with which the error message begins.
        remedy: the end of the error message for a blank text.

    Raises:
        InputError: the text is blank, or has a lone surrogate.
    """
    if not text.strip():
        raise InputError(f"{what}: it is empty; {remedy}")
    check_encoding(text, what)


def check_encoding(text: str, what: str) -> None:
    """Raise InputError, which begins with `what`, if a text has a lone surrogate, which no tokenizer can encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what}: it holds half a character (a lone surrogate); type it again") from None


def messages_of(prompt: Prompt) -> list[Message]:
    """Return a prompt as a new list of messages; a text is one message of the user.

    Raises:
        InputError: the prompt is token ids.
    """
    if isinstance(prompt, TokenPrompt):
        raise InputError("prompt: it is token ids, which are no messages; give a text, or a list of messages")
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(said) for said in prompt]


def spoken_messages(prompt: Prompt) -> list[Message]:
    """Return a prompt's messages without a system message, as reward models read it. Raises as `messages_of`."""
    messages = messages_of(prompt)
    return messages[1:] if messages[0]["role"] == SYSTEM_ROLE else messages


def last_of(prompt: Prompt) -> str:
    """Return the text of the user's last message."""
    return prompt if isinstance(prompt, str) else messages_of(prompt)[-1]["content"]


def joined(messages: Sequence[Message]) -> str:
    """Return the messages for a model without a chat template: joined by empty lines."""
    return BETWEEN.join(message["content"] for message in messages)


def read_messages(file: str | Path) -> str | list[Message]:
    """Read a prompt from a JSON file with a list of messages; '-' is stdin. Raises InputError naming the file."""
    name = "stdin" if str(file) == "-" else str(file)
    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else Path(file).read_bytes()
        found = json.loads(text.decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}; give a JSON file, a list of messages") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not JSON ({error}); give a list of messages") from None
    if not isinstance(found, list):
        raise InputError(f'{name}: expected a list of messages, such as [{{"role": "user", "content": "Hello"}}]')
    return check_messages(found)
